"""The packet size of a living connection follows its path: black holes, ICMP, growth; and what narrow paths lead to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from masque_client.engine import available_engines
from masque_client.engine.interface import EngineName, TlsConfiguration
from masque_client.http import connector
from masque_client.http.connector import ConnectOptions, HttpVersion, ProxyConnection, connect
from masque_client.http.udp_link import UdpLink
from masque_client.testing.certificates import CertificateAuthority
from masque_client.testing.link import LinkProfile
from masque_client.testing.relay import Relay
from tests.unit.http.loops import in_loop
from tests.unit.testing.proxy_client import Bench, bench

BIG, SMALL = 1472, 1372
engines = pytest.mark.parametrize("engine", available_engines())


@asynccontextmanager
async def through_relay(
    authority: CertificateAuthority, engine: EngineName, profile: LinkProfile | None = None
) -> AsyncIterator[tuple[Bench, Relay, ProxyConnection]]:
    async with bench(authority, engine) as running:
        with Relay(("127.0.0.1", 0), running.proxy.addresses[0], profile) as relay:
            options = ConnectOptions(
                engine=engine, tls=TlsConfiguration(ca_file=running.ca_file), http=HttpVersion.HTTP_3
            )
            connection = await connect(*relay.address, options)
            running.connections.append(connection)
            yield running, relay, connection


def size(connection: ProxyConnection) -> int:
    return connection.http.statistics().max_udp_payload


async def traffic_until(connection: ProxyConnection, send: Callable[[], None], condition: Callable[[], bool]) -> None:
    """Full-size datagrams, which is what a black hole needs to be noticed."""
    while not condition():
        send()
        connection.http.flush()
        await asyncio.sleep(0.01)


@engines
@in_loop
async def test_a_black_hole_in_mid_connection(engine: EngineName, authority: CertificateAuthority) -> None:
    async with through_relay(authority, engine) as (running, relay, connection):
        told: list[int] = []
        connection.http.on_packet_size.append(lambda: told.append(size(connection)))
        tunnel = await running.open_ip(connection=connection)
        assert size(connection) == BIG
        capacity = tunnel.stream.max_payload
        relay.set_profile(LinkProfile(mtu=SMALL))
        stream = tunnel.stream.stream
        assert stream is not None
        await traffic_until(
            connection, lambda: void(stream.send_datagrams([bytes(stream.datagram_capacity)])), lambda: bool(told)
        )
        assert told == [SMALL]
        assert tunnel.stream.max_payload == capacity - (BIG - SMALL)
        assert connection.http.closed is None


@engines
@in_loop
async def test_an_outage_is_no_black_hole(engine: EngineName, authority: CertificateAuthority) -> None:
    async with through_relay(authority, engine) as (running, relay, connection):
        tunnel = await running.open_ip(connection=connection)
        stream = tunnel.stream.stream
        assert stream is not None
        relay.set_profile(LinkProfile(loss=1.0))
        sent = 0

        def send() -> None:
            nonlocal sent
            sent += stream.send_datagrams([bytes(stream.datagram_capacity)])

        await traffic_until(connection, send, lambda: sent >= 200)
        relay.set_profile(LinkProfile())
        received = connection.http.last_received_at
        await traffic_until(connection, send, lambda: connection.http.last_received_at > received)
        assert size(connection) == BIG


@in_loop
async def test_a_size_below_the_paths_is_raised(
    authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "_packet_sizes", lambda address: (1252,))
    async with through_relay(authority, EngineName.AIOQUIC, LinkProfile(mtu=SMALL)) as (_, _, connection):
        raised = asyncio.Event()
        connection.http.on_packet_size.append(raised.set)
        await raised.wait()
        assert size(connection) == SMALL


@engines
@in_loop
async def test_icmp_in_mid_connection(
    engine: EngineName, authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's part, refusing packets and knowing why, is played here; tests/netns has the real one."""
    async with through_relay(authority, engine) as (_, _, connection):
        assert isinstance(connection.link, UdpLink)
        monkeypatch.setattr(connection.link, "max_udp_payload", lambda: 1312)
        connection.link.socket.counters.too_large += 1
        connection.http.engine.ping()
        connection.http.flush()
        assert size(connection) == 1312


@in_loop
async def test_a_path_too_narrow_for_ipv6_takes_http2(
    authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "_packet_sizes", lambda address: (1252,))
    monkeypatch.setattr(connector, "HTTP3_HEAD_START_S", 30.0)  # a busy machine must not change the reason
    async with bench(authority, h2_listen=[("127.0.0.1", 0)]) as running:
        address = running.proxy.addresses[0]
        for min_packet, version, reason in ((1280, 2, "path-mtu"), (1200, 3, None)):
            connection = await connect(*address, wide(running.ca_file, min_packet))
            running.connections.append(connection)
            assert (connection.http_version, connection.fallback_reason) == (version, reason)
    async with bench(authority, http2=False) as running:
        connection = await connect(*running.proxy.addresses[0], wide(running.ca_file, 1280))
        running.connections.append(connection)
        assert connection.http_version == 3, "better than nothing"
        assert not connection.carries(1280)
        assert connection.carries(1220)


def wide(ca_file: Path, min_packet: int) -> ConnectOptions:
    return ConnectOptions(tls=TlsConfiguration(ca_file=ca_file), min_packet=min_packet)


def void(_: object) -> None:
    """For lambdas that are called for their effect."""
