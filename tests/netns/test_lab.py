"""The lab itself: what it makes works, what it made is gone afterwards, and a snapshot sees every change."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from masque_client.testing.netns import CommandFailed, Lab, Snapshot

pytestmark = pytest.mark.netns


def existing_namespaces() -> set[str]:
    return {path.name for path in Path("/run/netns").iterdir()}


def network_namespace() -> Path:
    return Path("/proc/thread-self/ns/net").readlink()


def test_two_routed_hosts_reach_each_other(lab: Lab) -> None:
    """client 192.0.2.1 ── 192.0.2.2 router 198.51.100.1 ── 198.51.100.2 target, and the same in IPv6"""
    client, router, target = lab.namespace("client"), lab.namespace("router"), lab.namespace("target")
    lab.link(client, ["192.0.2.1/24", "2001:db8:1::1/64"], router, ["192.0.2.2/24", "2001:db8:1::2/64"])
    lab.link(router, ["198.51.100.1/24", "2001:db8:2::1/64"], target, ["198.51.100.2/24", "2001:db8:2::2/64"], mtu=1400)
    router.set_forwarding()
    client.add_route("default", via="192.0.2.2")
    client.add_route("default", via="2001:db8:1::2")
    target.add_route("default", via="198.51.100.1")
    target.add_route("default", via="2001:db8:2::1")
    for family, source, host in [
        (socket.AF_INET, "192.0.2.1", "198.51.100.2"),
        (socket.AF_INET6, "2001:db8:1::1", "2001:db8:2::2"),
    ]:
        with target.entered():
            receiver = socket.socket(family, socket.SOCK_DGRAM)
            receiver.bind((host, 7))
        with client.entered():
            sender = socket.socket(family, socket.SOCK_DGRAM)
        with receiver, sender:
            receiver.settimeout(60)
            sender.sendto(b"across", (host, 7))
            data, address = receiver.recvfrom(100)
            assert (data, address[0]) == (b"across", source)


def test_leaving_the_lab_removes_everything_even_after_an_error() -> None:
    names: list[str] = []
    process: subprocess.Popen[bytes] | None = None
    with pytest.raises(RuntimeError, match="mid-way"), Lab() as lab:
        namespace = lab.namespace("a")
        lab.link(namespace, [], lab.namespace("b"), [])
        names = [f"masque-{role}-{lab.suffix}" for role in "ab"]
        assert set(names) <= existing_namespaces()
        process = namespace.spawn("sleep", "600")
        raise RuntimeError("mid-way")
    assert not set(names) & existing_namespaces()
    assert process is not None
    assert process.returncode == -signal.SIGTERM


def test_entering_moves_this_thread_and_brings_it_back(lab: Lab) -> None:
    namespace = lab.namespace("inner")
    home = network_namespace()
    with pytest.raises(ZeroDivisionError), namespace.entered():
        assert network_namespace() != home
        assert [name for _, name in socket.if_nameindex()] == ["lo"]
        raise ZeroDivisionError
    assert network_namespace() == home


def test_commands_run_inside_and_their_failure_says_why(lab: Lab) -> None:
    namespace = lab.namespace("inner")
    listing = namespace.run(sys.executable, "-c", "import socket; print(socket.if_nameindex())").stdout
    assert listing.strip() == "[(1, 'lo')]"
    with pytest.raises(CommandFailed, match="does not exist"):
        namespace.run("ip", "link", "show", "dev", "nothing")
    assert namespace.run("false", check=False).returncode == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (("link", "set", "lo", "mtu", "1500"), "links"),
        (("address", "add", "192.0.2.1/32", "dev", "lo"), "addresses"),
        (("address", "add", "2001:db8::1/128", "dev", "lo"), "addresses"),
        (("route", "add", "unreachable", "192.0.2.0/24", "table", "77"), "routes"),
        (("-6", "route", "add", "unreachable", "2001:db8::/32", "table", "77"), "routes"),
        (("rule", "add", "priority", "500", "table", "77"), "rules"),
        (("-6", "rule", "add", "priority", "500", "table", "77"), "rules"),
    ],
)
def test_a_snapshot_sees_the_change(lab: Lab, change: tuple[str, ...], field: str) -> None:
    namespace = lab.namespace("inner")
    before = namespace.snapshot()
    assert before.difference(namespace.snapshot()) == []
    namespace.ip(*change)
    assert any(line.startswith(f"+ {field}: ") for line in before.difference(namespace.snapshot()))


def test_a_snapshot_sees_sysctls(lab: Lab) -> None:
    namespace = lab.namespace("inner")
    before = namespace.snapshot()
    namespace.set_forwarding()
    assert "+ sysctls: ipv4/ip_forward = 1" in before.difference(namespace.snapshot())


def test_a_snapshot_of_where_we_are_is_taken_without_a_namespace(lab: Lab) -> None:
    namespace = lab.namespace("inner")
    with namespace.entered():
        assert Snapshot.take() == namespace.snapshot()
