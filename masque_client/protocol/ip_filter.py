"""Which IP packets pass through a CONNECT-IP tunnel, in both directions. Every packet meets this code: it is hot.

Outbound a packet must be whole, fit the tunnel, come from an address that is ours and go where the peer forwards to.
Inbound it must be whole and be for us, and at a proxy come from an address the client was given (RFC 9484 §7.2, §11).
A packet that does not pass is counted, never an error.

The verdict on a flow — addresses and protocol — is computed once and looked up afterwards, so that the common packet
costs a length check and one dictionary lookup. All verdicts are forgotten when addresses or routes change. The same
few lines stand in both loops on purpose: a function call per packet would cost as much as what it does.

A verdict is passed on a buffer, which may hold a run of packets with one header (`packing`): what is judged is the same
for all of them, and a count is of packets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from masque_client.protocol.drops import DropReason
from masque_client.protocol.icmp import ALL_NODES, Problem, TokenBucket, compose_error
from masque_client.protocol.ip_packet import ICMP, ICMPV6, IpHeader, parse_ip_header
from masque_client.protocol.ip_ranges import AddressSet
from masque_client.protocol.packing import ONE_PER_BUFFER, Packing
from masque_client.protocol.session import CONTEXT_ID_0, Encapsulated

MAX_FLOWS = 8192
"""Verdicts remembered per direction. When full all are forgotten: cheaper than choosing, and rare."""

Space = Sequence[AddressSet]
"""The addresses behind one end of the tunnel: those assigned to it, those it advertised. Apart, so that a new list of
one kind need not build the other again: a peer may send the cheap one often."""

_Flow = tuple[int | None, bytes]
"""Protocol (None for a later IPv6 fragment, whose protocol is unknown), then source and destination packed together."""
_Judge = Callable[[bytes, bytes, int | None], DropReason | None]
"""Source, destination, and the protocol that routes may restrict: None for ICMP, which they never do."""

_HEADER_BYTES = 40
"""What is looked at of each packet: an IPv6 header, or an IPv4 header and a little more."""
_IPV4_WITHOUT_OPTIONS = 0x45
_UNKNOWN = DropReason.NOT_OPEN
"""Stands for "no verdict yet" in look-ups: anything but None, which means pass."""

_PROBLEMS = {
    DropReason.SOURCE_NOT_ALLOWED: Problem.SOURCE_NOT_ALLOWED,
    DropReason.DESTINATION_NOT_ROUTED: Problem.NO_ROUTE,
    DropReason.TOO_BIG: Problem.TOO_BIG,
}


class PacketFilter:
    """Judges packets by the addresses and routes that both ends have told each other.

    Args:
        drops: where everything that does not pass is counted.

    Nothing passes before the first `update`.
    """

    def __init__(self, drops: Counter[DropReason]) -> None:
        self._drops = drops
        self._replies_allowed = TokenBucket()
        self._outbound: dict[_Flow, DropReason | None] = {}
        self._inbound: dict[_Flow, DropReason | None] = {}
        self.update(ours=(), theirs=())

    def update(
        self,
        *,
        ours: Space,
        theirs: Space,
        check_our_sources: bool = True,
        check_their_sources: bool = False,
        check_our_destinations: bool = True,
    ) -> None:
        """Take new addresses and routes; verdicts so far are forgotten.

        Args:
            ours: what is behind this end: sources outbound, destinations inbound.
            theirs: what is behind the peer: destinations outbound, sources inbound.
            check_our_sources: outbound packets must come from `ours` (a client; a proxy forwards for the world).
            check_their_sources: inbound packets must come from `theirs` (a proxy, BCP 38).
            check_our_destinations: inbound packets must go to `ours`.
        """
        self._ours = ours
        self._theirs = theirs
        self._check_our_sources = check_our_sources
        self._check_their_sources = check_their_sources
        self._check_our_destinations = check_our_destinations
        self._outbound.clear()
        self._inbound.clear()

    # outbound ------------------------------------------------------------------------------------------------------

    def filter_outbound(
        self, buffers: Sequence[bytes], max_packet: int, now: float, packing: Packing = ONE_PER_BUFFER
    ) -> Encapsulated:
        """Buffers from this machine: which to send, and ICMP for the senders of the others, limited in rate."""
        flows, start = self._outbound, packing.head
        end = start + _HEADER_BYTES
        send: list[bytes] = []
        replies: list[bytes] = []
        for buffer in buffers:
            size = len(buffer) - start
            if size >= 20 and (size <= max_packet or packing.largest(buffer) <= max_packet):
                header = buffer[start:end]
                first = header[0]
                if first == _IPV4_WITHOUT_OPTIONS:
                    if (header[2] << 8 | header[3]) == size and flows.get((header[9], header[12:20]), _UNKNOWN) is None:
                        send.append(buffer)
                        continue
                elif (
                    first >> 4 == 6
                    and (header[4] << 8 | header[5]) + 40 == size
                    and flows.get((header[6], header[8:]), _UNKNOWN) is None
                ):
                    send.append(buffer)
                    continue
            packet, largest = buffer[start:], packing.largest(buffer)
            reason = self._judge_outbound_packet(packet, largest, max_packet)
            if reason is None:
                send.append(buffer)
                continue
            self._drops[reason] += packing.measure([buffer])[0]
            if (reply := self._compose_reply(packet, reason, max_packet, now)) is not None:
                replies.append(reply)
        return Encapsulated(send, replies)

    def _judge_outbound_packet(self, packet: bytes, largest: int, max_packet: int) -> DropReason | None:
        """The whole judgement, for the first packet of a flow and for unusual ones."""
        header = parse_ip_header(packet)
        if header is None or header.total_length != len(packet):
            return DropReason.MALFORMED_PACKET
        reason = self._judge_flow(header, self._outbound, self._judge_outbound)
        return DropReason.TOO_BIG if reason is None and largest > max_packet else reason

    def _judge_outbound(self, source: bytes, destination: bytes, protocol: int | None) -> DropReason | None:
        if _is_link_scope(source) or _is_link_scope(destination):
            return DropReason.LINK_SCOPE
        if self._check_our_sources and not _covers(self._ours, source, None):
            return DropReason.SOURCE_NOT_ALLOWED
        if not _covers(self._theirs, destination, protocol):
            return DropReason.DESTINATION_NOT_ROUTED
        return None

    def _compose_reply(self, packet: bytes, reason: DropReason, max_packet: int, now: float) -> bytes | None:
        problem = _PROBLEMS.get(reason)
        if problem is None:
            return None
        reply = compose_error(packet, problem, mtu=max_packet)
        return reply if reply is not None and self._replies_allowed.take(now) else None

    # inbound -------------------------------------------------------------------------------------------------------

    def filter_inbound(
        self,
        datagrams: Sequence[bytes],
        skip: int,
        strip_context: Callable[[bytes], bytes | None],
        packing: Packing = ONE_PER_BUFFER,
    ) -> list[bytes]:
        """HTTP Datagram Payloads from the peer, behind `skip` bytes: buffers of the packets for this machine.

        Link padding behind a packet is cut off and counted; deployed proxies let it through (RFC 9484 §6).
        """
        flows, start = self._inbound, packing.head
        end = start + _HEADER_BYTES
        deliver: list[bytes] = []
        for buffer in self._strip(datagrams, skip, strip_context, packing):
            size = len(buffer) - start
            if size >= 20:
                header = buffer[start:end]
                first = header[0]
                if first == _IPV4_WITHOUT_OPTIONS:
                    if (header[2] << 8 | header[3]) == size and flows.get((header[9], header[12:20]), _UNKNOWN) is None:
                        deliver.append(buffer)
                        continue
                elif (
                    first >> 4 == 6
                    and (header[4] << 8 | header[5]) + 40 == size
                    and flows.get((header[6], header[8:]), _UNKNOWN) is None
                ):
                    deliver.append(buffer)
                    continue
            self._deliver_unusual(buffer, deliver, packing)
        return deliver

    def _strip(
        self,
        datagrams: Sequence[bytes],
        skip: int,
        strip_context: Callable[[bytes], bytes | None],
        packing: Packing,
    ) -> list[bytes]:
        """Gather the packets behind the Context ID; nearly always it is the single byte 0 in all datagrams."""
        usual = [datagram for datagram in datagrams if datagram.startswith(CONTEXT_ID_0, skip)]
        if len(usual) == len(datagrams):
            return packing.gather(usual, skip + len(CONTEXT_ID_0))
        stripped = (strip_context(datagram[skip:]) for datagram in datagrams)
        return packing.gather([packet for packet in stripped if packet is not None], 0)

    def _deliver_unusual(self, buffer: bytes, deliver: list[bytes], packing: Packing) -> None:
        """The whole judgement, for the first packet of a flow and for unusual ones."""
        packet = buffer[packing.head :]
        header = parse_ip_header(packet)
        if header is None or header.total_length > len(packet):
            self._drops[DropReason.MALFORMED_PACKET] += 1
        elif reason := self._judge_flow(header, self._inbound, self._judge_inbound):
            self._drops[reason] += packing.measure([buffer])[0]
        elif header.total_length < len(packet):
            self._drops[DropReason.TRIMMED] += 1
            deliver.append(buffer[: packing.head + header.total_length])
        else:
            deliver.append(buffer)

    def _judge_inbound(self, source: bytes, destination: bytes, protocol: int | None) -> DropReason | None:
        if _is_impossible_source(source):
            return DropReason.SOURCE_NOT_ALLOWED
        if self._check_their_sources and not _covers(self._theirs, source, None):
            return DropReason.SOURCE_NOT_ALLOWED
        if destination == ALL_NODES and protocol is None:
            return None  # ICMPv6: the peer's MTU probe, which our kernel answers (RFC 9484 §7.2)
        if _is_link_scope(destination):
            return DropReason.LINK_SCOPE
        if self._check_our_destinations and not _covers(self._ours, destination, protocol):
            return DropReason.DESTINATION_NOT_OURS
        return None

    # both ----------------------------------------------------------------------------------------------------------

    def _judge_flow(self, header: IpHeader, flows: dict[_Flow, DropReason | None], judge: _Judge) -> DropReason | None:
        """The verdict on a packet's addresses and protocol, remembered for the next packet of its flow."""
        if header.has_routing_header:
            return DropReason.ROUTING_HEADER
        protocol = None if header.version == 6 and header.is_later_fragment else header.protocol
        flow = (protocol, header.source + header.destination)
        verdict = flows.get(flow, _UNKNOWN)
        if verdict is _UNKNOWN:
            if len(flows) >= MAX_FLOWS:
                flows.clear()
            is_icmp = protocol == (ICMP if header.version == 4 else ICMPV6)
            verdict = judge(header.source, header.destination, None if is_icmp else protocol)
            flows[flow] = verdict
        return verdict


def _covers(space: Space, address: bytes, protocol: int | None) -> bool:
    return any(addresses.covers(address, protocol) for addresses in space)


def _is_link_scope(address: bytes) -> bool:
    """Link-local, multicast or broadcast: never leaves its link (RFC 9484 §7.1, §7.2)."""
    if len(address) == 4:
        return address[0] >= 224 or address[:2] == b"\xa9\xfe"
    return address[0] == 0xFF or (address[0] == 0xFE and address[1] & 0xC0 == 0x80)


def _is_impossible_source(address: bytes) -> bool:
    """Unspecified, loopback, multicast or broadcast: no packet from another machine comes from there."""
    if len(address) == 4:
        return address[0] in (0, 127) or address[0] >= 224
    return address[0] == 0xFF or not any(address[:15])
