"""A super-packet is judged like the packets it stands for: same packets pass, same ones are counted, nothing else."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from masque_client.engine.datagram_queue import DatagramQueue
from masque_client.netio.packing import SuperPackets
from masque_client.protocol.drops import DropReason
from masque_client.protocol.ip_filter import PacketFilter
from masque_client.protocol.ip_ranges import AddressSet
from masque_client.protocol.packing import ONE_PER_BUFFER
from tests.property.test_offload import FLOWS, SIZES, batches, flow_of, without_meaning
from tests.unit.netio.segments import payload

HERE, THERE = ("192.0.2.1/32", "2001:db8::1/128"), ("198.51.100.2/32", "2001:db8::2/128")
KNOWN = st.sets(st.sampled_from([*HERE, *THERE]))
PREFIXES = st.sampled_from([b"", b"\x00", b"\x05\x00"])


def packet_filter(known: set[str], *, is_client: bool) -> PacketFilter:
    """A filter that knows of some addresses only, at the end where the flows come from or where they go to."""
    packets = PacketFilter(Counter())
    here, there = ([AddressSet(ip_network(each) for each in side if each in known)] for side in (HERE, THERE))
    packets.update(ours=here, theirs=there, check_our_sources=is_client, check_their_sources=not is_client)
    return packets


def drops_of(packets: PacketFilter) -> dict[DropReason, int]:
    return dict(packets._drops)


def one_context(payload: bytes) -> bytes | None:
    """Strip the Context ID 0, also in its longer form; drop others."""
    if payload.startswith(b"\x40\x00"):
        return payload[2:]
    return payload[1:] if payload.startswith(b"\x00") else None


@settings(deadline=None)
@given(batches(), KNOWN, st.booleans(), st.booleans(), st.integers(0, 2), st.data())
def test_inbound(
    batch: list[bytes], known: set[str], is_client: bool, merges_udp: bool, skip: int, data: st.DataObject
) -> None:
    contexts = data.draw(st.sampled_from([[b"\x00"], [b"\x00"], [b"\x00", b"\x40\x00", b"\x05"]]))
    datagrams = [bytes(skip) + contexts[n % len(contexts)] + packet for n, packet in enumerate(batch)]
    plain, packed = (packet_filter(known, is_client=is_client) for _ in range(2))
    packing = SuperPackets(merges_udp=merges_udp)
    for _ in range(2):  # the first judgement of a flow, and the remembered one
        expected = plain.filter_inbound(datagrams, skip, one_context)
        buffers = packed.filter_inbound(datagrams, skip, one_context, packing)
        delivered = packing.split(buffers, b"")
        assert drops_of(packed) == drops_of(plain)
        assert sorted(map(without_meaning, delivered)) == sorted(map(without_meaning, expected))
        for flow in {flow_of(packet) for packet in expected}:
            assert [without_meaning(each) for each in delivered if flow_of(each) == flow] == [
                without_meaning(each) for each in expected if flow_of(each) == flow
            ]
        assert packing.measure(buffers) == (len(expected), sum(map(len, expected)))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(FLOWS), st.integers(0, 600), SIZES), max_size=4),
    KNOWN,
    st.booleans(),
    st.integers(20, 200),
    PREFIXES,
)
def test_outbound(
    runs: list[tuple[object, int, int]], known: set[str], is_client: bool, max_packet: int, prefix: bytes
) -> None:
    packing = SuperPackets(merges_udp=True)
    supers = [flow.but(payload=payload(size)).super_packet(segment) for flow, size, segment in runs]  # type: ignore[attr-defined]
    singles = packing.split(supers, b"")
    plain, packed = (packet_filter(known, is_client=is_client) for _ in range(2))
    for now in (0.0, 100.0):  # time enough for the limit of the replies
        passed = packed.filter_outbound(supers, max_packet, now, packing)
        expected = [
            packet
            for buffer in supers
            for packet in _unless_one_is_too_big(plain, packing.split([buffer], b""), max_packet, now)
        ]
        assert packing.split(passed.send, prefix) == [prefix + packet for packet in expected]
        assert drops_of(packed) == drops_of(plain)
        assert len(passed.replies) <= len(supers)
    assert packing.measure(supers)[0] == len(singles)
    assert all(packing.largest(each) == max(map(len, packing.split([each], b""))) for each in supers)


def _unless_one_is_too_big(plain: PacketFilter, packets: list[bytes], max_packet: int, now: float) -> list[bytes]:
    """What passes one by one; of a run whose first packet is too big the shorter last one goes with it."""
    passed = plain.filter_outbound(packets, max_packet, now).send
    if len(passed) < len(packets):
        reason = DropReason.TOO_BIG if passed else None
        if reason is not None:
            plain._drops[reason] += len(passed)
        return []
    return passed


@given(st.lists(st.tuples(st.sampled_from(FLOWS), st.integers(1, 600), SIZES), max_size=6), PREFIXES, st.data())
def test_the_queue_takes_buffers_whole(runs: list[tuple[object, int, int]], prefix: bytes, data: st.DataObject) -> None:
    packing = SuperPackets(merges_udp=True)
    supers = [flow.but(payload=payload(size)).super_packet(segment) for flow, size, segment in runs]  # type: ignore[attr-defined]
    limit = data.draw(st.integers(0, 200))
    queue = DatagramQueue(data.draw(st.integers(1, 2000)), 0.05)
    taken = queue.put_split(packing.split, prefix, supers, limit, now=1.0)
    packets = packing.split(supers[:taken], b"")
    fitting = [prefix + packet for packet in packets if len(packet) <= limit]
    assert list(queue.items) == fitting
    assert queue.waiting_bytes == sum(map(len, fitting))
    assert queue.too_large == len(packets) - len(fitting)
    assert taken == len(supers) or queue.is_full
    queue.expire(1.05)
    assert queue.expired == len(fitting)
    assert not queue.items


def test_a_plain_buffer_is_its_packet() -> None:
    packet = ip_address("192.0.2.1").packed * 10
    assert ONE_PER_BUFFER.measure([packet, packet]) == (2, 80)
    assert ONE_PER_BUFFER.split([packet], b"x") == [b"x" + packet]
    assert ONE_PER_BUFFER.gather([b"ab" + packet], 2) == [packet]
