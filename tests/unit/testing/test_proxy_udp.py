"""The proxy's CONNECT-UDP as it should be, with both engines on loopback."""

from __future__ import annotations

import socket
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest

from masque_client.engine.interface import EngineConfiguration, EngineName
from masque_client.errors import ProxyRefused
from masque_client.http import dial
from masque_client.testing import proxy
from masque_client.testing.dns import DnsResponder
from tests.unit.testing.proxy_client import ENGINES, TIMEOUT_S, Bench, Echo, Run


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_udp_payloads_go_there_and_back(run: Run, engine: EngineName, host: str) -> None:
    async def scenario(running: Bench) -> None:
        with Echo(host) as echo:
            tunnel = await running.open_udp(*echo.address)
            for payload in (b"hello", b"", bytes(1200)):
                tunnel.send(payload)
                assert await tunnel.payload() == payload

    run(scenario, engine=engine)


def test_udp_burst_comes_back_whole(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the first congestion window: the rest waits, and must not be too old by then on a busy machine."""
    for module in (dial, proxy):
        monkeypatch.setattr(module, "EngineConfiguration", partial(EngineConfiguration, datagram_queue_s=TIMEOUT_S))

    async def scenario(running: Bench) -> None:
        with Echo() as echo:
            tunnel = await running.open_udp(*echo.address)
            for _ in range(10):
                burst = [index.to_bytes(2) * 500 for index in range(40)]
                tunnel.send(*burst)
                assert [await tunnel.payload() for _ in burst] == burst

    run(scenario)


def test_tunnels_of_one_connection_have_sockets_of_their_own(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        connection = await running.connect()
        with Echo() as echo:
            tunnels = [await running.open_udp(*echo.address, connection=connection) for _ in range(3)]
            for number, tunnel in enumerate(tunnels):
                tunnel.send(b"%d" % number)
            assert [await tunnel.payload() for tunnel in tunnels] == [b"0", b"1", b"2"]
            assert len(echo.senders) == 3
        assert len(running.proxy.listener.connections) == 1

    run(scenario)


def test_udp_names_are_resolved_at_the_proxy(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        with Echo() as echo:
            tunnel = await running.open_udp("localhost", echo.address[1])
            tunnel.send(b"by name")
            assert await tunnel.payload() == b"by name"

    run(scenario, allow=[ip_network("127.0.0.0/8")])


def test_closing_a_tunnel_closes_its_socket(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        with Echo() as echo:
            tunnel = await running.open_udp(*echo.address)
            tunnel.send(b"x")
            await tunnel.payload()
            (source,) = echo.senders
            tunnel.stream.close()
            second = await running.open_udp(*echo.address)  # answered after the close was handled
            second.send(b"y")
            await second.payload()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
                squatter.bind(source)

    run(scenario)


def test_unreachable_target_ends_the_tunnel(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
            closed.bind(("127.0.0.1", 0))
            closed.connect(("127.0.0.1", 9))  # the port is nobody else's, and what others send there is refused
            port = closed.getsockname()[1]
            tunnel = await running.open_udp("127.0.0.1", port)  # a 200 promises nothing about the target
            tunnel.send(b"anyone there?")
            assert await tunnel.ended() is None

    run(scenario)


@pytest.mark.parametrize(
    ("host", "allow", "status", "reason"),
    [
        ("127.0.0.1", [], 502, "destination_ip_prohibited"),
        ("192.0.2.1", [], 502, "destination_ip_prohibited"),
        ("no-such-host.invalid", [], 502, "dns_error"),
    ],
)
def test_udp_targets_that_are_refused(run: Run, host: str, allow: list[Any], status: int, reason: str) -> None:
    async def scenario(running: Bench) -> None:
        with pytest.raises(ProxyRefused, match=reason) as refused:
            await running.open_udp(host, 53)
        assert refused.value.status == status

    run(scenario, allow=allow)


def test_dns_through_the_proxy(run: Run) -> None:
    """The demo's DNS step in small."""
    import dns.message

    async def scenario(running: Bench) -> None:
        with DnsResponder([("127.0.0.1", 0)]) as responder:
            tunnel = await running.open_udp(*responder.addresses[0])
            tunnel.send(dns.message.make_query("origin.masque.test", "A").to_wire())
            assert dns.message.from_wire(await tunnel.payload()).answer

    run(scenario)
