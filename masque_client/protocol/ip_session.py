"""CONNECT-IP (RFC 9484): one tunnel for IP packets, with the addresses and routes both ends tell each other.

Here stands the control side: capsules in, events out, commands. Which packets pass is `ip_filter`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from masque_client.errors import LocalProtocolError, RemoteProtocolError
from masque_client.protocol.capsule import Capsule, CapsuleType
from masque_client.protocol.connect import CONNECT_IP
from masque_client.protocol.drops import DropReason
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.ip_capsules import (
    AssignedAddress,
    IpAddressRange,
    RequestedAddress,
    encode_address_assign,
    encode_address_request,
    encode_route_advertisement,
    find_route_problem,
    parse_address_assign,
    parse_address_request,
    parse_route_advertisement,
)
from masque_client.protocol.ip_filter import PacketFilter
from masque_client.protocol.session import Encapsulated, Role, Session, SessionState

MAX_PACKET = 65_575
"""Largest IP packet: an IPv6 header and 65,535 bytes. IPv4 packets end at 65,535."""
MAX_REQUEST_IDS = 65_536
"""Request IDs are remembered to catch reuse; a peer that uses more than this is not asking for addresses."""


@dataclass(frozen=True, slots=True)
class AddressesAssigned:
    """The peer's complete list of what we may send from; replaces the last one, and empty withdraws everything.

    Rejections are in it (`AssignedAddress.is_rejection`); `ConnectIpSession.assigned` has them removed.
    """

    addresses: tuple[AssignedAddress, ...]


@dataclass(frozen=True, slots=True)
class AddressesRequested:
    """The peer wants addresses: answer every entry, with `assign_addresses` or `reject_addresses`."""

    requests: tuple[RequestedAddress, ...]


@dataclass(frozen=True, slots=True)
class RoutesAdvertised:
    """The peer's complete list of destinations it forwards to; replaces the last one. See `to_prefixes`."""

    ranges: tuple[IpAddressRange, ...]


class ConnectIpSession(Session[AddressesAssigned | AddressesRequested | RoutesAdvertised]):
    """See `Session` for how to drive it.

    Args:
        role: a proxy's session additionally drops packets from sources it did not assign (BCP 38).
        enforce_routes: drop inbound packets to destinations that are neither assigned to us nor advertised by us.
            Only a proxy that leaves this to its own routing turns it off.

    Attributes:
        max_packet: the tunnel MTU in bytes, IP header included; larger packets are answered with Packet Too Big.
            The owner sets it, and again whenever the path changes.
        assigned: what the peer assigned to us: our sources. Rejections are left out.
        routes: what the peer advertised: our destinations.
        granted: what we assigned to the peer.
        advertised: what we advertised to the peer.
    """

    protocol = CONNECT_IP
    known_capsules: ClassVar[Mapping[int, int]] = {
        CapsuleType.DATAGRAM: MAX_PACKET,
        CapsuleType.ADDRESS_ASSIGN: 64 * 1024,
        CapsuleType.ADDRESS_REQUEST: 64 * 1024,
        CapsuleType.ROUTE_ADVERTISEMENT: 256 * 1024,
    }
    skips_long_datagrams = True

    def __init__(self, role: Role, *, enforce_routes: bool = True) -> None:
        super().__init__(role)
        self.max_packet = MAX_PACKET
        self.assigned: tuple[AssignedAddress, ...] = ()
        self.routes: tuple[IpAddressRange, ...] = ()
        self.granted: tuple[AssignedAddress, ...] = ()
        self.advertised: tuple[IpAddressRange, ...] = ()
        self._enforce_routes = enforce_routes
        self._filter = PacketFilter(self.drops)
        self._our_request_ids: set[int] = set()
        self._their_request_ids: set[int] = set()

    # packets -------------------------------------------------------------------------------------------------------

    def encapsulate(self, payloads: Sequence[bytes], now: float = 0.0) -> Encapsulated:
        """Let whole, routed IP packets of at most `max_packet` bytes pass; the others get an ICMP reply at most.

        TTL and Hop Limit stay untouched: the kernel has decremented them for forwarded packets, and must not for local
        ones (RFC 9484 §7.2 leaves this to whoever routes).
        """
        if self.state is not SessionState.OPEN:
            self.drops[DropReason.NOT_OPEN] += len(payloads)
            return Encapsulated([], [])
        return self._filter.filter_outbound(payloads, self.max_packet, now)

    def _decapsulate(self, payloads: Sequence[bytes]) -> list[bytes]:
        return self._filter.filter_inbound(payloads, self._strip_context)

    def _update_filter(self) -> None:
        self._filter.update(
            ours=([entry.prefix for entry in self.assigned], self.advertised),
            theirs=([entry.prefix for entry in self.granted], self.routes),
            check_our_sources=self.role is Role.CLIENT,
            check_their_sources=self.role is Role.PROXY,
            check_our_destinations=self._enforce_routes,
        )

    # commands ------------------------------------------------------------------------------------------------------

    @property
    def next_request_id(self) -> int:
        """The lowest Request ID that `request_addresses` has not used: 1, 2, 3, …"""
        return max(self._our_request_ids, default=0) + 1

    def request_addresses(self, requests: Iterable[RequestedAddress]) -> None:
        """Ask the peer for addresses (RFC 9484 §4.7.2); it may answer with others, or not at all.

        Raises:
            LocalProtocolError: no entries, a Request ID of 0, or one used before on this stream.
        """
        requests = tuple(requests)
        ids = {request.request_id for request in requests}
        if not requests or 0 in ids or len(ids) < len(requests) or ids & self._our_request_ids:
            raise LocalProtocolError("an ADDRESS_REQUEST needs entries with fresh Request IDs")
        self._send(encode_address_request(requests))
        self._our_request_ids |= ids

    def assign_addresses(self, assigned: Iterable[AssignedAddress]) -> None:
        """Tell the peer all it may send from (RFC 9484 §4.7.1). Rejections may be among them and are told once."""
        assigned = tuple(assigned)
        self._send(encode_address_assign(assigned))
        self.granted = tuple(entry for entry in assigned if not entry.is_rejection)
        self._update_filter()

    def reject_addresses(self, requests: Iterable[RequestedAddress]) -> None:
        """Refuse every entry of a request, repeating what is granted already."""
        self.assign_addresses((*self.granted, *(request.reject() for request in requests)))

    def advertise_routes(self, ranges: Iterable[IpAddressRange]) -> None:
        """Tell the peer all destinations we forward to (RFC 9484 §4.7.3).

        Raises:
            LocalProtocolError: out of order or overlapping; sort by `IpAddressRange.sort_key`.
        """
        ranges = tuple(ranges)
        if problem := find_route_problem(ranges):
            raise LocalProtocolError(problem)
        self._send(encode_route_advertisement(ranges))
        self.advertised = ranges
        self._update_filter()

    def _send(self, capsule: bytes) -> None:
        if self.state is not SessionState.OPEN:
            raise LocalProtocolError(f"a session that is {self.state.value} cannot send capsules")
        self._outgoing += capsule

    # capsules ------------------------------------------------------------------------------------------------------

    def _receive_capsule(self, capsule: Capsule) -> None:
        if capsule.type == CapsuleType.ADDRESS_ASSIGN:
            addresses = parse_address_assign(capsule.value)
            self.assigned = tuple(entry for entry in addresses if not entry.is_rejection)
            self._events.append(AddressesAssigned(addresses))
            self._update_filter()
        elif capsule.type == CapsuleType.ADDRESS_REQUEST:
            requests = parse_address_request(capsule.value)
            self._remember_request_ids({request.request_id for request in requests})
            self._events.append(AddressesRequested(requests))
        else:
            self.routes = parse_route_advertisement(capsule.value)
            self._events.append(RoutesAdvertised(self.routes))
            self._update_filter()

    def _remember_request_ids(self, ids: set[int]) -> None:
        if reused := ids & self._their_request_ids:
            raise RemoteProtocolError(f"the Request ID {min(reused)} is used twice", clause="RFC 9484 §4.7.2")
        self._their_request_ids |= ids
        if len(self._their_request_ids) > MAX_REQUEST_IDS:
            raise RemoteProtocolError(
                "the peer never stops requesting addresses",
                clause="RFC 9484 §4.7.2",
                code=H3ErrorCode.H3_EXCESSIVE_LOAD,
            )
