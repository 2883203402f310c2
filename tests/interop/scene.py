"""Where a scenario plays: three namespaces, a service behind the proxy, and the processes, all of which end with it.

    client ──────────── proxy ──────────── target
    10.66.1.1           10.66.1.2          10.66.2.2   10.66.80.10  TCP 8080: HTTP origin, UDP 7000: reliable_udp
    fd66:1::1           fd66:1::2          fd66:2::2   fd66:80::10

The client has a route to neither of the target's networks: only through the tunnel can it reach them. The proxy's name
stands in the hosts file of both its users.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from masque_client.testing.certificates import CertificateAuthority
from masque_client.testing.netns import Lab, Namespace
from masque_connect.demo.actors import PYTHON, Actor
from tests.interop.peer import Launch

PROXY_NAME: Final = "proxy.interop.test"
PROXY_ADDRESS, PROXY_PORT = "10.66.1.2", 4433
PROXY_URL: Final = f"https://{PROXY_NAME}:{PROXY_PORT}"
SERVICES: Final = {4: "10.66.80.10", 6: "fd66:80::10"}
HTTP_PORT, UDP_PORT = 8080, 7000
POOLS: Final = ("10.67.0.0/24", "fd67::/64")
ROUTES: Final = ("10.66.80.0/24", "fd66:80::/64")

_NETNS_ETC: Final = Path("/etc/netns")


class Scene:
    """The namespaces and what runs in them. A context manager; leaving it ends and removes everything."""

    client: Namespace
    proxy: Namespace
    target: Namespace

    def __init__(self) -> None:
        self._undo = ExitStack()
        self._actors: list[Actor] = []
        self.directory: Path
        self.authority: CertificateAuthority

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self.directory = Path(tempfile.mkdtemp(prefix="masque-interop-"))
            undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self._build(undo.enter_context(Lab()), undo)
            undo.callback(self._stop_all)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def start(self, name: str, where: Namespace, launch: Launch) -> Actor:
        """Start a program without waiting for it."""
        command = tuple(launch.command)
        if launch.ready is not None:  # nobody would read its stdout
            command = ("sh", "-c", 'exec "$@" >&2', "sh", *command)
        log = Path(tempfile.mkdtemp(dir=self.directory))
        actor = Actor(name, ("ip", "netns", "exec", where.name), command, log)
        self._actors.append(actor)
        return actor

    @property
    def started(self) -> int:
        """How many processes have been started so far."""
        return len(self._actors)

    def tails(self, since: int) -> list[str]:
        """The last log lines of every process that runs, or was started after the first `since`."""
        told = [actor for n, actor in enumerate(self._actors) if n >= since or actor.process.poll() is None]
        return [f"{actor.name}: {line}" for actor in told for line in actor.tail()]

    def _stop_all(self) -> None:
        for actor in reversed(self._actors):
            actor.stop()

    def _build(self, lab: Lab, undo: ExitStack) -> None:
        self.client, self.proxy, self.target = (lab.namespace(role) for role in ("client", "proxy", "target"))
        lab.link(self.client, ["10.66.1.1/24", "fd66:1::1/64"], self.proxy, [f"{PROXY_ADDRESS}/24", "fd66:1::2/64"])
        lab.link(self.proxy, ["10.66.2.1/24", "fd66:2::1/64"], self.target, ["10.66.2.2/24", "fd66:2::2/64"])
        self.proxy.set_forwarding()
        for version, gateway, target in ((4, "10.66.2.1", "10.66.2.2"), (6, "fd66:2::1", "fd66:2::2")):
            self.target.ip("address", "add", SERVICES[version], "dev", "lo")
            self.target.add_route("default", via=gateway)
            self.proxy.add_route(SERVICES[version], via=target)
        self._name_the_proxy(undo)
        self.authority = CertificateAuthority.create(self.directory / "ca")
        self._serve()

    def _serve(self) -> None:
        hosts = (SERVICES[4], f"[{SERVICES[6]}]")
        for module, port in (("masque_client.testing.origin", HTTP_PORT), ("tests.interop.reliable_udp", UDP_PORT)):
            listen = (part for host in hosts for part in ("--listen", f"{host}:{port}"))
            self.start(module.rpartition(".")[2], self.target, Launch((*PYTHON, module, *listen)))
        for actor in self._actors:
            actor.next_line()

    def _name_the_proxy(self, undo: ExitStack) -> None:
        """`ip netns exec` shows the files of /etc/netns/NAME as those of /etc."""
        for namespace in (self.client, self.proxy):
            directory = _NETNS_ETC / namespace.name
            directory.mkdir(parents=True)
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            (directory / "hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n{PROXY_ADDRESS} {PROXY_NAME}\n")
