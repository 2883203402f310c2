"""ICMP inside the tunnel: tell a sender why its packet was dropped, and probe with echo (RFC 9484 §7.2).

Errors follow RFC 792, RFC 1191 and RFC 1812 §4.3.2 for IPv4 and RFC 4443 for IPv6, including when to stay silent.
Callers limit their rate with a `TokenBucket`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from masque_client.protocol.ip_packet import (
    ICMP,
    ICMPV6,
    IPV6_HEADER,
    IpHeader,
    build_ipv4,
    build_ipv6,
    checksum,
    parse_ip_header,
    pseudo_header,
)
from masque_client.protocol.mtu import MIN_IPV6_MTU

ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
"""ff02::1, where a peer of unknown address is probed (RFC 9484 §7.2)."""
MTU_PROBE_DATA = MIN_IPV6_MTU - IPV6_HEADER - 8
"""Echo data that makes a probe of exactly 1280 bytes (RFC 9484 §7.2)."""

_MAX_IPV4_ERROR = 576
_V4_ECHO_REQUEST, _V4_ECHO_REPLY, _V6_ECHO_REQUEST, _V6_ECHO_REPLY = 8, 0, 128, 129
_V4_ERRORS = frozenset({3, 4, 5, 11, 12})
_V6_REDIRECT = 137


class Problem(Enum):
    """Why a packet is not forwarded: `(ICMPv4 type, code, ICMPv6 type, code)`, the table of RFC 9484 §7.2.1."""

    SOURCE_NOT_ALLOWED = (3, 13, 1, 5)
    NO_ROUTE = (3, 0, 1, 0)
    PROHIBITED = (3, 13, 1, 1)
    TOO_BIG = (3, 4, 2, 0)
    TIME_EXCEEDED = (11, 0, 3, 0)


@dataclass(frozen=True, slots=True)
class EchoReply:
    """An answer to `compose_echo_request`. Addresses are packed."""

    source: bytes
    destination: bytes
    identifier: int
    sequence: int
    data: bytes


class TokenBucket:
    """At most `rate` events per second on average and `burst` at once (RFC 4443 §2.4 (f) asks for one)."""

    def __init__(self, rate: float = 10.0, burst: int = 20) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._updated_at: float | None = None

    def take(self, now: float) -> bool:
        """Use one token if there is one at `now` (seconds of a monotonic clock)."""
        if self._updated_at is not None and now > self._updated_at:
            self._tokens = min(self._burst, self._tokens + (now - self._updated_at) * self._rate)
        self._updated_at = now if self._updated_at is None else max(now, self._updated_at)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


# --- errors -------------------------------------------------------------------------------------------------------


def compose_error(offender: bytes, problem: Problem, *, source: bytes | None = None, mtu: int = 0) -> bytes | None:
    """The ICMP error that tells the sender of `offender` about `problem`.

    Args:
        offender: the packet that is dropped; at least its IP header and 8 bytes.
        source: packed address to answer from; the offender's destination when None.
        mtu: for `TOO_BIG`: the largest IP packet that would have fitted, in bytes.

    Returns:
        None when the standards forbid or deny an answer: see `is_answerable`. An IPv4 packet that may be fragmented is
        never too big for an answer, and IPv6 is not told of an MTU below 1280.
    """
    header = parse_ip_header(offender)
    if header is None or not is_answerable(offender, header, problem):
        return None
    origin = header.destination if source is None else source
    if header.version == 4:
        return _compose_ipv4_error(offender, header, problem, origin, mtu)
    return _compose_ipv6_error(offender, header, problem, origin, mtu)


def is_answerable(packet: bytes, header: IpHeader, problem: Problem) -> bool:
    """Whether an ICMP error may be sent about a packet (RFC 1812 §4.3.2.7, RFC 4443 §2.4 (e)).

    Never about an ICMP error or redirect, nor what may be one; to a source that is no single host; about a packet to
    many hosts (except an IPv6 Packet Too Big, which multicast path MTU discovery needs); about a later fragment.
    """
    if header.is_later_fragment or _is_icmp_error(packet, header) or not _is_unicast(header.source):
        return False
    return _is_unicast(header.destination) or (header.version == 6 and problem is Problem.TOO_BIG)


def _is_icmp_error(packet: bytes, header: IpHeader) -> bool:
    if header.protocol != (ICMP if header.version == 4 else ICMPV6):
        return False
    if header.payload_offset >= len(packet):
        return True  # its type is not there to see
    type_ = packet[header.payload_offset]
    return type_ in _V4_ERRORS if header.version == 4 else type_ < 128 or type_ == _V6_REDIRECT


def _is_unicast(address: bytes) -> bool:
    if len(address) == 4:
        return 0 < address[0] < 224
    return address[0] != 0xFF and any(address)


def _compose_ipv4_error(offender: bytes, header: IpHeader, problem: Problem, source: bytes, mtu: int) -> bytes | None:
    if problem is Problem.TOO_BIG and not offender[6] & 0x40:
        return None
    kind, code, _, _ = problem.value
    rest = min(mtu, 0xFFFF).to_bytes(4)  # 16 unused bits, next-hop MTU (RFC 1191 §4)
    quoted = offender[: _MAX_IPV4_ERROR - 20 - 8]
    message = bytes((kind, code, 0, 0)) + rest + quoted
    message = message[:2] + checksum(message).to_bytes(2) + message[4:]
    return build_ipv4(source, header.source, ICMP, message)


def _compose_ipv6_error(offender: bytes, header: IpHeader, problem: Problem, source: bytes, mtu: int) -> bytes | None:
    if problem is Problem.TOO_BIG and len(offender) <= MIN_IPV6_MTU:
        return None
    _, _, kind, code = problem.value
    rest = (max(mtu, MIN_IPV6_MTU) if problem is Problem.TOO_BIG else 0).to_bytes(4)
    quoted = offender[: MIN_IPV6_MTU - IPV6_HEADER - 8]
    return _build_icmpv6(source, header.source, bytes((kind, code, 0, 0)) + rest + quoted)


# --- echo ---------------------------------------------------------------------------------------------------------


def compose_echo_request(
    source: bytes, destination: bytes, identifier: int, sequence: int, data: bytes = bytes(MTU_PROBE_DATA)
) -> bytes:
    """A ping, ICMPv4 or ICMPv6 by the width of the packed addresses. The default data makes 1280 bytes of IPv6."""
    rest = identifier.to_bytes(2) + sequence.to_bytes(2) + data
    kind = _V4_ECHO_REQUEST if len(source) == 4 else _V6_ECHO_REQUEST
    return _compose_echo(source, destination, kind, rest)


def compose_echo_reply(request: bytes, *, source: bytes | None = None) -> bytes | None:
    """Answer a ping from `source`, or from the address it went to; None when `request` is no unfragmented ping."""
    found = _parse_echo(request, _V4_ECHO_REQUEST, _V6_ECHO_REQUEST)
    if found is None:
        return None
    header, message = found
    kind = _V4_ECHO_REPLY if header.version == 4 else _V6_ECHO_REPLY
    return _compose_echo(header.destination if source is None else source, header.source, kind, message[4:])


def parse_echo_reply(packet: bytes) -> EchoReply | None:
    """The reply to a ping, checksum verified; None for any other packet."""
    found = _parse_echo(packet, _V4_ECHO_REPLY, _V6_ECHO_REPLY)
    if found is None:
        return None
    header, message = found
    return EchoReply(
        source=header.source,
        destination=header.destination,
        identifier=int.from_bytes(message[4:6]),
        sequence=int.from_bytes(message[6:8]),
        data=message[8:],
    )


def _parse_echo(packet: bytes, v4_type: int, v6_type: int) -> tuple[IpHeader, bytes] | None:
    header = parse_ip_header(packet)
    if header is None or header.is_later_fragment or header.total_length > len(packet):
        return None
    message = packet[header.payload_offset : header.total_length]
    if len(message) < 8 or message[1] != 0:
        return None
    if header.version == 4:
        is_wanted = header.protocol == ICMP and message[0] == v4_type and checksum(message) == 0
    else:
        covered = pseudo_header(header.source, header.destination, len(message), ICMPV6) + message
        is_wanted = header.protocol == ICMPV6 and message[0] == v6_type and checksum(covered) == 0
    return (header, message) if is_wanted else None


def _compose_echo(source: bytes, destination: bytes, kind: int, rest: bytes) -> bytes:
    message = bytes((kind, 0, 0, 0)) + rest
    if len(source) == 4:
        return build_ipv4(source, destination, ICMP, message[:2] + checksum(message).to_bytes(2) + message[4:])
    return _build_icmpv6(source, destination, message)


def _build_icmpv6(source: bytes, destination: bytes, message: bytes) -> bytes:
    """Fill in the checksum, which covers the pseudo-header (RFC 4443 §2.3), and put the IPv6 header before it."""
    total = checksum(pseudo_header(source, destination, len(message), ICMPV6) + message)
    return build_ipv6(source, destination, ICMPV6, message[:2] + total.to_bytes(2) + message[4:])
