"""From a host and port to an HTTP connection that may carry sessions: resolve, race, dial, check.

The race is Happy Eyeballs (RFC 8305 §5) over addresses, then over packet sizes: QUIC Initials are padded to the
full packet size with DF set, so an attempt that completes has proved its size towards the proxy (digest M-2).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from masque_client.engine import create_client_engine
from masque_client.engine.interface import Address, EngineConfiguration, EngineName, TlsConfiguration
from masque_client.errors import ConnectError, MasqueError, NameResolutionError, ProxyRefused
from masque_client.http.connection import HttpConnection
from masque_client.http.udp_link import UdpLink
from masque_client.netio.clock import Clock, MonotonicClock
from masque_client.netio.udp import UdpSocket
from masque_client.protocol.mtu import initial_udp_payload_candidates

logger = logging.getLogger(__name__)

ATTEMPT_DELAY_S = 0.25
"""Connection Attempt Delay, RFC 8305 §8."""
SMALLER_PACKETS_DELAY_S = 1.0
"""How long full-size packets may stay unanswered before smaller ones are tried as well."""
CONNECT_TIMEOUT_S = 10.0
SETTINGS_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """How to reach a proxy. `mark` is the firewall mark of the outer socket, None for none (it needs privilege)."""

    engine: EngineName = EngineName.AUTO
    tls: TlsConfiguration = field(default_factory=TlsConfiguration)
    mark: int | None = None
    timeout_s: float = CONNECT_TIMEOUT_S


@dataclass(slots=True)
class ProxyConnection:
    """An HTTP connection to a proxy, its socket included. `close` releases both."""

    http: HttpConnection
    link: UdpLink
    address: Address

    def close(self, reason: str = "") -> None:
        """Send CONNECTION_CLOSE and close the socket. Idempotent."""
        self.http.close(reason=reason)
        self.link.close()


@dataclass(frozen=True, slots=True)
class _Attempt:
    address: Address
    max_udp_payload: int
    head_start_s: float


async def connect(host: str, port: int, options: ConnectOptions, clock: Clock | None = None) -> ProxyConnection:
    """Connect to the proxy at `host`:`port` and wait for its SETTINGS.

    Returns:
        A connection on which extended CONNECT and HTTP Datagrams are allowed.

    Raises:
        NameResolutionError: `host` has no address.
        ConnectError: nothing answered on any address with any packet size within `options.timeout_s`.
        TlsError: what answered is not trusted.
        ProxyRefused: it speaks HTTP/3 but not extended CONNECT (RFC 9220) or HTTP Datagrams (RFC 9297).
    """
    addresses = await _resolve(host, port)
    attempts = _plan(addresses)
    try:
        async with asyncio.timeout(options.timeout_s):
            connection = await _race(attempts, host, options, clock or MonotonicClock())
    except TimeoutError as error:
        tried = ", ".join(f"{address} port {port}" for address, _ in addresses)
        raise ConnectError(f"no answer from {host} over UDP within {options.timeout_s:g} s (tried {tried})") from error
    try:
        await _require_masque(connection, host)
    except BaseException:
        connection.close()
        raise
    return connection


async def _resolve(host: str, port: int) -> list[Address]:
    """Addresses in the order of RFC 6724 with the families interleaved (RFC 8305 §4)."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no host name"
        raise NameResolutionError(f"{host} does not resolve: {reason}") from error
    families: dict[int, list[Address]] = {}
    for family, _, _, _, sockaddr in found:
        if family in (socket.AF_INET, socket.AF_INET6):
            families.setdefault(family, []).append((str(sockaddr[0]), port))
    queues = list(families.values())
    return [queue[i] for i in range(max(map(len, queues))) for queue in queues if i < len(queue)]


def _plan(addresses: Sequence[Address]) -> list[_Attempt]:
    """All addresses with full-size packets first, then all with each smaller size."""
    sizes = {address: _packet_sizes(address) for address in addresses}
    attempts = []
    for step in range(max(map(len, sizes.values()))):
        round_ = [(address, sizes[address][step]) for address in addresses if step < len(sizes[address])]
        for position, (address, size) in enumerate(round_, 1):
            head_start = SMALLER_PACKETS_DELAY_S if position == len(round_) else ATTEMPT_DELAY_S
            attempts.append(_Attempt(address, size, head_start))
    return attempts


def _packet_sizes(address: Address) -> tuple[int, ...]:
    version: Literal[4, 6] = 6 if ":" in address[0] else 4
    try:
        probe = UdpSocket.connected(address)
    except MasqueError:
        return (initial_udp_payload_candidates(None, version)[0],)  # no route: the attempt itself will say so
    try:
        return initial_udp_payload_candidates(probe.path_mtu(), version)
    finally:
        probe.close()


async def _race(attempts: Sequence[_Attempt], host: str, options: ConnectOptions, clock: Clock) -> ProxyConnection:
    """Start attempts a head start apart, or at once when one fails; the first to finish wins, the rest are closed."""
    running: set[asyncio.Task[ProxyConnection]] = set()
    failure: MasqueError | None = None
    try:
        for number, attempt in enumerate(attempts, 1):
            running.add(asyncio.create_task(_dial(attempt, host, options, clock)))
            while running:
                head_start = attempt.head_start_s if number < len(attempts) else None
                done, running = await asyncio.wait(running, timeout=head_start, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    error = task.exception()
                    if error is None:
                        return task.result()
                    if not isinstance(error, ConnectError):
                        raise error  # a TLS failure is an answer: no other packet size will change it
                    failure = error
                if number < len(attempts):
                    break
        raise failure or ConnectError(f"{host} has no usable address")
    finally:
        for task in running:
            task.cancel()
        for outcome in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(outcome, ProxyConnection):
                outcome.close("another attempt won")


async def _dial(attempt: _Attempt, host: str, options: ConnectOptions, clock: Clock) -> ProxyConnection:
    """One QUIC handshake, up to the proxy's SETTINGS."""
    logger.debug("dialling %s with %d-byte packets", attempt.address, attempt.max_udp_payload)
    engine = create_client_engine(
        options.engine,
        EngineConfiguration(server_name=host, tls=options.tls, max_udp_payload=attempt.max_udp_payload),
    )
    link = UdpLink(
        UdpSocket.connected(attempt.address, mark=options.mark),
        lambda batch: connection.http.receive(batch),
        lambda: connection.http.fail_handshake(_refused(attempt.address)),
    )
    http = HttpConnection(engine, link.send, clock, on_closed=lambda _: link.close())
    connection = ProxyConnection(http, link, attempt.address)
    try:
        http.connect(attempt.address)
        await http.wait_handshake()
    except BaseException:
        connection.close()
        raise
    return connection


def _refused(address: Address) -> ConnectError:
    return ConnectError(
        f"nothing listens on UDP port {address[1]} of {address[0]}",
        hint="check the proxy's port, and that the proxy is running and serves HTTP/3",
    )


async def _require_masque(connection: ProxyConnection, host: str) -> None:
    try:
        async with asyncio.timeout(SETTINGS_TIMEOUT_S):
            settings = await connection.http.wait_settings()
    except TimeoutError as error:
        raise ConnectError(f"{host} completed the handshake but sent no HTTP/3 SETTINGS") from error
    if not settings.extended_connect:
        raise ProxyRefused(
            f"{host} speaks HTTP/3 but does not offer extended CONNECT (RFC 9220), which MASQUE needs",
            hint="this host is no MASQUE proxy, or MASQUE is switched off there; check the name and port",
        )
    if not settings.h3_datagram:
        raise ProxyRefused(
            f"{host} does not offer HTTP Datagrams (RFC 9297 §2.1.1), which MASQUE needs",
            hint="ask the operator to enable HTTP/3 datagrams; check the name and port",
        )
