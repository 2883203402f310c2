"""The tunnel follows the path MTU on a real kernel: the device's MTU, IPv6 inside, and HTTP/2 where it must.

client 10.9.1.1 ─────── 10.9.1.2 router 10.9.2.1 ─────── 10.9.2.2 proxy (its tunnel leads to its own 10.99.0.1)
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from masque_client.testing.netns import Lab, Namespace
from masque_client.testing.ping import ping
from tests.netns.commands import read_json

pytestmark = [pytest.mark.netns, pytest.mark.slow]

UP = (sys.executable, "-m", "masque_connect.main", "up", "https://10.9.2.2:4433", "--foreground", "--json")
DEMO = (sys.executable, "-m", "masque_connect.main", "demo", "--scenario", "mtu", "--json")
ENGINES = pytest.mark.parametrize("engine", ["aioquic", "qh3"])


@dataclass
class Scene:
    client: Namespace
    router: Namespace
    proxy: Namespace
    ca: str

    def start(self, *options: str, log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as stderr:
            return self.client.spawn(*UP, "--ca", self.ca, *options, stdout=subprocess.PIPE, stderr=stderr)

    def set_path(self, mtu: int) -> None:
        """Narrow or widen the link behind the router; both its ends know."""
        for namespace, peer in ((self.router, "10.9.2.2"), (self.proxy, "10.9.2.1")):
            namespace.ip("link", "set", namespace.route_to(peer)["dev"], "mtu", str(mtu))

    def forget(self) -> None:
        """What ICMP said is forgotten."""
        for namespace in (self.client, self.router, self.proxy):
            namespace.ip("route", "flush", "cache")

    def device_mtu(self, status: dict[str, Any]) -> int:
        return int(self.client.ip("link", "show", "dev", status["interface"])[0]["mtu"])


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Lab() as lab:
        client, router, proxy = lab.namespace("client"), lab.namespace("router"), lab.namespace("proxy")
        lab.link(client, ["10.9.1.1/24"], router, ["10.9.1.2/24"])
        lab.link(router, ["10.9.2.1/24"], proxy, ["10.9.2.2/24"])
        client.add_route("default", via="10.9.1.2")
        proxy.add_route("10.9.1.0/24", via="10.9.2.1")
        proxy.ip("address", "add", "10.99.0.1/32", "dev", "lo")
        proxy.ip("address", "add", "fd99::1/128", "dev", "lo")
        router.set_forwarding()
        proxy.set_forwarding()
        with (tmp_path / "proxy.log").open("wb") as log:
            server = proxy.spawn(
                *(sys.executable, "-m", "masque_client.testing.proxy", "--listen", "10.9.2.2:4433"),
                *("--name", "10.9.2.2", "--ca-dir", str(tmp_path), "--h2-listen", "10.9.2.2:4433"),
                *("--pool4", "10.89.0.0/24", "--pool6", "fd89::/64"),
                *("--route", "10.99.0.0/24", "--route", "fd99::/64"),
                stdout=subprocess.PIPE,
                stderr=log,
            )
        yield Scene(client, router, proxy, read_json(server)["ca_file"])


def read_until(process: subprocess.Popen[bytes], path: int | None) -> dict[str, Any]:
    while (status := read_json(process))["mtu"]["path"] != path:
        pass
    return status


@ENGINES
def test_transfers_over_narrow_and_shrinking_paths(engine: str) -> None:
    if engine == "qh3":
        pytest.importorskip("qh3", reason="THE FAST ENGINE IS NOT INSTALLED: pip install '.[fast]'")
    done = subprocess.run([*DEMO, "--engine", engine], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    result = json.loads(done.stdout)
    assert (result["schema_version"], result["scenario"], result["clean"]) == (1, "mtu", True)
    sizes = {name: (case["mtu"]["path"], case["mtu"]["tunnel"]) for name, case in result["cases"].items()}
    path, tunnel = sizes.pop("silent-drop")
    assert 1340 <= path <= 1400 and tunnel == path - 60, "a probe that is answered late costs some bytes"
    assert sizes == {"1500": (1500, 1440), "1400": (1400, 1340), "1340": (1340, 1280), "drop": (1400, 1340)}
    assert all(case["seconds"] > 0 and case["mbit_s"] > 0 for case in result["cases"].values())


@ENGINES
def test_the_device_follows_a_path_that_shrinks(scene: Scene, engine: str, tmp_path: Path) -> None:
    up = scene.start("--http", "3", "--engine", engine, log=tmp_path / "log")
    status = read_json(up)
    assert scene.device_mtu(status) == status["mtu"]["tunnel"] == 1440
    scene.set_path(1340)
    fill(scene)
    status = read_until(up, 1340)
    assert scene.device_mtu(status) == status["mtu"]["tunnel"] == 1280
    with scene.client.entered():
        assert ping("10.99.0.1", count=3).received == 3
        assert ping("fd99::1", count=3).received == 3


def test_a_path_too_narrow_for_ipv6_from_the_start(scene: Scene, tmp_path: Path) -> None:
    scene.set_path(1300)
    up = scene.start(log=tmp_path / "log")
    status = read_json(up)
    assert status["http_version"] == 2
    assert status["mtu"]["tunnel"] == 1500
    with scene.client.entered():
        assert ping("fd99::1", count=3).received == 3


def test_a_path_too_narrow_for_ipv6_where_http2_is_no_way_out(scene: Scene, tmp_path: Path) -> None:
    """RFC 9484 §7.2: the tunnel with IPv6 ends, and another one, without, takes its place."""
    up = scene.start("--http", "3", log=tmp_path / "log")
    status = read_json(up)
    v4 = [address for address in status["addresses"] if ":" not in address]
    assert len(v4) == 1 and status["addresses"] != v4
    scene.set_path(1300)
    fill(scene)
    while (status := read_json(up))["reconnects"] == 0:
        pass
    assert status["addresses"] == v4
    assert status["mtu"]["tunnel"] < 1280
    with scene.client.entered():
        assert ping("10.99.0.1", count=3).received == 3


def test_a_path_too_narrow_for_ipv6_in_mid_life(scene: Scene, tmp_path: Path) -> None:
    up = scene.start(log=tmp_path / "log")
    status = read_json(up)
    while status["http_version"] != 3:  # a busy machine may have taken HTTP/2 first
        status = read_json(up)
    addresses = status["addresses"]
    scene.set_path(1300)
    fill(scene)
    status = read_until(up, None)
    assert (status["http_version"], status["fallback_reason"]) == (2, "path-mtu")
    assert status["addresses"] == addresses
    with scene.client.entered():
        assert ping("fd99::1", count=3).received == 3


FILL = """
import socket
with socket.socket(type=socket.SOCK_DGRAM) as sock:
    for _ in range(50):
        sock.sendto(bytes(1400), ("10.99.0.1", 9))
"""


def fill(scene: Scene) -> None:
    """Full packets into the tunnel: UDP that nobody reads."""
    scene.client.run(sys.executable, "-c", FILL)
