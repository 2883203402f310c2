"""`up --foreground` on a real kernel: what it configures, and that nothing of it survives, whatever ends it.

client 10.9.0.1 ─────── 10.9.0.2 proxy (its tunnel leads to its own 10.99.0.1)
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from masque_client.netio.offload import ACTIVE, IS_WORTHWHILE
from masque_client.testing.netns import Lab, Namespace, Snapshot
from masque_client.testing.ping import ping
from tests.netns.commands import PATIENCE_S, end, read_json

pytestmark = pytest.mark.netns

UP = (sys.executable, "-m", "masque_connect.main", "up", "https://10.9.0.2:4433", "--foreground", "--json")


@dataclass
class Scene:
    client: Namespace
    proxy: Namespace
    ca: str
    before: Snapshot

    def start(self, *options: str, log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as stderr:
            return self.client.spawn(*UP, "--ca", self.ca, *options, stdout=subprocess.PIPE, stderr=stderr)

    def leftovers(self) -> list[str]:
        return self.before.difference(self.client.snapshot())


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with Lab() as lab:
        client, proxy = lab.namespace("client"), lab.namespace("proxy")
        lab.link(client, ["10.9.0.1/24"], proxy, ["10.9.0.2/24"])
        proxy.ip("address", "add", "10.99.0.1/32", "dev", "lo")
        proxy.ip("address", "add", "fd99::1/128", "dev", "lo")
        proxy.set_forwarding()
        directory = tmp_path_factory.mktemp("proxy")
        with (directory / "log").open("wb") as log:
            server = proxy.spawn(
                *(sys.executable, "-m", "masque_client.testing.proxy", "--listen", "10.9.0.2:4433"),
                *("--name", "10.9.0.2", "--ca-dir", str(directory), "--pvd-listen", "none"),
                *("--pool4", "10.89.0.0/24", "--pool6", "fd89::/64"),
                *("--route", "10.99.0.0/24", "--route", "fd99::/64"),
                stdout=subprocess.PIPE,
                stderr=log,
            )
        ready = read_json(server)
        yield Scene(client, proxy, ready["ca_file"], client.snapshot())


@pytest.mark.parametrize("engine", ["aioquic", "qh3"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_configures_what_it_says_and_undoes_it(
    scene: Scene, engine: str, number: signal.Signals, tmp_path: Path
) -> None:
    process = scene.start("--engine", engine, "--interface", "tun7", log=tmp_path / "log")
    status = read_json(process)
    assert status["state"] == "connected"
    assert status["verified"] is True
    assert status["engine"] == engine
    assert status["interface"] == "tun7"
    assert status["routes"] == ["10.99.0.0/24", "fd99::/64"]
    link = scene.client.ip("link", "show", "dev", "tun7")[0]
    assert link["mtu"] == status["mtu"]["tunnel"] == 1440
    addresses = scene.client.ip("address", "show", "dev", "tun7")[0]["addr_info"]
    assert {f"{a['local']}/{a['prefixlen']}" for a in addresses if a["scope"] == "global"} == set(status["addresses"])
    assert scene.client.route_to("10.99.0.1")["dev"] == "tun7"
    assert scene.client.route_to("fd99::1")["dev"] == "tun7"
    assert scene.client.route_to("10.9.0.2")["dev"] != "tun7"
    assert status["full_ipv6"] is True
    assert status["violations"] == {}
    with scene.client.entered():
        assert ping("10.99.0.1", count=3).received == 3
        assert ping("fd99::1", count=3).received == 3
    assert end(process, number) == 130
    assert scene.leftovers() == []
    assert (tmp_path / "log").read_text().splitlines()[-2:] == [
        "error: interrupted",
        "hint: what the command had set up was undone",
    ]


@pytest.mark.parametrize("options", [(), ("--no-offload",)], ids=["offload", "no-offload"])
def test_it_says_whether_packets_cross_merged(scene: Scene, options: tuple[str, ...], tmp_path: Path) -> None:
    process = scene.start("--interface", "tun7", *options, log=tmp_path / "log")
    status = read_json(process)
    link = scene.client.ip("-d", "link", "show", "dev", "tun7")[0]["linkinfo"]["info_data"]
    assert status["offload"] == (ACTIVE if IS_WORTHWHILE and not options else "off")
    assert link["vnet_hdr"] == (status["offload"] != "off")
    assert end(process, signal.SIGTERM) == 130


def wait_until_it_catches(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Until Python has come to our first line, nothing of ours can answer a signal."""
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        caught = re.search(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
        if caught is not None and int(caught[1], 16) >> (number - 1) & 1:
            return
        time.sleep(0.001)
    pytest.fail("it never came to our first line")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment_leaves_nothing(scene: Scene, number: signal.Signals, tmp_path: Path) -> None:
    """The experiment is the moment itself: our first line and 0 s, 0.05 s, … whatever has happened by then."""
    for step in range(32):
        log = tmp_path / f"log{step}"
        process = scene.start(log=log)
        wait_until_it_catches(process, signal.SIGTERM)
        try:
            process.wait(0.05 * step)
        except subprocess.TimeoutExpired:
            pass
        assert end(process, number) == 130, log.read_text()
        assert "Traceback" not in log.read_text()
        assert scene.leftovers() == [], f"after {0.05 * step:.2f} s"


def test_what_sigkill_leaves_the_next_start_removes(scene: Scene, tmp_path: Path) -> None:
    first = scene.start(log=tmp_path / "first")
    read_json(first)
    end(first, signal.SIGKILL)
    second = scene.start("--interface", "tun8", log=tmp_path / "second")
    read_json(second)
    end(second, signal.SIGTERM)
    assert scene.leftovers() == []


def test_two_tunnels_stand_side_by_side(scene: Scene, tmp_path: Path) -> None:
    processes = [scene.start("--interface", f"side{n}", log=tmp_path / f"log{n}") for n in range(2)]
    addresses = [tuple(read_json(process)["addresses"]) for process in processes]
    assert len(set(addresses)) == 2
    assert end(processes[0], signal.SIGTERM) == 130
    assert scene.client.route_to("10.99.0.1")["dev"] == "side1"
    assert end(processes[1], signal.SIGTERM) == 130
    assert scene.leftovers() == []


def test_a_tunnel_that_may_not_come_back_ends_with_its_proxy_and_leaves_no_trace(scene: Scene, tmp_path: Path) -> None:
    with Lab() as lab:
        namespace = lab.namespace("gone")
        with (tmp_path / "proxy.log").open("wb") as log:
            proxy = namespace.spawn(
                *(sys.executable, "-m", "masque_client.testing.proxy", "--listen", "127.0.0.1:4433"),
                *("--name", "127.0.0.1", "--ca-dir", str(tmp_path), "--pvd-listen", "none"),
                *("--pool4", "10.89.0.0/24", "--route", "10.99.0.0/24", "--tun", "gw"),
                stdout=subprocess.PIPE,
                stderr=log,
            )
        ca = read_json(proxy)["ca_file"]
        with (tmp_path / "up.log").open("wb") as log:
            up = namespace.spawn(
                *(
                    sys.executable,
                    "-m",
                    "masque_connect.main",
                    "up",
                    "https://127.0.0.1:4433",
                    "--foreground",
                    "--json",
                ),
                *("--ca", ca, "--give-up-after", "0"),
                stdout=subprocess.PIPE,
                stderr=log,
            )
        read_json(up)
        rules = namespace.ip("rule", "show")
        end(proxy, signal.SIGTERM)
        up.communicate(timeout=PATIENCE_S)
        assert up.returncode == 7
        assert (tmp_path / "up.log").read_text().splitlines()[-2].startswith("error: ")
        assert len(namespace.ip("rule", "show")) < len(rules)
        assert not [link for link in namespace.ip("link", "show") if link["ifname"].startswith("masque")]


@pytest.mark.parametrize("engine", ["aioquic", "qh3"])
def test_a_path_that_swallows_everything_is_noticed_in_seconds(scene: Scene, engine: str, tmp_path: Path) -> None:
    process = scene.start("--engine", engine, "--give-up-after", "0", log=tmp_path / "log")
    status = read_json(process)
    assert status["liveness"]["silent_s"] < 5
    device = scene.client.route_to("10.9.0.2")["dev"]
    nobody = ("10.9.0.2", "lladdr", "02:00:00:00:00:99", "dev", device)
    scene.client.ip("neighbour", "replace", *nobody, "nud", "permanent")
    try:
        with scene.client.entered():
            assert ping("10.99.0.1", count=2).received == 0
        process.communicate(timeout=PATIENCE_S)
    finally:
        scene.client.ip("neighbour", "del", *nobody)
    assert process.returncode == 7
    assert "error: no packet from the proxy for" in (tmp_path / "log").read_text(), "QUIC's own timeout is no notice"
    assert scene.leftovers() == []
