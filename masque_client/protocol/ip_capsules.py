"""The three capsules of CONNECT-IP (RFC 9484 §4.7): addresses assigned, addresses requested, routes advertised.

Each is the sender's complete current list and replaces the one before. `parse` takes a capsule's value and raises
`RemoteProtocolError` for anything a specification forbids; `encode` gives the whole capsule.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from masque_client.errors import LocalProtocolError, RemoteProtocolError
from masque_client.protocol.capsule import CapsuleType, encode_capsule
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.scope import IpAddress, IpPrefix
from masque_client.protocol.varint import encode_varint, parse_varint

MAX_INSTALLED_PREFIXES = 4096
"""Routes beyond this many prefixes are not installed: fail closed (a range may need 62 in IPv4, 254 in IPv6)."""

ANY_IPV4: Final = ipaddress.IPv4Network("0.0.0.0/32")
ANY_IPV6: Final = ipaddress.IPv6Network("::/128")
"""In an ADDRESS_REQUEST: one address of this family, whichever. In an ADDRESS_ASSIGN: the request was refused."""

ALL_PROTOCOLS = 0
_ADDRESS_BYTES = {4: 4, 6: 16}


@dataclass(frozen=True, slots=True)
class AssignedAddress:
    """One entry of an ADDRESS_ASSIGN: the receiver may send from any address in `prefix` (RFC 9484 §4.7.1).

    `request_id` names the answered ADDRESS_REQUEST entry; 0 means unprompted.
    """

    request_id: int
    prefix: IpPrefix

    @property
    def is_rejection(self) -> bool:
        """All zeros with full length is a refusal, never an address; 0.0.0.0/0 is something else: any source."""
        return self.prefix in (ANY_IPV4, ANY_IPV6)

    def host_address(self, interface_id: int = 1) -> IpAddress | None:
        """The address to configure: a prefix is a network, and this picks one host in it.

        Args:
            interface_id: 64 random bits, used for IPv6 prefixes of /64 or shorter.

        Returns:
            None for a rejection and for a /0, which assigns no address in particular.
        """
        prefix = self.prefix
        if self.is_rejection or prefix.prefixlen == 0:
            return None
        if prefix.version == 6 and prefix.prefixlen <= 64:
            return prefix.network_address + (interface_id & (1 << 64) - 1)
        has_room = prefix.max_prefixlen - prefix.prefixlen > 1
        return prefix.network_address + 1 if has_room else prefix.network_address

    def encode(self) -> bytes:
        """The entry, without the capsule around it."""
        return _encode_prefix_entry(self.request_id, self.prefix)


@dataclass(frozen=True, slots=True)
class RequestedAddress:
    """One entry of an ADDRESS_REQUEST (RFC 9484 §4.7.2). `ANY_IPV4` and `ANY_IPV6` leave the choice to the peer."""

    request_id: int
    prefix: IpPrefix

    def reject(self) -> AssignedAddress:
        """The entry that refuses this one."""
        return AssignedAddress(self.request_id, ANY_IPV4 if self.prefix.version == 4 else ANY_IPV6)

    def encode(self) -> bytes:
        """The entry, without the capsule around it."""
        return _encode_prefix_entry(self.request_id, self.prefix)


@dataclass(frozen=True, slots=True)
class IpAddressRange:
    """One entry of a ROUTE_ADVERTISEMENT: the sender forwards to `start` … `end`, both included (RFC 9484 §4.7.3).

    `protocol` 0 means all; another allows only that protocol (after IPv6 extension headers), and ICMP always.
    """

    version: int
    start: IpAddress
    end: IpAddress
    protocol: int = ALL_PROTOCOLS

    def __post_init__(self) -> None:
        if not self.version == self.start.version == self.end.version:
            raise LocalProtocolError(f"the range {self.start}-{self.end} mixes IP versions")
        if int(self.start) > int(self.end):
            raise LocalProtocolError(f"the range {self.start}-{self.end} ends before it starts")
        if not 0 <= self.protocol <= 255:
            raise LocalProtocolError(f"{self.protocol} is no IP protocol")

    @classmethod
    def from_prefix(cls, prefix: IpPrefix, protocol: int = ALL_PROTOCOLS) -> IpAddressRange:
        """The range that covers exactly `prefix`."""
        return cls(prefix.version, prefix.network_address, prefix.broadcast_address, protocol)

    def to_prefixes(self) -> Iterator[IpPrefix]:
        """The fewest prefixes that cover the range, lowest first."""
        return ipaddress.summarize_address_range(self.start, self.end)

    @property
    def sort_key(self) -> tuple[int, int, int]:
        """The order on the wire: protocol is more significant than address (RFC 9484 §4.7.3)."""
        return self.version, self.protocol, int(self.start)

    def encode(self) -> bytes:
        """The entry, without the capsule around it."""
        return b"".join((self.version.to_bytes(1), self.start.packed, self.end.packed, self.protocol.to_bytes(1)))

    def __str__(self) -> str:
        suffix = f" protocol {self.protocol}" if self.protocol else ""
        return f"{self.start}-{self.end}{suffix}"


# --- ADDRESS_ASSIGN -----------------------------------------------------------------------------------------------


def parse_address_assign(value: bytes) -> tuple[AssignedAddress, ...]:
    """Parse the value of an ADDRESS_ASSIGN; empty means that everything is withdrawn.

    Raises:
        RemoteProtocolError: RFC 9484 §4.7.1 is violated, or an entry is cut.
    """
    return tuple(AssignedAddress(*entry) for entry in _parse_prefix_entries(value, "RFC 9484 §4.7.1"))


def encode_address_assign(assigned: Iterable[AssignedAddress]) -> bytes:
    """The whole capsule."""
    return encode_capsule(CapsuleType.ADDRESS_ASSIGN, b"".join(entry.encode() for entry in assigned))


# --- ADDRESS_REQUEST ----------------------------------------------------------------------------------------------


def parse_address_request(value: bytes) -> tuple[RequestedAddress, ...]:
    """Parse the value of an ADDRESS_REQUEST. The session checks ids against earlier capsules.

    Raises:
        RemoteProtocolError: RFC 9484 §4.7.2 is violated: cut, empty, an id of 0 or twice the same.
    """
    clause = "RFC 9484 §4.7.2"
    requests = tuple(RequestedAddress(*entry) for entry in _parse_prefix_entries(value, clause))
    if not requests:
        raise RemoteProtocolError("an ADDRESS_REQUEST asks for nothing", clause=clause)
    ids = {request.request_id for request in requests}
    if 0 in ids or len(ids) < len(requests):
        raise RemoteProtocolError("an ADDRESS_REQUEST uses the Request ID 0, or one twice", clause=clause)
    return requests


def encode_address_request(requests: Iterable[RequestedAddress]) -> bytes:
    """The whole capsule."""
    return encode_capsule(CapsuleType.ADDRESS_REQUEST, b"".join(entry.encode() for entry in requests))


# --- ROUTE_ADVERTISEMENT ------------------------------------------------------------------------------------------


def parse_route_advertisement(value: bytes) -> tuple[IpAddressRange, ...]:
    """Parse the value of a ROUTE_ADVERTISEMENT; empty means no routes.

    Raises:
        RemoteProtocolError: RFC 9484 §4.7.3 is violated: cut, out of order, overlapping; names the entry.
    """
    ranges = tuple(_parse_ranges(value))
    if problem := find_route_problem(ranges):
        raise RemoteProtocolError(problem, clause="RFC 9484 §4.7.3")
    return ranges


def encode_route_advertisement(ranges: Iterable[IpAddressRange]) -> bytes:
    """The whole capsule. Put the ranges in order first (`IpAddressRange.sort_key`)."""
    return encode_capsule(CapsuleType.ROUTE_ADVERTISEMENT, b"".join(entry.encode() for entry in ranges))


def find_route_problem(ranges: tuple[IpAddressRange, ...]) -> str | None:
    """The first violation of the order and overlap rules, in words, or None.

    Within one version and protocol the ranges must ascend without sharing an address; a range for all protocols
    must not overlap one for a single protocol.
    """
    for before, after in pairwise(ranges):
        if before.sort_key[:2] > after.sort_key[:2]:
            return f"the route {after} comes after {before}, which sorts behind it"
        if before.sort_key[:2] == after.sort_key[:2] and int(before.end) >= int(after.start):
            return f"the route {after} overlaps {before}, or sorts before it"
    # Ranges for all protocols ascend without overlap, as just checked: of those that start before the end of another,
    # the last one reaches furthest.
    general = [entry for entry in ranges if entry.protocol == ALL_PROTOCOLS]
    starts = [(entry.version, int(entry.start)) for entry in general]
    for current in ranges:
        index = bisect_right(starts, (current.version, int(current.end))) - 1
        if current.protocol == ALL_PROTOCOLS or index < 0 or general[index].version != current.version:
            continue
        if int(general[index].end) >= int(current.start):
            return f"the route {current} overlaps {general[index]}, which is for all protocols"
    return None


def to_prefixes(ranges: Iterable[IpAddressRange], limit: int = MAX_INSTALLED_PREFIXES) -> tuple[IpPrefix, ...]:
    """What to put in a routing table for `ranges`, without duplicates. The protocol is left to the packet filter.

    Raises:
        RemoteProtocolError: more than `limit` prefixes; install none of them.
    """
    prefixes: dict[IpPrefix, None] = {}
    for entry in ranges:
        for prefix in entry.to_prefixes():
            prefixes[prefix] = None
            if len(prefixes) > limit:
                raise RemoteProtocolError(
                    f"the advertised routes need more than {limit} prefixes",
                    clause="RFC 9484 §4.7.3",
                    code=H3ErrorCode.H3_EXCESSIVE_LOAD,
                )
    return tuple(prefixes)


# --- fields -------------------------------------------------------------------------------------------------------


def _encode_prefix_entry(request_id: int, prefix: IpPrefix) -> bytes:
    return b"".join(
        (
            encode_varint(request_id),
            prefix.version.to_bytes(1),
            prefix.network_address.packed,
            prefix.prefixlen.to_bytes(1),
        )
    )


def _parse_prefix_entries(value: bytes, clause: str) -> Iterator[tuple[int, IpPrefix]]:
    """`Request ID (i), IP Version (8), IP Address (32|128), IP Prefix Length (8)`, repeated to the end."""
    offset = 0
    while offset < len(value):
        parsed = parse_varint(value, offset)
        if parsed is None:
            raise RemoteProtocolError("an address entry is cut inside its Request ID", clause=clause)
        request_id, offset = parsed
        address, offset = _parse_address(value, offset + 1, _parse_version(value, offset, clause), clause)
        if offset >= len(value):
            raise RemoteProtocolError(f"the entry for {address} lacks its prefix length", clause=clause)
        length = value[offset]
        if length > address.max_prefixlen:
            raise RemoteProtocolError(f"{address}/{length} is longer than an address", clause=clause)
        try:
            yield request_id, ipaddress.ip_network((address.packed, length))
        except ValueError:
            raise RemoteProtocolError(f"{address}/{length} has bits set beyond its prefix", clause=clause) from None
        offset += 1


def _parse_ranges(value: bytes) -> Iterator[IpAddressRange]:
    """`IP Version (8), Start IP Address (32|128), End IP Address (32|128), IP Protocol (8)`, repeated to the end."""
    clause = "RFC 9484 §4.7.3"
    offset = 0
    while offset < len(value):
        version = _parse_version(value, offset, clause)
        start, offset = _parse_address(value, offset + 1, version, clause)
        end, offset = _parse_address(value, offset, version, clause)
        if offset >= len(value):
            raise RemoteProtocolError(f"the range {start}-{end} lacks its protocol", clause=clause)
        if int(start) > int(end):
            raise RemoteProtocolError(f"the range {start}-{end} ends before it starts", clause=clause)
        yield IpAddressRange(version, start, end, value[offset])
        offset += 1


def _parse_version(value: bytes, offset: int, clause: str) -> int:
    if offset >= len(value):
        raise RemoteProtocolError("an address entry is cut before its IP version", clause=clause)
    if value[offset] not in _ADDRESS_BYTES:
        raise RemoteProtocolError(f"{value[offset]} is no IP version", clause=clause)
    return value[offset]


def _parse_address(value: bytes, offset: int, version: int, clause: str) -> tuple[IpAddress, int]:
    end = offset + _ADDRESS_BYTES[version]
    if end > len(value):
        raise RemoteProtocolError(f"an IPv{version} address is cut", clause=clause)
    # By width: ip_address(bytes) takes 4 bytes for IPv4 and 16 for IPv6.
    return ipaddress.ip_address(value[offset:end]), end
