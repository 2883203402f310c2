"""Local UDP ports over real loopback sockets: a flow for each peer, and to the real test proxy and back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from masque_client.errors import AddressInUse
from masque_client.netio.clock import MonotonicClock
from masque_client.protocol.uri_template import UdpTemplate
from masque_client.sockets.paths import ProxyDialer
from masque_client.sockets.port_forwarder import Forward, PortForwarder
from masque_client.testing.certificates import CertificateAuthority
from tests.unit.sockets.fakes import TIMEOUT_S, FakeDialer
from tests.unit.testing.proxy_client import Echo, bench

TARGET = ("target.example", 53)
NewPeer = Callable[..., socket.socket]


@pytest.fixture
def new_peer() -> Iterator[NewPeer]:
    """Make a local program's socket that talks to a forwarder only."""
    with ExitStack() as stack:

        def new_peer(forwarder: PortForwarder) -> socket.socket:
            family = socket.AF_INET6 if ":" in forwarder.local_address[0] else socket.AF_INET
            peer = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            peer.setblocking(False)
            peer.connect(forwarder.local_address)
            return peer

        yield new_peer


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), TIMEOUT_S))


async def received(peer: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(peer, 65_535)


def forwarder_to(dialer: FakeDialer, local: str = "127.0.0.1") -> PortForwarder:
    return PortForwarder(Forward((local, 0), *TARGET), dialer, MonotonicClock())


@pytest.mark.parametrize("local", ["127.0.0.1", "::1"])
def test_every_peer_has_a_flow_and_hears_only_its_own_replies(local: str, new_peer: NewPeer) -> None:
    async def scenario() -> None:
        dialer = FakeDialer()
        forwarder = forwarder_to(dialer, local)
        first, second = new_peer(forwarder), new_peer(forwarder)
        first.send(b"from first")
        to_first = await dialer.opened()
        second.send(b"from second")
        to_second = await dialer.opened()
        assert (to_first.sent, to_second.sent) == ([b"from first"], [b"from second"])
        assert dialer.targets == [TARGET, TARGET]
        assert forwarder.flows == 2
        to_second.deliver([b"for second"])
        to_first.deliver([b"for first"])
        assert await received(first) == b"for first"
        assert await received(second) == b"for second"
        for peer in (first, second):
            with pytest.raises(BlockingIOError):
                peer.recv(1)
        await forwarder.close()

    run(scenario)


def test_datagrams_that_come_together_leave_in_order(new_peer: NewPeer) -> None:
    async def scenario() -> None:
        dialer = FakeDialer()
        forwarder = forwarder_to(dialer)
        peer = new_peer(forwarder)
        for number in range(6):
            peer.send(b"%d" % number)
        assert (await dialer.opened()).sent == [b"0", b"1", b"2", b"3", b"4", b"5"]
        await forwarder.close()

    run(scenario)


def test_close_releases_the_port_and_silences_late_replies() -> None:
    async def scenario() -> None:
        dialer = FakeDialer()
        forwarder = forwarder_to(dialer)
        local = forwarder.local_address
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.sendto(b"?", local)
            path = await dialer.opened()
            await forwarder.close()
            await forwarder.close()
            path.deliver([b"too late"])
            assert path.is_closed.is_set()
            assert forwarder.statistics.datagrams_in == 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(local)

    run(scenario)


def test_a_port_that_is_taken() -> None:
    async def scenario() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(AddressInUse, match="already in use"):
                PortForwarder(Forward(taken.getsockname(), *TARGET), FakeDialer(), MonotonicClock())

    run(scenario)


def test_through_a_real_proxy_and_back(tmp_path: Path, new_peer: NewPeer) -> None:
    async def scenario() -> None:
        async with bench(CertificateAuthority.create(tmp_path)) as running:
            with Echo() as echo:
                clock, template = MonotonicClock(), UdpTemplate.parse(running.proxy.templates["connect-udp"])
                dialer = ProxyDialer((await running.connect()).http, template, clock)
                errors: list[Exception] = []
                forwarder = PortForwarder(
                    Forward(("127.0.0.1", 0), *echo.address), dialer, clock, on_error=errors.append
                )
                first, second = new_peer(forwarder), new_peer(forwarder)
                for number in range(8):  # before the proxy's answer
                    first.send(b"%d" % number)
                second.send(b"")
                assert [await received(first) for _ in range(8)] == [b"%d" % number for number in range(8)]
                assert await received(second) == b""
                assert len(echo.senders) == 2, "the proxy has a socket for each peer"
                first.send(bytes(9000))
                first.send(b"after the one that was too large")
                assert await received(first) == b"after the one that was too large"
                assert forwarder.statistics.drops["too-large"] == 1
                assert forwarder.statistics.datagrams_out == forwarder.statistics.datagrams_in == 10
                await forwarder.close()
                assert errors == []

    run(scenario)
