"""From a host and port to an HTTP connection that may carry sessions: resolve, race, dial, check.

Three races, one inside the other. Over addresses: Happy Eyeballs (RFC 8305 §5). Over packet sizes: QUIC Initials are
padded to the full packet size with DF set, so an attempt that completes has proved its size towards the proxy (digest
M-2). Over HTTP versions: HTTP/3 has a head start and, for a moment, the last word; a network that drops UDP in silence
costs that moment, one that refuses it costs nothing, and one that is remembered for it costs nothing again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from masque_client.engine.interface import Address
from masque_client.errors import ConnectError, MasqueError, NameResolutionError, ProxyRefused, TlsError
from masque_client.http.candidates import Candidates, find_candidates
from masque_client.http.dial import (
    PATH_MTU,
    ConnectOptions,
    HttpVersion,
    ProxyConnection,
    dial_http2,
    dial_http3,
    require_masque,
)
from masque_client.http.network_memory import NO_ADVICE, Advice
from masque_client.netio.clock import Clock, MonotonicClock
from masque_client.netio.udp import UdpSocket
from masque_client.protocol.mtu import initial_udp_payload_candidates

logger = logging.getLogger(__name__)

__all__ = ["ConnectOptions", "HttpVersion", "ProxyConnection", "connect"]

QUIC_BLOCKED = "QUIC blocked"
"""`ProxyConnection.fallback_reason`: HTTP/3 met silence, or was refused on the way."""
DNS_PREFERS_HTTP2 = "HTTP/2 in the DNS"
"""The same: the proxy's HTTPS records list HTTP/2 and not HTTP/3, and it was up first."""
ATTEMPT_DELAY_S = 0.25
"""Connection Attempt Delay, RFC 8305 §8."""
SMALLER_PACKETS_DELAY_S = 1.0
"""How long full-size packets may stay unanswered before smaller ones are tried as well."""
HTTP3_HEAD_START_S = 0.3
"""HTTP/2 is not even tried before: on most networks HTTP/3 is up by then, and no TCP connection is wasted."""
HTTP2_HEAD_START_S = 0.3
"""The other way round, where the DNS says that the proxy has HTTP/2 and not HTTP/3."""
HTTP3_PREFERENCE_S = 0.6
"""Until then an HTTP/2 connection that is up waits for HTTP/3: a lost Initial (repeated after 0.2 s) must not put a
tunnel on TCP, where inner and outer loss recovery fight (RFC 9298 §6). HTTP/2 needs three round trips to be up in time
to wait, HTTP/3 one, so distance alone never decides."""


async def connect(host: str, port: int, options: ConnectOptions, clock: Clock | None = None) -> ProxyConnection:
    """Connect to the proxy at `host`:`port` and wait for its SETTINGS.

    Returns:
        A connection on which extended CONNECT and HTTP Datagrams are allowed.

    Raises:
        NameResolutionError: `host` has no address.
        ConnectError: nothing answered on any address with any packet size within `options.timeout_s`.
        TlsError: what answered is not trusted.
        ProxyRefused: it does not speak the wanted HTTP, or not extended CONNECT or HTTP Datagrams (RFC 9297).
    """
    options = options.for_origin(host, port)
    memory = options.memory
    advice = memory.advise(host, port) if memory is not None else NO_ADVICE
    candidates = await _find(host, port, options)
    connection = await _connect(_Dialler(host, candidates, advice, options, clock or MonotonicClock()))
    if memory is not None and options.http is HttpVersion.AUTO:
        is_blocked = connection.fallback_reason == QUIC_BLOCKED
        memory.remember(host, port, connection.address, quic_blocked=is_blocked, was_fair=advice.prefer_http3)
    return connection


async def _find(host: str, port: int, options: ConnectOptions) -> Candidates:
    try:
        return await find_candidates(host, port, options.query_https, options.resolve)
    except NameResolutionError as error:
        if options.known_address is None:
            raise
        logger.info("%s; trying where it was before", error)
        return Candidates((options.known_address,), (options.known_address,))


async def _connect(dialler: _Dialler) -> ProxyConnection:
    match dialler.options.http:
        case HttpVersion.HTTP_2:
            return await dialler.over_tcp()
        case HttpVersion.HTTP_3:
            try:
                return await dialler.over_udp()
            except ConnectError as error:
                error.hint = "UDP may be blocked on the way: with --http auto, HTTP/2 over TCP is tried as well"
                raise
        case HttpVersion.AUTO:
            return await _race_versions(dialler)


# --- over HTTP versions ---------------------------------------------------------------------------------------------


async def _race_versions(dialler: _Dialler) -> ProxyConnection:
    """HTTP/3 if it is up within its time, else what is up first; the loser is closed with a goodbye.

    A proxy that must not be trusted over QUIC has answered: TCP is not asked for a second opinion.
    """
    prefers_tcp, advice = dialler.candidates.prefers_tcp, dialler.advice
    http2_after_s = 0.0 if prefers_tcp or advice.http2_at_once else HTTP3_HEAD_START_S
    http3_until_s = HTTP3_PREFERENCE_S if advice.prefer_http3 and not prefers_tcp else 0.0
    http3 = asyncio.create_task(_after(HTTP2_HEAD_START_S if prefers_tcp else 0.0, dialler.over_udp))
    min_packet = dialler.options.min_packet
    started = [http3]
    winner: ProxyConnection | None = None
    try:
        await asyncio.wait(started, timeout=http2_after_s)
        if not http3.done() or _may_fall_back(http3, min_packet):
            started.append(asyncio.create_task(dialler.over_tcp()))
            await asyncio.wait([http3], timeout=max(0.0, http3_until_s - http2_after_s))
        winner = await _first_up(min_packet, *started)
        if prefers_tcp and winner.fallback_reason == QUIC_BLOCKED and not http3.done():
            winner.fallback_reason = DNS_PREFERS_HTTP2
        return winner
    finally:
        _close_others(started, winner)


async def _after(delay_s: float, dial: Callable[[], Coroutine[Any, Any, ProxyConnection]]) -> ProxyConnection:
    await asyncio.sleep(delay_s)
    return await dial()


async def _first_up(
    min_packet: int, http3: asyncio.Task[ProxyConnection], http2: asyncio.Task[ProxyConnection] | None = None
) -> ProxyConnection:
    """What is up now, HTTP/3 before HTTP/2, or else next; HTTP/3 on a path too narrow is better than nothing."""
    while True:
        if http3.done() and (http2 is None or not _may_fall_back(http3, min_packet)):
            return http3.result()
        assert http2 is not None
        if http2.done() and http2.exception() is None:
            connection = http2.result()
            connection.fallback_reason = _fallback_reason(http3)
            return connection
        if http2.done() and http3.done() and http3.exception() is None:
            return http3.result()
        if http2.done() and (http3.done() or isinstance(http2.exception(), TlsError)):
            raise _why_neither(http3, http2)
        pending = [task for task in (http3, http2) if not task.done()]
        await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)


def _may_fall_back(http3: asyncio.Task[ProxyConnection], min_packet: int) -> bool:
    """Whether HTTP/2 may do what HTTP/3 could not: nobody answered, nobody who speaks MASQUE, or a path too narrow."""
    if http3.exception() is None:
        return not http3.result().carries(min_packet)
    return isinstance(http3.exception(), (ConnectError, ProxyRefused))


def _fallback_reason(http3: asyncio.Task[ProxyConnection]) -> str:
    if not http3.done() or isinstance(http3.exception(), ConnectError):
        return QUIC_BLOCKED
    return PATH_MTU if http3.exception() is None else "no MASQUE over HTTP/3"


def _why_neither(http3: asyncio.Task[ProxyConnection], http2: asyncio.Task[ProxyConnection]) -> BaseException:
    """HTTP/3's error, with a word on HTTP/2; but HTTP/2's when that was an answer and HTTP/3 had none."""
    over_udp, over_tcp = http3.exception() if http3.done() else None, http2.exception()
    assert over_tcp is not None
    if over_udp is None or (isinstance(over_udp, ConnectError) and isinstance(over_tcp, TlsError)):
        return over_tcp
    if isinstance(over_udp, ConnectError) and isinstance(over_tcp, MasqueError):
        return ConnectError(f"{over_udp}; over TCP: {over_tcp}", hint=over_udp.hint)
    return over_udp


# --- over addresses and packet sizes --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Attempt:
    """How to try, and how long before the next attempt joins in."""

    dial: Callable[[], Coroutine[Any, Any, ProxyConnection]]
    head_start_s: float


@dataclass(frozen=True, slots=True)
class _Dialler:
    """Everything about one proxy that its attempts have in common."""

    host: str
    candidates: Candidates
    advice: Advice
    options: ConnectOptions
    clock: Clock

    async def over_udp(self) -> ProxyConnection:
        """HTTP/3: all addresses with full-size packets first, then all with each smaller size."""
        addresses = self._schedule(self.candidates.udp)
        sizes = {address: _packet_sizes(address) for address in addresses}
        attempts = []
        for step in range(max(map(len, sizes.values()))):
            round_ = [(address, sizes[address][step]) for address in addresses if step < len(sizes[address])]
            for position, (address, size) in enumerate(round_, 1):
                dial = partial(dial_http3, address, size, self.host, self.options, self.clock)
                is_last = position == len(round_)
                attempts.append(_Attempt(dial, SMALLER_PACKETS_DELAY_S if is_last else addresses[address]))
        return await self._connect(attempts, "UDP", addresses)

    async def over_tcp(self) -> ProxyConnection:
        """HTTP/2: all addresses."""
        addresses = self._schedule(self.candidates.tcp)
        attempts = [
            _Attempt(partial(dial_http2, address, self.host, self.options, self.clock), head_start_s)
            for address, head_start_s in addresses.items()
        ]
        return await self._connect(attempts, "TCP", addresses)

    def _schedule(self, addresses: Sequence[Address]) -> dict[Address, float]:
        """Addresses in the order of attempts, with their head starts.

        The last good address goes first and has none: the regular first is tried at the same time, so nothing is lost.
        """
        schedule = dict.fromkeys(addresses, ATTEMPT_DELAY_S)
        if (last_good := self.advice.address) is not None and last_good in addresses[1:]:
            return {last_good: 0.0} | {address: delay for address, delay in schedule.items() if address != last_good}
        return schedule

    async def _connect(
        self, attempts: Sequence[_Attempt], transport: str, addresses: Iterable[Address]
    ) -> ProxyConnection:
        timeout_s = self.options.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                connection = await _race(attempts)
        except TimeoutError as error:
            tried = ", ".join(f"{address} port {port}" for address, port in addresses)
            raise ConnectError(
                f"no answer from {self.host} over {transport} within {timeout_s:g} s (tried {tried})"
            ) from error
        return await require_masque(connection, self.host)


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


async def _race(attempts: Sequence[_Attempt]) -> ProxyConnection:
    """Start attempts a head start apart, or at once when one fails; the first to finish wins, the rest are closed."""
    started: list[asyncio.Task[ProxyConnection]] = []
    winner: ProxyConnection | None = None
    failure: MasqueError | None = None
    try:
        for number, attempt in enumerate(attempts, 1):
            started.append(asyncio.create_task(attempt.dial()))
            while running := [task for task in started if not task.done()]:
                head_start = attempt.head_start_s if number < len(attempts) else None
                done, _ = await asyncio.wait(running, timeout=head_start, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    error = task.exception()
                    if error is None:
                        winner = task.result()
                        return winner
                    if not isinstance(error, ConnectError):
                        raise error  # a TLS failure is an answer: no other packet size will change it
                    failure = error
                if number < len(attempts):
                    break
        raise failure or ConnectError("the proxy has no usable address")
    finally:
        _close_others(started, winner)


def _close_others(started: Sequence[asyncio.Task[ProxyConnection]], winner: ProxyConnection | None) -> None:
    """Cancel what still runs, and say goodbye on what was connected for nothing.

    Nothing is awaited: a cancellation that came in here would lose the winner, open and owned by nobody.
    """

    def finish(task: asyncio.Task[ProxyConnection]) -> None:
        if not task.cancelled() and task.exception() is None and task.result() is not winner:
            task.result().close("another attempt won")

    for task in started:
        if task.done():
            finish(task)
        else:
            task.cancel()
            task.add_done_callback(finish)
