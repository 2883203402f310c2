"""Does anything come back through the tunnel? Asked before a tunnel is called verified.

A ping with a hop limit of 1 goes to an address behind the proxy. A proxy that forwards must answer it with Time
Exceeded or, when the address is its own, with a reply; whichever ICMP quotes our ping proves both directions.
The packets bypass the TUN device, so the probe needs no cooperation of this machine's routing.
With IPv6 a ping of 1280 bytes follows: a reply is as long, and so is an error, which quotes as much as it may.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from masque_client.http.stream import SessionStream
from masque_client.netio.clock import Clock
from masque_client.protocol.icmp import compose_echo_request
from masque_client.protocol.ip_capsules import IpAddressRange
from masque_client.protocol.ip_packet import ICMP, ICMPV6, IPV4_HEADER, IPV6_HEADER, build_ipv4, parse_ip_header
from masque_client.protocol.ip_session import ConnectIpSession
from masque_client.protocol.mtu import MIN_IPV6_MTU
from masque_client.protocol.packing import ONE_PER_BUFFER

ATTEMPTS = 4
INTERVAL_S = 0.4
FULL_ATTEMPTS = 3
SHORTEST_INTERVAL_S = 0.05
ICMP_HEADER = 8
IDENTIFIER = 0x4D51

_REPLIES = {ICMP: 0, ICMPV6: 129}
_DOCUMENTATION = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}
"""Where to point when everything is routed: addresses that nobody has (RFC 5737, RFC 3849)."""


async def probe(stream: SessionStream[Any], session: ConnectIpSession, clock: Clock) -> float | None:
    """Seconds until the first answer; None when nothing came back after `ATTEMPTS` pings `INTERVAL_S` apart.

    Takes over `stream.on_payloads` for its duration: other packets that arrive meanwhile are lost.
    """
    return await _ask(stream, session, clock, lambda sequence: list(_pings(session, sequence, b"masque-connect")))


async def probe_full_ipv6(
    stream: SessionStream[Any], session: ConnectIpSession, clock: Clock, rtt_s: float
) -> bool | None:
    """Whether IPv6 packets of 1280 bytes pass both ways, as every link of IPv6 must let them (RFC 9484 §7.2).

    To be asked after `probe`, which took `rtt_s`. None when there is nothing to ask: no IPv6, or no room for it.
    """

    def pings(sequence: int) -> list[bytes]:
        full = _pings(session, sequence, bytes(MIN_IPV6_MTU - IPV6_HEADER - ICMP_HEADER))
        return [ping for ping in full if ping[0] >> 4 == 6]

    if stream.max_payload < MIN_IPV6_MTU or not pings(0):
        return None
    interval_s = min(INTERVAL_S, SHORTEST_INTERVAL_S + 4 * rtt_s)
    answer = await _ask(
        stream, session, clock, pings, interval_s=interval_s, attempts=FULL_ATTEMPTS, min_answer=MIN_IPV6_MTU
    )
    return answer is not None


async def _ask(
    stream: SessionStream[Any],
    session: ConnectIpSession,
    clock: Clock,
    pings: Callable[[int], list[bytes]],
    *,
    interval_s: float = INTERVAL_S,
    attempts: int = ATTEMPTS,
    min_answer: int = 0,
) -> float | None:
    """Send what `pings` makes of a sequence number, until an answer of at least `min_answer` bytes has come."""
    answered: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def on_payloads(packets: list[bytes]) -> None:
        for packet in packets:
            sequence = _sequence_of_answer(packet)
            if sequence in sent_at and len(packet) >= min_answer and not answered.done():
                answered.set_result(clock.now() - sent_at[sequence])

    sent_at: dict[int, float] = {}
    restore, stream.on_payloads = stream.on_payloads, on_payloads
    packing, session.packing = session.packing, ONE_PER_BUFFER
    try:
        for sequence in range(1, attempts + 1):
            packets = [_with_one_hop(ping) for ping in pings(sequence)]
            if not packets or stream.is_closed:
                return None
            sent_at[sequence] = clock.now()
            stream.send_payloads(packets)
            stream.flush()
            await asyncio.wait([answered], timeout=interval_s)
            if answered.done():
                return answered.result()
        return None
    finally:
        stream.on_payloads = restore
        session.packing = packing


def _pings(session: ConnectIpSession, sequence: int, data: bytes) -> Iterator[bytes]:
    """One ping per family that has an address and a route."""
    seen = set()
    for assigned in session.assigned:
        source = assigned.host_address()
        if source is None or source.version in seen:
            continue
        target = next((_target(route) for route in session.routes if route.version == source.version), None)
        if target is not None:
            seen.add(source.version)
            yield compose_echo_request(source.packed, target.packed, IDENTIFIER, sequence, data)


def _target(route: IpAddressRange) -> IPv4Address | IPv6Address:
    documentation = _DOCUMENTATION[route.version]
    if int(route.start) <= int(documentation) <= int(route.end):
        return documentation
    return route.start if route.start == route.end else route.start + 1


def _with_one_hop(ping: bytes) -> bytes:
    if ping[0] >> 4 == 6:
        return ping[:7] + b"\x01" + ping[8:]
    return build_ipv4(ping[12:16], ping[16:20], ICMP, ping[IPV4_HEADER:], ttl=1)


def _sequence_of_answer(packet: bytes) -> int | None:
    """The sequence number of our ping that this packet answers or complains about."""
    header = parse_ip_header(packet)
    if header is None or header.protocol not in _REPLIES:
        return None
    message = packet[header.payload_offset :]
    if len(message) >= 8 and message[0] != _REPLIES[header.protocol]:
        quoted = parse_ip_header(message[8:])
        message = message[8 + quoted.payload_offset :] if quoted is not None else b""
    if len(message) < 8 or int.from_bytes(message[4:6]) != IDENTIFIER:
        return None
    return int.from_bytes(message[6:8])
