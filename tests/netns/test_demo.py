"""The whole product through its public command: the demonstration, as a user runs it.

client ─ router ─ proxy ─ target, each a namespace; see masque_connect.demo.world
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from masque_client.testing.netns import Snapshot

DEMO = (sys.executable, "-m", "masque_connect.main", "demo", "--json")
TIMEOUT_S = 150

pytestmark = pytest.mark.netns


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Links, addresses, routes, rules and sysctls of this machine, and its namespaces, are as before."""
    before, worlds_before = Snapshot.take(), worlds()
    yield
    assert before.difference(Snapshot.take()) == []
    deadline = time.monotonic() + TIMEOUT_S
    while unattended := [world for world in worlds() - worlds_before if not is_attended(world)]:
        assert time.monotonic() < deadline, f"left behind: {unattended}"


def namespaces() -> set[str]:
    listing = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return {line.split()[0] for line in listing.stdout.splitlines()}


def worlds() -> set[str]:
    """The suffixes of the demonstrations that stand."""
    return {name.rpartition("-")[2] for name in namespaces() if "-router-" in name}


def is_attended(world: str) -> bool:
    """Whether somebody else works there, beside this test: a process whose parent lives. What a demonstration leaves
    behind has no processes, or orphans."""
    rooms = (name for name in namespaces() if name.endswith(world))
    listings = (subprocess.run(["ip", "netns", "pids", room], capture_output=True, text=True) for room in rooms)
    return any(parent_of(pid) > 1 for listing in listings for pid in listing.stdout.split())


def parent_of(pid: str) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def run_demo(*options: str) -> dict[str, Any]:
    done = subprocess.run([*DEMO, *options], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def check(result: dict[str, Any]) -> None:
    assert result["schema_version"] == 1
    assert result["ok"] is True
    assert result["clean"] is True
    for part in ("discovery", "connect_udp", "connect_ip", "ipv6"):
        assert result[part]["ok"] is True
    ip = result["connect_ip"]
    assert ip["sha256_ok"] is True
    assert ip["verified"] is True
    assert ip["mtu"] == 1440  # a path MTU of 1500 over IPv4, packets of our stack (digest §15.2, P8)
    assert ip["download_mbit_s"] > 0
    assert ip["upload_mbit_s"] > 0
    assert result["connect_udp"]["rtt_ms"] > 0


@pytest.mark.parametrize("engine", ["aioquic", "qh3"])
def test_the_main_job(engine: str) -> None:
    if engine == "qh3":
        pytest.importorskip("qh3", reason="THE FAST ENGINE IS NOT INSTALLED: pip install '.[fast]'")
    result = run_demo("--engine", engine, "--size", "4")
    check(result)
    assert result["engine"] == engine
    assert result["connect_ip"]["ping_loss"] == 0


@pytest.mark.slow
def test_the_main_job_over_a_lossy_path() -> None:
    result = run_demo("--loss", "1", "--delay", "20", "--size", "2")
    check(result)
    assert result["connect_udp"]["rtt_ms"] >= 40
    assert result["connect_ip"]["ping_rtt_ms"] >= 40


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "moment", ["are up", "bare path, upload", "discovered", "DNS through", "CONNECT-IP:", "IPv4 download"]
)
def test_interrupted_it_leaves_nothing(moment: str, number: signal.Signals) -> None:
    demo = subprocess.Popen(
        [*DEMO, "--size", "4"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert demo.stderr is not None
        seen = []
        for line in demo.stderr:
            seen.append(line)
            if moment in line:
                break
        else:
            pytest.fail(f"{moment!r} never came: {''.join(seen)}")
        demo.send_signal(number)
        _, remarks = demo.communicate(timeout=TIMEOUT_S)
    finally:
        demo.kill()
        demo.wait()
    assert demo.returncode == 130
    assert remarks.splitlines()[-2:] == ["error: interrupted", "hint: what the command had set up was undone"]
    assert "Traceback" not in remarks


def test_without_root_it_shows_what_it_can_and_says_what_is_left_out() -> None:
    # In a user namespace of its own without a mapping, a process is nobody and has no capability.
    unprivileged = subprocess.run(
        ["unshare", "--user", *DEMO], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if "unshare failed" in unprivileged.stderr:
        pytest.skip("USER NAMESPACES ARE SWITCHED OFF: the demonstration without root is not tested here")
    assert unprivileged.returncode == 0, unprivileged.stderr
    result = json.loads(unprivileged.stdout)
    assert result["scenario"] == "loopback"
    assert result["discovery"]["ok"] and result["connect_udp"]["ok"] and result["clean"]
    assert "needs root" in result["connect_ip"]["skipped"]
    assert "CONNECT-IP, transfers and losses are left out" in unprivileged.stderr
