"""Grease on the wire: the proxy sees it, ignores it, and the tunnel carries on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from masque_client.engine.interface import TlsConfiguration
from masque_client.http import grease
from masque_client.http.connector import ConnectOptions, HttpVersion, connect
from masque_client.netio.clock import MonotonicClock
from masque_client.protocol.capsule import CapsuleReader
from masque_client.protocol.session import Role
from masque_client.protocol.udp_session import ConnectUdpSession
from masque_client.protocol.uri_template import UdpTemplate
from masque_client.protocol.varint import parse_varint
from masque_client.sockets.paths import ProxyPath
from masque_client.testing.certificates import CertificateAuthority
from tests.unit.http.loops import in_loop
from tests.unit.testing.proxy_client import TIMEOUT_S, bench


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[int]:
    """Context IDs of datagrams, and capsule types negated, as the proxy's sessions meet them."""
    seen: asyncio.Queue[int] = asyncio.Queue()
    receive_datagrams, receive_data = ConnectUdpSession.receive_datagrams, CapsuleReader.receive_data

    def on_datagrams(session: ConnectUdpSession, datagrams: Sequence[bytes], skip: int = 0) -> list[bytes]:
        if session.role is Role.PROXY:
            for datagram in datagrams:
                context = parse_varint(datagram, skip)
                assert context is not None
                seen.put_nowait(context[0])
        return receive_datagrams(session, datagrams, skip)

    def on_data(reader: CapsuleReader, data: bytes) -> list[object]:
        kind = parse_varint(data)
        if kind is not None:
            seen.put_nowait(-kind[0])
        return list(receive_data(reader, data))

    monkeypatch.setattr(ConnectUdpSession, "receive_datagrams", on_datagrams)
    monkeypatch.setattr(CapsuleReader, "receive_data", on_data)
    monkeypatch.setattr(grease, "INTERVAL_S", 0.05)
    return seen


@pytest.mark.parametrize("greased", [True, False])
@in_loop
async def test_over_http3(greased: bool, tmp_path: Path, seen: asyncio.Queue[int]) -> None:
    async with bench(CertificateAuthority.create(tmp_path)) as running:
        loop, echoed = asyncio.get_running_loop(), asyncio.Event()
        transport, _ = await loop.create_datagram_endpoint(_Echo, local_addr=("127.0.0.1", 0))
        options = ConnectOptions(tls=TlsConfiguration(ca_file=running.ca_file), http=HttpVersion.HTTP_3)
        connection = await connect(*running.proxy.addresses[0], options)
        running.connections.append(connection)
        path = await ProxyPath.open(
            connection.http,
            UdpTemplate.parse(running.proxy.templates["connect-udp"]),
            *transport.get_extra_info("sockname")[:2],
            clock=MonotonicClock(),
            on_payloads=lambda payloads: echoed.set(),
            grease=greased,
        )
        contexts: list[int] = []
        async with asyncio.timeout(TIMEOUT_S):
            while greased and sum(context > 0 for context in contexts) < 3:
                contexts.append(await seen.get())
            path.send([b"a real one"])
            await echoed.wait()
        while not seen.empty():
            contexts.append(seen.get_nowait())
        assert 0 in contexts
        assert all(context % 2 == 0 for context in contexts if context > 0)
        assert any((-kind) % 0x29 == 0x17 for kind in contexts if kind < 0) == greased
        assert any(context > 0 for context in contexts) == greased
        path.close()
        transport.close()


class _Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(data, addr)


@pytest.mark.parametrize("http", [HttpVersion.HTTP_3, HttpVersion.HTTP_2])
@pytest.mark.parametrize("greased", [True, False])
@in_loop
async def test_settings_of_a_connection(http: HttpVersion, greased: bool, tmp_path: Path) -> None:
    async with bench(CertificateAuthority.create(tmp_path), h2_listen=[("127.0.0.1", 0)]) as running:
        options = ConnectOptions(tls=TlsConfiguration(ca_file=running.ca_file), http=http, grease=greased)
        connection = await connect(*running.proxy.addresses[0], options)
        running.connections.append(connection)
        (server,) = [*running.proxy.listener.connections, *running.proxy.http2.connections]
        await running.open_udp("127.0.0.1", 9, connection=connection)  # by now all that was said first has arrived
        engine: Any = server.engine
        if http is HttpVersion.HTTP_3:
            reserved = [key for key in engine._h3.received_settings if key >= 0x21 and key % 0x1F == 2]
        else:
            reserved = [int(key) for key in engine._h2.remote_settings if int(key) & 0x0F0F == 0x0A0A]
        assert len(reserved) == greased
