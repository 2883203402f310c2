"""A hostile proxy pours more into a tunnel than fits into memory: the client's process does not grow, and goes on."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from masque_client.testing.floods import FLOOD_OVER
from masque_connect.exit_codes import ExitCode
from tests.cli.commands import Command, failed
from tests.cli.conftest import local_ports
from tests.cli.proxies import Proxies

MAX_GROWTH = 48 * 1024 * 1024
"""Of peak resident memory, from being ready to the end of the flood: connecting, and at most a stream's window (16 MiB)
that waits behind a lost packet, are in it. The capsule alone is twice as large."""

FLOODS = {
    "one huge capsule": (f"flood-capsule-bytes={96 * 1024 * 1024}",),
    "unknown capsules": ("flood-capsules=300000",),
    "unknown contexts": ("flood-contexts=20000",),
}


def peak_resident_bytes(process_id: int) -> int:
    for line in Path(f"/proc/{process_id}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel tells no peak")


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("http", ["3", "2"])
def test_memory_stays_bounded(
    flood: str,
    http: str,
    start: Callable[..., Command],
    udp_socket: socket.socket,
    proxies: Proxies,
    ca: tuple[str, str],
) -> None:
    own = udp_socket.getsockname()
    udp_socket.settimeout(60)
    with proxies.proxy(*FLOODS[flood], h2_listen=[("127.0.0.1", 0)]) as proxy:
        template = proxy.templates["connect-udp"]
        command = start("udp", f"0={own[0]}:{own[1]}", "--proxy", template, "--json", "--http", http, *ca)
        ready = command.ready()
        assert ready is not None
        before = peak_resident_bytes(command.process.pid)
        (local,) = local_ports(ready)
        udp_socket.sendto(b"open the flow", local)
        while (received := udp_socket.recv(100)) != FLOOD_OVER:
            assert received == b"open the flow", "it comes back from the target, which is this socket"
        growth = peak_resident_bytes(command.process.pid) - before
        print(f"\n{flood} over HTTP/{http}: peak memory grew by {growth / 2**20:.1f} MiB")
        assert growth < MAX_GROWTH
        udp_socket.sendto(b"still there", local)
        while udp_socket.recv(100) != b"still there":
            pass
        command.process.send_signal(signal.SIGTERM)
        failed(command.outcome(), ExitCode.INTERRUPTED, error="interrupted", hint="undone")
