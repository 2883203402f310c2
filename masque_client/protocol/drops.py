"""Why a datagram or packet was not delivered: one word per reason, one counter per word."""

from __future__ import annotations

from enum import StrEnum


class DropReason(StrEnum):
    """Keys of every drop counter. The value is what a person reads in statistics.

    Nothing on the packet's road raises or logs for one packet; it counts here and goes on.
    """

    CONTEXT_CUT = "context-cut"
    """No complete Context ID in an HTTP Datagram (RFC 9298 §5 leaves this open; we drop)."""
    CONTEXT_UNKNOWN = "context-unknown"
    """A Context ID nobody registered (RFC 9298 §4, RFC 9484 §5)."""
    EARLY_OVERFLOW = "early-overflow"
    """More datagrams overtook the response than we keep (RFC 9298 §5)."""
    NOT_OPEN = "not-open"
    """The session is not open, or no longer (RFC 9297 §2.1)."""
    TOO_BIG = "too-big"
    """Larger than the tunnel carries (RFC 9298 §6.1, RFC 9484 §10.1)."""
    MALFORMED_PACKET = "malformed-packet"
    """Not one complete IP packet: version, header length or total length is wrong (RFC 9484 §6)."""
    ROUTING_HEADER = "routing-header"
    """An IPv6 type 0 routing header (RFC 5095)."""
    SOURCE_NOT_ALLOWED = "source-not-allowed"
    """The source is not an address its sender was assigned (RFC 9484 §11, BCP 38)."""
    DESTINATION_NOT_ROUTED = "destination-not-routed"
    """Outbound: in no range the peer advertised, or not for this protocol (RFC 9484 §4.7.3)."""
    DESTINATION_NOT_OURS = "destination-not-ours"
    """Inbound: neither an address we were assigned nor, for this protocol, in a range we advertised (RFC 9484 §11)."""
    LINK_SCOPE = "link-scope"
    """Link-local or multicast traffic does not leave its link (RFC 9484 §7.1)."""
    TRIMMED = "trimmed"
    """Not a drop: bytes behind the packet's own length were cut off and the packet delivered (RFC 9484 §6)."""
