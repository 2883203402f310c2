"""Which packets may pass a CONNECT-IP tunnel, written down a second time, slowly and plainly.

Nothing of `ip_packet`, `ip_ranges` or `ip_filter` is used here, so that a mistake there is not repeated. Each function
returns the rule that a packet breaks, or None.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

ICMP, ICMPV6 = 1, 58
EXTENSIONS = {0, 43, 44, 51, 60, 135, 139, 140}
ALL_NODES = ipaddress.ip_address("ff02::1")


@dataclass(frozen=True)
class Seen:
    """A packet as the rules see it. `protocol` is None for a later IPv6 fragment, which does not say."""

    source: Address
    destination: Address
    protocol: int | None

    @property
    def is_unrestricted(self) -> bool:
        """ICMP passes whatever protocol a route is for (RFC 9484 §4.7.3); of a later fragment nobody can tell."""
        return self.protocol is None or self.protocol == (ICMP if self.source.version == 4 else ICMPV6)


def look(packet: bytes) -> Seen | str:
    """Take a packet apart, or say what makes it none."""
    if len(packet) >= 20 and packet[0] // 16 == 4:
        total, header = packet[2] * 256 + packet[3], packet[0] % 16 * 4
        if total != len(packet) or not 20 <= header <= total:
            return "its lengths are wrong"
        return Seen(ipaddress.IPv4Address(packet[12:16]), ipaddress.IPv4Address(packet[16:20]), packet[9])
    if len(packet) >= 40 and packet[0] // 16 == 6:
        if packet[4] * 256 + packet[5] + 40 != len(packet):
            return "its lengths are wrong"
        addresses = ipaddress.IPv6Address(packet[8:24]), ipaddress.IPv6Address(packet[24:40])
        protocol: int | None = packet[6]
        rest = packet[40:]
        while protocol in EXTENSIONS:
            if len(rest) < 8:
                return "its extension headers are cut"
            if protocol == 43 and rest[2] == 0:
                return "it has a type 0 routing header"
            size = {44: 8, 51: rest[1] * 4 + 8}.get(protocol, rest[1] * 8 + 8)
            is_later_fragment = protocol == 44 and (rest[2] * 256 + rest[3]) // 8 != 0
            protocol = None if is_later_fragment else rest[0]
            if size > len(rest):
                return "its extension headers are cut"
            rest = rest[size:]
        return Seen(*addresses, protocol)
    return "it is no IP packet"


def find_inbound_problem(session, packet: bytes, *, is_proxy: bool) -> str | None:
    """For a packet that a session delivered to this machine."""
    seen = look(packet)
    if isinstance(seen, str):
        return seen
    if _is_never_a_source(seen.source):
        return f"{seen.source} is nobody's address"
    if is_proxy and not _is_behind(seen.source, session.granted, session.routes, None):
        return f"{seen.source} was not assigned to the client"
    if seen.destination == ALL_NODES and seen.is_unrestricted:
        return None
    if _stays_on_its_link(seen.destination):
        return f"{seen.destination} stays on its link"
    protocol = None if seen.is_unrestricted else seen.protocol
    if not _is_behind(seen.destination, session.assigned, session.advertised, protocol):
        return f"{seen.destination} is not ours for protocol {seen.protocol}"
    return None


def find_outbound_problem(session, packet: bytes, *, is_proxy: bool) -> str | None:
    """For a packet that a session let into the tunnel."""
    seen = look(packet)
    if isinstance(seen, str):
        return seen
    if len(packet) > session.max_packet:
        return "it does not fit"
    if _stays_on_its_link(seen.source) or _stays_on_its_link(seen.destination):
        return "it stays on its link"
    if not is_proxy and not _is_behind(seen.source, session.assigned, session.advertised, None):
        return f"{seen.source} is not ours"
    protocol = None if seen.is_unrestricted else seen.protocol
    if not _is_behind(seen.destination, session.granted, session.routes, protocol):
        return f"{seen.destination} is not routed for protocol {seen.protocol}"
    return None


def _is_behind(address: Address, assigned, ranges, protocol: int | None) -> bool:
    if any(address in entry.prefix for entry in assigned):
        return True
    return any(
        route.version == address.version
        and route.start <= address <= route.end
        and (protocol is None or route.protocol in (0, protocol))
        for route in ranges
    )


def _stays_on_its_link(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_link_local or address >= ipaddress.IPv4Address("224.0.0.0")
    return address.is_link_local or address.is_multicast


def _is_never_a_source(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return address.packed[0] in (0, 127) or address >= ipaddress.IPv4Address("224.0.0.0")
    return address.is_multicast or address.is_unspecified or address.is_loopback
