"""A proxy that says goodbye (GOAWAY): new flows take a new connection, old flows finish on the old one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hyperframe.frame import GoAwayFrame

from masque_client.engine.interface import EngineName, TlsConfiguration
from masque_client.http.connection import HttpConnection
from masque_client.http.connector import ConnectOptions, HttpVersion
from masque_client.netio.clock import MonotonicClock
from masque_client.protocol.varint import encode_varint
from masque_client.testing.certificates import CertificateAuthority
from masque_client.tunnel.proxies import udp_proxies
from masque_client.tunnel.proxy_pool import ProxyPool
from masque_client.tunnel.router import Router
from tests.unit.engine import raw
from tests.unit.http.loops import in_loop
from tests.unit.testing.proxy_client import bench


def say_goodbye(server: HttpConnection) -> None:
    """GOAWAY after the first request (RFC 9114 §5.2, RFC 9113 §6.8); no engine of ours sends it by itself."""
    engine: Any = server.engine
    if server.http_version == 2:
        server._send(GoAwayFrame(0, last_stream_id=1).serialize())
        return
    frame = raw.frame(raw.GOAWAY, encode_varint(4))
    engine._quic.send_stream_data(engine._h3._local_control_stream_id, frame)
    server.flush()


async def echoing(router: Router, port: int) -> tuple[Any, asyncio.Queue[bytes]]:
    """A path to a socket that sends everything back, and what comes back."""
    back: asyncio.Queue[bytes] = asyncio.Queue()

    def on_payloads(payloads: list[bytes]) -> None:
        for payload in payloads:
            back.put_nowait(payload)

    return await router.open_udp("127.0.0.1", port, on_payloads), back


@pytest.mark.parametrize("carrier", ["aioquic", "qh3", "http2"])
@in_loop
async def test_goaway(carrier: str, tmp_path: Path) -> None:
    authority = CertificateAuthority.create(tmp_path)
    async with bench(authority, EngineName.AIOQUIC, h2_listen=[("127.0.0.1", 0)]) as running:
        tls = TlsConfiguration(ca_file=running.ca_file)
        if carrier == "http2":
            options = ConnectOptions(tls=tls, http=HttpVersion.HTTP_2)
        else:
            options = ConnectOptions(engine=EngineName(carrier), tls=tls, http=HttpVersion.HTTP_3)
        pool = ProxyPool(options, MonotonicClock())
        choice = await udp_proxies(running.proxy.templates["connect-udp"], tls)
        router = Router(choice, pool, MonotonicClock())
        origin = choice.candidates[0].authority
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        old_path, old_back = await echoing(router, port)
        old = await pool.connection(origin)
        (server,) = [*running.proxy.listener.connections, *running.proxy.http2.connections]
        say_goodbye(server)
        while not old.http.going_away:
            old_path.send([b"are we there yet"])
            await old_back.get()
        new_path, new_back = await echoing(router, port)
        new = pool.existing(origin)
        assert new is not None and new is not old and not await old.http.wait_closed(0)
        for path, back in ((old_path, old_back), (new_path, new_back)):
            path.send([b"still here"])
            assert await back.get() == b"still here"
        old_path.close()
        assert pool.existing(origin) is new
        assert await old.http.wait_closed(0), "it was let go of when its last flow had ended"
        new_path.close()
        transport.close()
        await pool.close()


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(data, addr)
