"""HTTP/3 against HTTP/2: who wins, why, how fast, and what becomes of the loser."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from masque_client.engine import h3_rules
from masque_client.engine.interface import Address, EngineName, TlsConfiguration
from masque_client.errors import ConnectError, MasqueError, ProxyRefused, TlsError
from masque_client.http import connector
from masque_client.http.connector import ConnectOptions, HttpVersion, ProxyConnection, connect
from masque_client.http.dial import dial_http2, dial_http3
from masque_client.testing.certificates import CertificateAuthority
from masque_client.testing.tcp_relay import TcpRelay
from tests.unit.testing.proxy_client import TIMEOUT_S, Bench, bench

Run = Callable[..., None]
LOOPBACK = ("127.0.0.1", 0)


@pytest.fixture
def run(authority: CertificateAuthority) -> Run:
    def run_scenario(scenario: Callable[[Bench], Awaitable[None]], *faults: str, **more: Any) -> None:
        async def session() -> None:
            more.setdefault("h2_listen", [("127.0.0.1", 0)])
            async with bench(authority, EngineName.AUTO, *faults, **more) as running:
                await scenario(running)

        asyncio.run(session())

    return run_scenario


@asynccontextmanager
async def blocked_udp(bench: Bench, *, silently: bool) -> AsyncIterator[Address]:
    """An address whose TCP leads to the proxy and whose UDP leads nowhere: into a socket nobody reads, or refused."""
    relay = TcpRelay(bench.proxy.addresses[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
        address = await relay.start(LOOPBACK)
        while not is_bound(hole, address):  # that number is somebody's UDP port
            await relay.close()
            address = await relay.start(LOOPBACK)
        if not silently:
            hole.connect(("127.0.0.1", 9))  # the port is nobody else's, and what others send there is refused
        try:
            yield address
        finally:
            await relay.close()


def is_bound(sock: socket.socket, address: Address) -> bool:
    try:
        sock.bind(address)
    except OSError as error:
        assert error.errno == errno.EADDRINUSE
        return False
    return True


async def all_closed(bench: Bench) -> None:
    """Wait until the proxy has seen the end of every HTTP/2 connection."""
    for connection in list(bench.proxy.http2.connections):
        assert await connection.wait_closed(TIMEOUT_S)


def options(bench: Bench, http: HttpVersion = HttpVersion.AUTO, **more: Any) -> ConnectOptions:
    return ConnectOptions(tls=TlsConfiguration(ca_file=bench.ca_file), http=http, **more)


async def failure(attempt: Awaitable[Any]) -> MasqueError:
    try:
        await attempt
    except MasqueError as error:
        return error
    raise AssertionError("it should have failed")


@pytest.fixture
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP/2 waits for what HTTP/3 comes to: a busy machine must not change the outcome."""
    monkeypatch.setattr(connector, "HTTP3_HEAD_START_S", TIMEOUT_S)


@pytest.mark.usefixtures("no_hurry")
def test_http3_wins_where_both_work_and_no_tcp_is_wasted(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        connection = await connect(*bench.proxy.addresses[0], options(bench))
        assert (connection.http_version, connection.transport) == (3, "udp")
        assert connection.fallback_reason is None
        assert not bench.proxy.http2.connections
        connection.close()

    run(scenario)


def test_http3_wins_within_its_time_and_http2_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP/2 is up first; HTTP/3 comes before the preference ends; HTTP/2 hears GOAWAY and is closed."""
    monkeypatch.setattr(connector, "HTTP3_HEAD_START_S", 0.0)
    monkeypatch.setattr(connector, "HTTP3_PREFERENCE_S", TIMEOUT_S)
    up = asyncio.Event()

    async def late_http3(*arguments: Any) -> Any:
        await up.wait()
        return await dial_http3(*arguments)

    async def early_http2(*arguments: Any) -> Any:
        connection = await dial_http2(*arguments)
        await connection.http.wait_settings()
        losers.append(connection)
        up.set()
        return connection

    losers: list[ProxyConnection] = []
    monkeypatch.setattr(connector, "dial_http3", late_http3)
    monkeypatch.setattr(connector, "dial_http2", early_http2)

    async def scenario(bench: Bench) -> None:
        connection = await connect(*bench.proxy.addresses[0], options(bench))
        assert connection.http_version == 3
        (loser,) = losers
        assert loser.http.closed is not None
        await all_closed(bench)
        connection.close()

    run(scenario)


@pytest.mark.parametrize("silently", [True, False])
def test_blocked_udp_is_fallen_back_from(run: Run, silently: bool) -> None:
    async def scenario(bench: Bench) -> None:
        async with blocked_udp(bench, silently=silently) as address:
            started = time.monotonic()
            connection = await connect(*address, options(bench))
            seconds = time.monotonic() - started
            assert (connection.http_version, connection.fallback_reason) == (2, "QUIC blocked")
            assert seconds < options(bench).timeout_s, "HTTP/3 was not waited for to the end"
            if silently:
                assert seconds >= connector.HTTP3_PREFERENCE_S, "HTTP/3 had its time"
            await bench.open_ip(connection=connection)
            connection.close()

    run(scenario)


@pytest.mark.usefixtures("no_hurry")
def test_a_proxy_without_quic_datagrams_is_good_enough(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        connection = await connect(*bench.proxy.addresses[0], options(bench, min_packet=1280))
        assert (connection.http_version, connection.fallback_reason) == (3, None)
        connection.close()

    run(scenario, "no-datagram")


@pytest.mark.usefixtures("no_hurry")
def test_a_proxy_whose_http3_has_no_masque(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h3_rules, "settings_to_send", lambda configuration: {h3_rules.H3_DATAGRAM: 1})

    async def scenario(bench: Bench) -> None:
        connection = await connect(*bench.proxy.addresses[0], options(bench))
        assert (connection.http_version, connection.fallback_reason) == (2, "no MASQUE over HTTP/3")
        connection.close()

    run(scenario)


@pytest.mark.parametrize("silently", [True, False])
def test_http3_alone_says_what_to_do(run: Run, silently: bool) -> None:
    async def scenario(bench: Bench) -> None:
        async with blocked_udp(bench, silently=silently) as address:
            error = await failure(connect(*address, options(bench, HttpVersion.HTTP_3, timeout_s=0.5)))
            assert isinstance(error, ConnectError)
            assert "--http auto" in error.hint

    run(scenario)


def test_neither_works(run: Run) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        error = asyncio.run(failure(connect("127.0.0.1", reserved.getsockname()[1], ConnectOptions())))
    assert isinstance(error, ConnectError)
    assert "UDP port" in str(error) and "TCP port" in str(error)


@pytest.mark.usefixtures("no_hurry")
def test_distrust_over_quic_is_final(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        error = await failure(connect(*bench.proxy.addresses[0], ConnectOptions()))
        assert isinstance(error, TlsError)
        assert not bench.proxy.http2.connections

    run(scenario)


def test_distrust_over_tcp_is_said_when_udp_is_blocked(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        async with blocked_udp(bench, silently=True) as address:
            assert isinstance(await failure(connect(*address, ConnectOptions())), TlsError)

    run(scenario)


def test_a_pvd_server_on_the_tcp_port_does_not_mislead(run: Run) -> None:
    """UDP is refused, and TCP speaks HTTP/1.1 only: the proxy is unreachable, and both reasons are given."""

    async def scenario(bench: Bench) -> None:
        async with blocked_udp(bench, silently=False) as address:
            error = await failure(connect(*address, options(bench)))
            assert isinstance(error, ConnectError)
            assert "does not speak HTTP/2" in str(error)
        assert isinstance(
            await failure(connect(*bench.proxy.addresses[0], options(bench, HttpVersion.HTTP_2))), ProxyRefused
        )

    run(scenario, http2=False)


def test_giving_up_leaves_nothing_behind(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    up = asyncio.Event()

    async def announce(*arguments: Any) -> Any:
        connection = await dial_http2(*arguments)
        up.set()
        return connection

    monkeypatch.setattr(connector, "dial_http2", announce)
    monkeypatch.setattr(connector, "HTTP3_PREFERENCE_S", TIMEOUT_S)

    async def scenario(bench: Bench) -> None:
        async with blocked_udp(bench, silently=True) as address:
            attempt = asyncio.create_task(connect(*address, options(bench)))
            await asyncio.wait_for(up.wait(), TIMEOUT_S)
            attempt.cancel()
            with pytest.raises(asyncio.CancelledError):
                await attempt
            await all_closed(bench)

    run(scenario)
