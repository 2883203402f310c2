"""A MASQUE proxy on loopback, a client connected to it and a target behind it, for the tests of them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Never

import pytest

from masque_client.engine.interface import Address, EngineName, TlsConfiguration
from masque_client.http import connector
from masque_client.http.connector import ConnectOptions, HttpVersion, ProxyConnection, connect
from masque_client.http.stream import SessionStream
from masque_client.protocol.connect import ip_request_headers, udp_request_headers
from masque_client.protocol.headers import Headers
from masque_client.protocol.ip_session import ConnectIpSession
from masque_client.protocol.session import Role
from masque_client.protocol.udp_session import ConnectUdpSession
from masque_client.protocol.uri_template import IpTemplate, UdpTemplate
from masque_client.testing.certificates import CertificateAuthority
from masque_client.testing.misbehave import parse_misbehaviour
from masque_client.testing.proxy import MasqueProxy, ProxyConfiguration

TIMEOUT_S = 60.0
"""Past this something hangs, however busy the machine."""
ENGINES = [EngineName.AIOQUIC, EngineName.QH3]
POOLS = [ip_network("10.89.0.0/29"), ip_network("fd89::/64")]
ROUTES = [ip_network("10.80.0.0/24"), ip_network("fd80::/64")]
ALLOW = [ip_network("127.0.0.0/8"), ip_network("::1/128")]


class Bench:
    """A running proxy and how to reach it."""

    def __init__(self, proxy: MasqueProxy, ca_file: Path, engine: EngineName) -> None:
        self.proxy = proxy
        self.ca_file = ca_file
        self.engine = engine
        self.connections: list[ProxyConnection] = []

    async def connect(self, tls: TlsConfiguration | None = None) -> ProxyConnection:
        """Over HTTP/3 alone: where a busy machine is late, HTTP/2 would be tried as well."""
        tls = tls or TlsConfiguration(ca_file=self.ca_file)
        options = ConnectOptions(engine=self.engine, tls=tls, http=HttpVersion.HTTP_3)
        host, port = self.proxy.addresses[0]
        connection = await connect(host, port, options)
        self.connections.append(connection)
        return connection

    async def open_udp(
        self, host: str, port: int, headers: Headers = (), connection: ProxyConnection | None = None
    ) -> Tunnel:
        template = UdpTemplate.parse(self.proxy.templates["connect-udp"])
        tunnel = Tunnel(ConnectUdpSession(Role.CLIENT))
        connection = connection or await self.connect()
        await tunnel.stream.open(connection.http, udp_request_headers(template.expand(host, port), headers))
        return tunnel

    async def open_ip(
        self, target: str = "*", headers: Headers = (), connection: ProxyConnection | None = None
    ) -> Tunnel:
        template = IpTemplate.parse(self.proxy.templates["connect-ip"])
        tunnel = Tunnel(ConnectIpSession(Role.CLIENT))
        connection = connection or await self.connect()
        await tunnel.stream.open(connection.http, ip_request_headers(template.expand(target), headers))
        return tunnel


class Echo:
    """A UDP target that sends everything back."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind((host, 0))
        self.address: Address = (host, self.socket.getsockname()[1])
        self.senders: set[Any] = set()

    def __enter__(self) -> Echo:
        asyncio.get_running_loop().add_reader(self.socket.fileno(), self._reply)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self.socket.fileno())
        self.socket.close()

    def _reply(self) -> None:
        data, sender = self.socket.recvfrom(65535)
        self.senders.add(sender)
        self.socket.sendto(data, sender)


class Tunnel:
    """A client's session with its payloads and events in queues."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.payloads: asyncio.Queue[bytes] = asyncio.Queue()
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.stream: SessionStream[Never] = SessionStream(
            session, on_payloads=self._on_payloads, on_event=self.events.put_nowait
        )

    def send(self, *payloads: bytes) -> None:
        self.stream.send_payloads(payloads)
        self.stream.flush()

    async def payload(self) -> bytes:
        return await asyncio.wait_for(self.payloads.get(), TIMEOUT_S)

    async def event(self, kind: type) -> Any:
        """The next event of `kind`; others before it are skipped."""
        async with asyncio.timeout(TIMEOUT_S):
            while not isinstance(event := await self.events.get(), kind):
                pass
            return event

    async def ended(self) -> Exception | None:
        return await asyncio.wait_for(self.stream.wait_closed(), TIMEOUT_S)

    def _on_payloads(self, payloads: list[bytes]) -> None:
        for payload in payloads:
            self.payloads.put_nowait(payload)


@asynccontextmanager
async def bench(
    authority: CertificateAuthority, engine: EngineName = EngineName.AUTO, *faults: str, **configuration: Any
) -> AsyncIterator[Bench]:
    """A proxy on a free port of 127.0.0.1, control plane only, with `faults`.

    Who is late is not taken for a path that wants smaller packets: a second attempt would be a second connection.
    """
    configuration = {
        "listen": [("127.0.0.1", 0)],
        "name": "127.0.0.1",
        "pools": POOLS,
        "routes": ROUTES,
        "allow": ALLOW,
        **configuration,
    }
    proxy_configuration = ProxyConfiguration(
        credentials=authority.issue(["127.0.0.1", "::1", "localhost"]),
        engine=engine,
        misbehaviour=parse_misbehaviour(faults),
        **configuration,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connector, "SMALLER_PACKETS_DELAY_S", TIMEOUT_S)
        async with MasqueProxy(proxy_configuration) as proxy:
            running = Bench(proxy, authority.ca_file, engine)
            try:
                yield running
            finally:
                for connection in running.connections:
                    connection.close()


Scenario = Callable[[Bench], Awaitable[None]]
Run = Callable[..., None]
"""The fixture `run`: a scenario, faults, and what `bench` takes by name."""
