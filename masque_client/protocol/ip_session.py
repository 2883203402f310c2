"""CONNECT-IP (RFC 9484): one tunnel for IP packets, with the addresses and routes both ends tell each other.

Here stands the control side: capsules in, events out, commands. Which packets pass is `ip_filter`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Network
from typing import ClassVar

from masque_client.errors import LocalProtocolError, RemoteProtocolError
from masque_client.protocol.capsule import Capsule, CapsuleType
from masque_client.protocol.connect import CONNECT_IP
from masque_client.protocol.dns_capsules import (
    DRAFT_TYPES,
    AssignedDns,
    DnsAssignment,
    DnsCapsuleTypes,
    Pref64,
    encode_dns_assign,
    encode_pref64,
    parse_dns_assign,
    parse_pref64,
)
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
from masque_client.protocol.ip_ranges import AddressSet
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


@dataclass(frozen=True, slots=True)
class DnsAssigned:
    """Client: the peer's complete DNS for us; replaces the last one. Whether to use it is the owner's decision.

    Comes after the first `RoutesAdvertised`, however the capsules were ordered: without routes nobody can tell whether
    a query to a nameserver would stay in the tunnel (draft-ietf-masque-connect-ip-dns-06 §5).
    """

    dns: DnsAssignment


@dataclass(frozen=True, slots=True)
class Pref64Assigned:
    """Client: the prefixes by which the peer translates to IPv4; replaces the last ones, and empty means none."""

    pref64: Pref64


IpEvent = AddressesAssigned | AddressesRequested | RoutesAdvertised | DnsAssigned | Pref64Assigned
"""What a CONNECT-IP session tells besides opening and closing."""


class ConnectIpSession(Session[IpEvent]):
    """See `Session` for how to drive it.

    Args:
        role: a proxy's session additionally drops packets from sources it did not assign (BCP 38).
        enforce_routes: drop inbound packets to destinations that are neither assigned to us nor advertised by us.
            Only a proxy that leaves this to its own routing turns it off.
        dns_types: the code points of DNS_ASSIGN and PREF64. A proxy's session does not know them in what it receives:
            clients do not configure proxies, and unknown capsules are skipped.

    Attributes:
        max_packet: the tunnel MTU in bytes, IP header included; larger packets are answered with Packet Too Big.
            The owner sets it, and again whenever the path changes.
        assigned: what the peer assigned to us: our sources. Rejections are left out.
        routes: what the peer advertised: our destinations.
        granted: what we assigned to the peer.
        advertised: what we advertised to the peer.
        dns: what the peer assigned to us, as of the last `DnsAssigned`.
        pref64: likewise, of the last `Pref64Assigned`.
    """

    protocol = CONNECT_IP
    known_capsules: ClassVar[Mapping[int, int]] = {
        CapsuleType.DATAGRAM: MAX_PACKET,
        CapsuleType.ADDRESS_ASSIGN: 64 * 1024,
        CapsuleType.ADDRESS_REQUEST: 64 * 1024,
        CapsuleType.ROUTE_ADVERTISEMENT: 256 * 1024,
    }
    skips_long_datagrams = True

    def __init__(self, role: Role, *, enforce_routes: bool = True, dns_types: DnsCapsuleTypes = DRAFT_TYPES) -> None:
        super().__init__(role, dns_types.limits if role is Role.CLIENT else {})
        self.max_packet = MAX_PACKET
        self.assigned: tuple[AssignedAddress, ...] = ()
        self.routes: tuple[IpAddressRange, ...] = ()
        self.granted: tuple[AssignedAddress, ...] = ()
        self.advertised: tuple[IpAddressRange, ...] = ()
        self.dns = DnsAssignment()
        self.pref64 = Pref64()
        self._enforce_routes = enforce_routes
        self._dns_types = dns_types
        self._early_dns: DnsAssignment | None = None
        self._knows_routes = False
        self._has_advertised = False
        self._filter = PacketFilter(self.drops)
        self._assigned_set = self._routes_set = self._granted_set = self._advertised_set = AddressSet()
        self._our_request_ids: set[int] = set()
        self._their_request_ids: set[int] = set()

    # packets -------------------------------------------------------------------------------------------------------

    def encapsulate(self, payloads: Sequence[bytes], now: float = 0.0) -> Encapsulated:
        """Let whole, routed IP packets of at most `max_packet` bytes pass; the others get an ICMP reply at most.

        TTL and Hop Limit stay untouched: the kernel has decremented them for forwarded packets, and must not for local
        ones (RFC 9484 §7.2 leaves this to whoever routes).
        """
        if self.state is not SessionState.OPEN:
            self.drops[DropReason.NOT_OPEN] += self.packing.measure(payloads)[0]
            return Encapsulated([], [])
        return self._filter.filter_outbound(payloads, self.max_packet, now, self.packing)

    def _decapsulate(self, datagrams: Sequence[bytes], skip: int) -> list[bytes]:
        return self._filter.filter_inbound(datagrams, skip, self._strip_context, self.packing)

    def _update_filter(self) -> None:
        self._filter.update(
            ours=(self._assigned_set, self._advertised_set),
            theirs=(self._granted_set, self._routes_set),
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
        self._granted_set = AddressSet(entry.prefix for entry in self.granted)
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
        self._advertised_set = AddressSet(routes=ranges)
        self._has_advertised = True
        self._update_filter()

    def assign_dns(self, configurations: Iterable[AssignedDns]) -> None:
        """Proxy: tell the client all DNS we have for it. After `advertise_routes` (draft §5).

        Raises:
            LocalProtocolError: on a client, before any routes, or something that clients must refuse.
        """
        self._require_proxy("DNS")
        if not self._has_advertised:
            raise LocalProtocolError("DNS is assigned after routes are advertised")
        self._send(encode_dns_assign(configurations, self._dns_types))

    def assign_pref64(self, prefixes: Iterable[IPv6Network]) -> None:
        """Proxy: tell the client all prefixes by which we translate to IPv4; none withdraws those before.

        Raises:
            LocalProtocolError: on a client, or a prefix that cannot translate (RFC 6052 §2.2).
        """
        self._require_proxy("NAT64 prefixes")
        self._send(encode_pref64(prefixes, self._dns_types))

    def _require_proxy(self, what: str) -> None:
        if self.role is Role.CLIENT:
            raise LocalProtocolError(f"a client does not assign {what} to its proxy")

    def _send(self, capsule: bytes) -> None:
        if self.state is not SessionState.OPEN:
            raise LocalProtocolError(f"a session that is {self.state.value} cannot send capsules")
        self._outgoing += capsule

    # capsules ------------------------------------------------------------------------------------------------------

    def _receive_capsule(self, capsule: Capsule) -> None:
        if capsule.type == CapsuleType.ADDRESS_ASSIGN:
            addresses = parse_address_assign(capsule.value)
            self.assigned = tuple(entry for entry in addresses if not entry.is_rejection)
            self._assigned_set = AddressSet(entry.prefix for entry in self.assigned)
            self._events.append(AddressesAssigned(addresses))
            self._update_filter()
        elif capsule.type == CapsuleType.ADDRESS_REQUEST:
            requests = parse_address_request(capsule.value)
            self._remember_request_ids({request.request_id for request in requests})
            self._events.append(AddressesRequested(requests))
        elif capsule.type == CapsuleType.ROUTE_ADVERTISEMENT:
            self.routes = parse_route_advertisement(capsule.value)
            self._routes_set = AddressSet(routes=self.routes)
            self._events.append(RoutesAdvertised(self.routes))
            self._update_filter()
            self._knows_routes = True
            if self._early_dns is not None:
                self._take_dns(self._early_dns)
        elif capsule.type == self._dns_types.dns_assign:
            self._take_dns(parse_dns_assign(capsule.value))
        else:
            self.pref64 = parse_pref64(capsule.value)
            self._events.append(Pref64Assigned(self.pref64))

    def _take_dns(self, dns: DnsAssignment) -> None:
        """Hold the newest until there are routes to judge it by."""
        self._early_dns = None if self._knows_routes else dns
        if self._knows_routes:
            self.dns = dns
            self._events.append(DnsAssigned(dns))

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
