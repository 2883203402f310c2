"""One connection attempt: to one address, with one HTTP version, up to its SETTINGS. The connector races them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from masque_client.engine import create_client_engine
from masque_client.engine.h2_engine import H2Engine
from masque_client.engine.interface import (
    Address,
    CongestionControl,
    EngineConfiguration,
    EngineName,
    TlsConfiguration,
)
from masque_client.errors import ConnectError, ProxyRefused
from masque_client.http.connection import HttpConnection
from masque_client.http.network_memory import MemoryFile
from masque_client.http.service_records import QueryHttps, query_system
from masque_client.http.tcp_link import TcpLink
from masque_client.http.udp_link import UdpLink
from masque_client.netio.clock import Clock
from masque_client.netio.resolver import Resolve, resolve_system
from masque_client.netio.udp import UdpSocket
from masque_client.protocol.mtu import MIN_UDP_PAYLOAD, inner_max

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
SETTINGS_TIMEOUT_S = 5.0
PATH_MTU = "path-mtu"
"""`ProxyConnection.fallback_reason`: HTTP/3 works, but its path has no room for `ConnectOptions.min_packet`."""


class HttpVersion(StrEnum):
    """Which HTTP to reach a proxy with. `AUTO` prefers HTTP/3 and takes HTTP/2 where that does not work."""

    AUTO = "auto"
    HTTP_3 = "3"
    HTTP_2 = "2"


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """How to reach a proxy. `mark` is the firewall mark of the outer socket, None for none (it needs privilege).

    `min_packet` is the inner packet, in bytes, that the path must carry for `AUTO` to prefer HTTP/3.
    `congestion_control` is that of HTTP/3, where the engine has it.
    `query_https` asks the DNS for HTTPS records (RFC 9460), None for never; `memory` knows what worked last time.
    `resolve` looks names up; `known_address` is where the proxy was last, for when its name does not resolve.
    `certificate_origin` is the one host (lower case) and port that our client certificate is for, None for any.
    `grease` as in `EngineConfiguration`.
    `violations` counts, over all connections made with these options, the rules that proxies broke, by clause.
    """

    engine: EngineName = EngineName.AUTO
    tls: TlsConfiguration = field(default_factory=TlsConfiguration)
    mark: int | None = None
    timeout_s: float = CONNECT_TIMEOUT_S
    http: HttpVersion = HttpVersion.AUTO
    min_packet: int = 0
    query_https: QueryHttps | None = query_system
    memory: MemoryFile | None = None
    certificate_origin: Address | None = None
    resolve: Resolve = resolve_system
    known_address: Address | None = None
    grease: bool = True
    violations: Counter[str] = field(default_factory=Counter, compare=False)
    congestion_control: CongestionControl = CongestionControl.AUTO

    def for_origin(self, host: str, port: int) -> ConnectOptions:
        """The same without our client certificate, if that is for another proxy: a document may name any."""
        if self.certificate_origin in (None, (host.lower(), port)):
            return self
        return replace(self, tls=replace(self.tls, certificate=None, key=None))


class _PathTooNarrow(ConnectError):
    """A router on the way says that packets of this size do not fit; smaller ones of `max_udp_payload` bytes may."""

    def __init__(self, address: Address, max_udp_payload: int) -> None:
        super().__init__(f"the path to {address[0]} carries no more than {max_udp_payload} bytes of UDP payload")
        self.max_udp_payload = max_udp_payload


@dataclass(slots=True)
class ProxyConnection:
    """An HTTP connection to a proxy, its socket included. `close` releases both.

    Attributes:
        fallback_reason: why it is HTTP/2 though HTTP/3 was wanted, in two or three words; None when it was not.
    """

    http: HttpConnection
    link: UdpLink | TcpLink
    address: Address
    fallback_reason: str | None = None

    @property
    def http_version(self) -> int:
        """2 or 3."""
        return self.http.http_version

    @property
    def transport(self) -> Literal["udp", "tcp"]:
        """What the outer packets are."""
        return "udp" if isinstance(self.link, UdpLink) else "tcp"

    def carries(self, packet: int) -> bool:
        """Whether an inner packet of this many bytes fits now, with connection ids as long as ours."""
        if self.http.settings is not None and not self.http.settings.h3_datagram:
            return True  # in capsules
        return inner_max(self.http.statistics().max_udp_payload) >= packet

    def repeat_last_words(self, lost: ProxyConnection) -> None:
        """Over this connection's socket, end one to the same place that was given up in silence.

        The peer may not have heard it (RFC 9000 §10.2.1 allows to say it again): it would keep what belongs to that
        connection, such as a tunnel's addresses, until its idle timeout.
        """
        if isinstance(self.link, UdpLink) and isinstance(lost.link, UdpLink) and self.address == lost.address:
            self.link.send(lost.http.last_words)

    def close(self, reason: str = "") -> None:
        """Say goodbye (CONNECTION_CLOSE, GOAWAY) and close the socket. Idempotent."""
        self.http.close(reason=reason)
        self.link.close()


async def dial_http3(
    address: Address, max_udp_payload: int, host: str, options: ConnectOptions, clock: Clock
) -> ProxyConnection:
    """One QUIC handshake with packets of `max_udp_payload` bytes, or of what routers on the way say they carry.

    Raises:
        MasqueError: `ConnectError` when nothing answers, else what the answer was.
    """
    while True:
        try:
            return await _handshake(address, max_udp_payload, host, options, clock)
        except _PathTooNarrow as narrow:
            max_udp_payload = narrow.max_udp_payload


async def _handshake(
    address: Address, max_udp_payload: int, host: str, options: ConnectOptions, clock: Clock
) -> ProxyConnection:
    logger.debug("dialling %s over UDP with %d-byte packets", address, max_udp_payload)
    engine = create_client_engine(
        options.engine,
        EngineConfiguration(
            server_name=host,
            tls=options.tls,
            max_udp_payload=max_udp_payload,
            congestion_control=options.congestion_control,
            grease=options.grease,
        ),
    )
    link = UdpLink(
        UdpSocket.connected(address, mark=options.mark),
        lambda batch: connection.http.receive(batch),
        lambda: connection.http.fail_handshake(_nothing_listens(address)),
        lambda: on_too_large(),
    )

    def on_too_large() -> None:
        if MIN_UDP_PAYLOAD <= (limit := link.max_udp_payload()) < max_udp_payload:
            connection.http.fail_handshake(_PathTooNarrow(address, limit))

    http = HttpConnection(
        engine, link.send, clock, on_closed=lambda _: link.close(), path=link, violations=options.violations
    )
    connection = ProxyConnection(http, link, address)
    try:
        http.connect(address)
        await http.wait_handshake()
    except BaseException:
        connection.close()
        raise
    return connection


async def dial_http2(address: Address, host: str, options: ConnectOptions, clock: Clock) -> ProxyConnection:
    """One TCP connection, one TLS handshake.

    Raises:
        MasqueError: see `TcpLink.dial`.
    """
    logger.debug("dialling %s over TCP", address)
    link = await TcpLink.dial(address, host, options.tls, mark=options.mark)
    configuration = EngineConfiguration(server_name=host, tls=options.tls, grease=options.grease)
    engine = H2Engine(configuration, link.peer_certificate)
    http = HttpConnection(engine, link.send, clock, on_closed=lambda _: link.close(), violations=options.violations)
    connection = ProxyConnection(http, link, address)
    try:
        carry(link, engine, http)
        http.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def carry(link: TcpLink, engine: H2Engine, http: HttpConnection) -> None:
    """Let bytes flow between a TLS connection and an HTTP/2 connection. Both sides use it; then `http.connect`."""

    def on_room(has_room: bool) -> None:
        if has_room:
            engine.resume_sending()
            http.flush()
        else:
            engine.pause_sending()

    link.start(http.receive, http.fail, on_room)


async def require_masque(connection: ProxyConnection, host: str) -> ProxyConnection:
    """Wait for the proxy's SETTINGS and see that they allow MASQUE; the connection is closed when they do not.

    Raises:
        ConnectError: no SETTINGS in time.
        ProxyRefused: no extended CONNECT (RFC 9220, RFC 8441).
    """
    try:
        await _check_settings(connection, host)
    except BaseException:
        connection.close()
        raise
    return connection


async def _check_settings(connection: ProxyConnection, host: str) -> None:
    version = connection.http_version
    try:
        async with asyncio.timeout(SETTINGS_TIMEOUT_S):
            settings = await connection.http.wait_settings()
    except TimeoutError as error:
        raise ConnectError(f"{host} completed the handshake but sent no HTTP/{version} SETTINGS") from error
    if not settings.extended_connect:
        clause = "RFC 9220" if version == 3 else "RFC 8441"
        raise ProxyRefused(
            f"{host} speaks HTTP/{version} but does not offer extended CONNECT ({clause}), which MASQUE needs",
            hint="this host is no MASQUE proxy, or MASQUE is switched off there; check the name and port",
        )
    if version == 3 and not settings.h3_datagram:
        logger.info("%s takes no QUIC datagrams: packets go in capsules on their stream (RFC 9297 §2.2)", host)


def _nothing_listens(address: Address) -> ConnectError:
    return ConnectError(
        f"nothing listens on UDP port {address[1]} of {address[0]}",
        hint="check the proxy's port, and that the proxy is running and serves HTTP/3",
    )
