"""A tunnel whose proxy goes away: it comes back by itself, and until then nothing of it leaves by another way.

client 10.9.0.1 ─────── 10.9.0.2, 10.9.0.3 proxy (its tunnel leads to its own 10.99.0.1; it is the default gateway, too)
"""

from __future__ import annotations

import contextlib
import json
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from masque_client.testing.certificates import CertificateAuthority
from masque_client.testing.dns import DnsResponder
from masque_client.testing.netns import Lab, Namespace
from masque_client.testing.ping import ping
from masque_client.testing.transfer import SlowUpload

pytestmark = pytest.mark.netns

PYTHON = (sys.executable, "-m")
NAME = "proxy.masque.test"
PATIENCE_S = 60.0
"""For a machine with other things to do. What a person waits on an idle one is in the README."""
SERVICE = "10.99.0.1"
FLOW_BYTES = 1 << 15
"""Little enough to wait in the sender's buffer."""


class Scene:
    """The two namespaces, the proxy's name, and who is started in them."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.client, self.proxy = lab.namespace("client"), lab.namespace("proxy")
        self.client_device, self.proxy_device = lab.link(
            self.client, ["10.9.0.1/24", "fd09::1/64"], self.proxy, ["10.9.0.2/24", "10.9.0.3/24", "fd09::2/64"]
        )
        for version, gateway in ((4, "10.9.0.2"), (6, "fd09::2")):
            self.client.ip(f"-{version}", "route", "add", "default", "via", gateway)
        self.proxy.ip("address", "add", f"{SERVICE}/32", "dev", "lo")
        self.proxy.set_forwarding()
        self.directory = directory
        authority = CertificateAuthority.create(directory / "ca")
        self.ca, self.credentials = str(authority.ca_file), authority.issue([NAME])
        self._etc = Path("/etc/netns", self.client.name)
        self._etc.mkdir(parents=True)
        self.point("10.9.0.2")
        self.before = self.client.snapshot()

    def close(self) -> None:
        shutil.rmtree(self._etc)

    def point(self, address: str) -> None:
        """The proxy's name leads there from now on. In place: what runs sees this very file as its /etc/hosts."""
        (self._etc / "hosts").write_text(f"127.0.0.1 localhost\n{address} {NAME}\n")

    def ask(self, resolver: str) -> None:
        """The proxy's name is no longer known locally; ask this resolver."""
        (self._etc / "hosts").write_text("127.0.0.1 localhost\n")
        (self._etc / "resolv.conf").write_text(f"nameserver {resolver}\n")

    @contextlib.contextmanager
    def resolver(self, listen: str, address: str) -> Iterator[None]:
        """A resolver beside the proxy, which says that the proxy's name leads to `address`."""
        with self.proxy.entered():
            responder = DnsResponder([(listen, 53)], {NAME: {"A": [address]}})
        with responder:
            yield

    def start_proxy(self, address: str = "10.9.0.2", port: int = 443, *options: str) -> subprocess.Popen[bytes]:
        """Start it, and wait until it serves."""
        process = self.spawn(
            self.proxy,
            *("masque_client.testing.proxy", "--listen", f"{address}:{port}", "--pvd-listen", f"{address}:443"),
            *("--name", NAME, "--certificate", str(self.credentials.certificate), "--key", str(self.credentials.key)),
            *("--pool4", "10.89.0.0/24", "--route", "10.99.0.0/24", *options),
        )
        read_line(process)
        return process

    def start_up(self, *options: str, proxy: str = f"https://{NAME}") -> subprocess.Popen[bytes]:
        arguments = ("masque_connect.main", "up", proxy, "--foreground", "--json", "--ca", self.ca, *options)
        return self.spawn(self.client, *arguments)

    def spawn(self, where: Namespace, *module: str) -> subprocess.Popen[bytes]:
        with (self.directory / f"{module[0]}.log").open("ab") as log:
            return where.spawn(*PYTHON, *module, stdout=subprocess.PIPE, stderr=log)

    @property
    def log(self) -> list[str]:
        return (self.directory / "masque_connect.main.log").read_text().splitlines()

    @contextlib.contextmanager
    def watched(self) -> Iterator[Callable[[], int]]:
        """Counts what arrives at the proxy's end of the link for destinations of the tunnel: all of it has leaked."""
        with self.proxy.entered():
            capture = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        with capture:
            capture.bind((self.proxy_device, 0))
            capture.setblocking(False)

            def count() -> int:
                leaked = 0
                with contextlib.suppress(BlockingIOError):
                    while True:
                        frame = capture.recv(65_535)
                        is_ipv4 = frame[12:14] == b"\x08\x00"
                        leaked += is_ipv4 and frame[14 + 16 : 14 + 19] == bytes((10, 99, 0))
                return leaked

            yield count


@pytest.fixture
def scene(lab: Lab, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(lab, tmp_path)
    try:
        yield scene
    finally:
        scene.close()


def read_line(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        assert selector.select(PATIENCE_S), "it says nothing"
    line = process.stdout.readline()
    assert line, f"it ended with {process.wait()}"
    value: dict[str, Any] = json.loads(line)
    return value


def wait_state(up: subprocess.Popen[bytes], state: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while (status := read_line(up))["state"] != state:
        assert time.monotonic() < deadline, f"never {state}: {status}"
    return status


def end(process: subprocess.Popen[bytes], number: signal.Signals) -> int:
    """A proxy that gets SIGTERM says goodbye, and is missed at once; after SIGKILL that takes about 8 s of silence."""
    process.send_signal(number)
    process.communicate(timeout=PATIENCE_S)
    return process.returncode


@pytest.mark.parametrize("engine", ["aioquic", "qh3"])
def test_a_flow_survives_a_proxy_that_is_killed_and_started_again(scene: Scene, engine: str) -> None:
    origin = scene.spawn(scene.proxy, "masque_client.testing.origin", "--listen", f"{SERVICE}:8080")
    read_line(origin)
    proxy = scene.start_proxy()
    up = scene.start_up("--engine", engine, "--http", "3")
    before = wait_state(up, "connected")
    with scene.client.entered(), SlowUpload((SERVICE, 8080), FLOW_BYTES, timeout_s=PATIENCE_S) as flow:
        flow.send(FLOW_BYTES // 2)
        with scene.watched() as leaked:
            end(proxy, signal.SIGKILL)
            flow.send(1000)
            down = wait_state(up, "reconnecting")
            assert down["attempt"] == 1 and down["reason"] and not down["verified"]
            assert ping(SERVICE, count=10, wait_s=0.1).received == 0
            scene.start_proxy()
            after = wait_state(up, "connected")
            flow.send(FLOW_BYTES // 2 - 1000)
            assert flow.finish()
            assert leaked() == 0
    assert after["addresses"] == before["addresses"]
    assert after["verified"]
    assert after["reconnects"] == 1 and after["down_s"] > 0
    assert after["drops"]["not-open"] >= 10
    assert end(up, signal.SIGINT) == 130
    assert scene.before.difference(scene.client.snapshot()) == []


def test_a_proxy_that_moves_to_another_address_is_followed(scene: Scene) -> None:
    proxy = scene.start_proxy()
    up = scene.start_up()
    assert wait_state(up, "connected")["proxy_address"] == "10.9.0.2"
    end(proxy, signal.SIGTERM)
    wait_state(up, "reconnecting")
    scene.start_proxy("10.9.0.3")
    scene.point("10.9.0.3")
    status = wait_state(up, "connected")
    assert status["proxy_address"] == "10.9.0.3"
    with scene.client.entered():
        assert ping(SERVICE, count=3).received == 3


def test_a_proxy_that_moves_to_another_port_is_found_in_its_document(scene: Scene) -> None:
    proxy = scene.start_proxy()
    up = scene.start_up("--http", "3", proxy=NAME)
    assert wait_state(up, "connected")["proxy"] == NAME
    end(proxy, signal.SIGTERM)
    scene.start_proxy("10.9.0.2", 4433)
    assert wait_state(up, "connected")["proxy"] == f"{NAME}:4433"


def test_other_addresses_replace_the_old_ones(scene: Scene) -> None:
    proxy = scene.start_proxy()
    up = scene.start_up()
    before = wait_state(up, "connected")
    end(proxy, signal.SIGTERM)
    scene.start_proxy("10.9.0.2", 443, "--pool4", "10.90.0.0/24")
    after = wait_state(up, "connected")
    assert after["addresses"] != before["addresses"]
    configured = scene.client.ip("address", "show", "dev", after["interface"])[0]["addr_info"]
    assert [f"{entry['local']}/{entry['prefixlen']}" for entry in configured if entry["family"] == "inet"] == after[
        "addresses"
    ]


def test_it_is_not_back_before_a_probe_is(scene: Scene) -> None:
    """A proxy without a device of its own takes packets and forwards none."""
    proxy = scene.start_proxy()
    up = scene.start_up("--http", "3")
    wait_state(up, "connected")
    end(proxy, signal.SIGTERM)
    useless = scene.start_proxy("10.9.0.2", 443, "--tun", "none")
    while "nothing came back through it" not in (status := read_line(up))["reason"]:
        assert status["state"] == "reconnecting"
    end(useless, signal.SIGTERM)
    scene.start_proxy()
    assert wait_state(up, "connected")["verified"]


def test_ctrl_c_while_it_reconnects_undoes_everything(scene: Scene) -> None:
    proxy = scene.start_proxy()
    up = scene.start_up()
    wait_state(up, "connected")
    end(proxy, signal.SIGTERM)
    wait_state(up, "reconnecting")
    assert end(up, signal.SIGINT) == 130
    assert scene.before.difference(scene.client.snapshot()) == []
    assert not [line for line in scene.log if "Traceback" in line or "Warning" in line]


def test_refused_credentials_end_it(scene: Scene) -> None:
    proxy = scene.start_proxy()
    up = scene.start_up()
    wait_state(up, "connected")
    end(proxy, signal.SIGTERM)
    scene.start_proxy("10.9.0.2", 443, "--auth", "basic:ann:secret")
    up.communicate(timeout=PATIENCE_S)
    assert up.returncode == 5, scene.log
    assert scene.before.difference(scene.client.snapshot()) == []


@pytest.mark.parametrize("engine", ["aioquic", "qh3"])
def test_a_path_that_swallows_everything_for_a_while(scene: Scene, engine: str) -> None:
    """The proxy has not heard that it was given up, and would keep the addresses; it hears it when the path is back."""
    scene.start_proxy()
    up = scene.start_up("--engine", engine, "--http", "3")
    before = wait_state(up, "connected")
    nobody = ("10.9.0.2", "lladdr", "02:00:00:00:00:99", "dev", scene.client_device)
    scene.client.ip("neighbour", "replace", *nobody, "nud", "permanent")
    with scene.client.entered():
        ping(SERVICE, count=2, wait_s=0.1)
    assert "no packet from the proxy" in wait_state(up, "reconnecting")["reason"]
    scene.client.ip("neighbour", "del", *nobody)
    assert wait_state(up, "connected")["addresses"] == before["addresses"]
    with scene.client.entered():
        assert ping(SERVICE, count=3).received == 3


def start_full_tunnel(scene: Scene, address: str) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
    """`up NAME` with a default route, and its proxy. All that could lead to either, or to the resolver, is in it."""
    for far in (address, "198.51.100.2", "198.51.100.53"):
        scene.proxy.ip("address", "add", f"{far}/32", "dev", "lo")
    scene.ask("198.51.100.53")
    scene.before = scene.client.snapshot()
    with scene.resolver("198.51.100.53", address):
        proxy = scene.start_proxy(address, 443, "--route", "0.0.0.0/0")
        up = scene.start_up("--http", "3", proxy=NAME)
        wait_state(up, "connected")
    return up, proxy


def test_under_a_full_tunnel_name_and_document_are_asked_for_past_it(scene: Scene) -> None:
    up, proxy = start_full_tunnel(scene, "198.51.100.1")
    with scene.watched() as leaked:
        end(proxy, signal.SIGTERM)
        wait_state(up, "reconnecting")
        with scene.client.entered():
            assert ping(SERVICE, count=10, wait_s=0.1).received == 0
        with scene.resolver("198.51.100.53", "198.51.100.2"):
            scene.start_proxy("198.51.100.2", 4433, "--route", "0.0.0.0/0")
            after = wait_state(up, "connected")
        assert leaked() == 0
    assert after["proxy_address"] == "198.51.100.2"
    assert after["proxy"] == f"{NAME}:4433"
    assert end(up, signal.SIGINT) == 130
    assert scene.before.difference(scene.client.snapshot()) == []


def test_where_reverse_paths_are_filtered_the_proxy_is_heard_where_it_was(scene: Scene) -> None:
    """The resolver is not: its answers come from where, for an unmarked packet, the tunnel is."""
    for key in ("all", "default", scene.client_device):
        scene.client.sysctl(f"net.ipv4.conf.{key}.rp_filter", 1)
    up, proxy = start_full_tunnel(scene, "198.51.100.1")
    end(proxy, signal.SIGTERM)
    wait_state(up, "reconnecting")
    scene.start_proxy("198.51.100.1", 443, "--route", "0.0.0.0/0")
    assert wait_state(up, "connected")["proxy_address"] == "198.51.100.1"
    assert end(up, signal.SIGINT) == 130
    assert scene.before.difference(scene.client.snapshot()) == []
