"""The demonstration's world: a client, a router, a proxy and a target, each a network namespace.

     client ─────────── router ─────────── proxy ─────────── target
     10.70.1.2          10.70.1.1          10.70.2.2          10.70.3.2   10.80.0.10  (origin, DNS)
     fd70:1::2          10.70.2.1          10.70.3.1          fd70:3::2   fd80::10

The service addresses 10.80.0.10 and fd80::10 are unknown to the router: only through the proxy can the client reach
them. 10.70.3.2 is routed all the way and serves to measure the bare path. With losses or delay a relay on the
router's 10.70.1.1 carries the client's packets to the proxy, and the proxy's name points there.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from masque_client.testing.netns import Lab, Namespace, Snapshot
from masque_connect.demo.actors import Actor
from masque_connect.demo.interrupts import Interrupts
from masque_connect.demo.workplace import Workplace

PROXY_NAME = "proxy.masque.test"
PROXY_ADDRESS, RELAY_ADDRESS = "10.70.2.2", "10.70.1.1"
BARE_TARGET = "10.70.3.2"
SERVICE_4, SERVICE_6 = "10.80.0.10", "fd80::10"
SERVICE_ROUTES = ("10.80.0.0/24", "fd80::/64")
POOL_4, POOL_6 = "10.89.0.0/24", "fd89::/64"
SERVICE_NAME = "origin.masque.test"

_NETNS_ETC = Path("/etc/netns")


class World(Workplace):
    """The namespaces, and the processes in them. A context manager; leaving it takes everything down."""

    client: Namespace
    router: Namespace
    proxy: Namespace
    target: Namespace

    def __init__(self, interrupts: Interrupts, *, through_relay: bool) -> None:
        super().__init__(interrupts)
        self.through_relay = through_relay
        self.lab = Lab()
        self._before = Snapshot.take()

    @property
    def ca_file(self) -> Path:
        """Of the CA that the proxy makes for itself."""
        return self.directory / "ca" / "ca.pem"

    def start(self, name: str, where: Namespace, *command: str, takes_orders: bool = False) -> Actor:
        """Start a process in a namespace; its log is `name`.log. See `Actor`."""
        return self._start(name, ("ip", "netns", "exec", where.name), command, takes_orders=takes_orders)

    def stop_all(self) -> list[str]:
        """End every process, the latest first; returns the ones still in our namespaces: there should be none."""
        for actor in reversed(self.actors):
            self.stop(actor)
        left = []
        for namespace in (self.client, self.router, self.proxy, self.target):
            pids = subprocess.run(["ip", "netns", "pids", namespace.name], capture_output=True, text=True, check=True)
            left += [f"process {pid} in {namespace.name}" for pid in pids.stdout.split()]
        return left

    def leftovers(self) -> list[str]:
        """See `Workplace`: namespaces, too, and what has changed on this machine outside of them."""
        listing = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
        namespaces = [f"network namespace {line}" for line in listing.stdout.splitlines() if self.lab.suffix in line]
        return super().leftovers() + namespaces + self._before.difference(Snapshot.take())

    def _build(self, undo: ExitStack) -> None:
        lab = undo.enter_context(self.lab)
        self.client, self.router = lab.namespace("client"), lab.namespace("router")
        self.proxy, self.target = lab.namespace("proxy"), lab.namespace("target")
        lab.link(self.client, ["10.70.1.2/24", "fd70:1::2/64"], self.router, ["10.70.1.1/24", "fd70:1::1/64"])
        lab.link(self.router, ["10.70.2.1/24", "fd70:2::1/64"], self.proxy, ["10.70.2.2/24", "fd70:2::2/64"])
        lab.link(self.proxy, ["10.70.3.1/24", "fd70:3::1/64"], self.target, ["10.70.3.2/24", "fd70:3::2/64"])
        self.router.set_forwarding()
        self.proxy.set_forwarding()
        for version, gateways, bare in ((4, "10.70", "10.70.3.0/24"), (6, "fd70", "fd70:3::/64")):
            _route(self.client, "default", _gateway(version, gateways, 1, 1))
            _route(self.router, bare, _gateway(version, gateways, 2, 2))
            _route(self.proxy, "default", _gateway(version, gateways, 2, 1))
            _route(self.target, "default", _gateway(version, gateways, 3, 1))
        for service, gateway in ((f"{SERVICE_4}/32", "10.70.3.2"), (f"{SERVICE_6}/128", "fd70:3::2")):
            self.target.ip("address", "add", service, "dev", "lo")
            _route(self.proxy, service, gateway)
        self._name_the_proxy(undo)

    def _name_the_proxy(self, undo: ExitStack) -> None:
        """`ip netns exec` shows files of /etc/netns/NAME as those of /etc."""
        existed = _NETNS_ETC.is_dir()
        directory = _NETNS_ETC / self.client.name
        directory.mkdir(parents=True)
        undo.callback(_remove, directory, None if existed else _NETNS_ETC)
        address = RELAY_ADDRESS if self.through_relay else PROXY_ADDRESS
        (directory / "hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n{address} {PROXY_NAME}\n")


def _remove(directory: Path, parent: Path | None) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    if parent is not None:
        with suppress(OSError):  # another world's files are in it, or it has removed it
            parent.rmdir()


def _gateway(version: int, prefix: str, network: int, host: int) -> str:
    return f"{prefix}.{network}.{host}" if version == 4 else f"{prefix}:{network}::{host}"


def _route(namespace: Namespace, destination: str, gateway: str) -> None:
    namespace.add_route(destination, via=gateway)


def service_urls() -> Sequence[str]:
    """The origin's URLs: through the tunnel over IPv4 and IPv6, and on the bare path."""
    return f"http://{SERVICE_4}:8080", f"http://[{SERVICE_6}]:8080", f"http://{BARE_TARGET}:8080"
