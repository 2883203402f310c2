"""The offload kernels against each other, and merging against cutting.

Batches are made of a few flows whose packets mostly follow each other, so that merging happens, and are then damaged.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque_client.netio.offload import python_kernel
from tests.unit.netio.segments import ACK, CWR, ECE, ECN, FIN, PSH, Packet, payload, virtio

compiled = pytest.importorskip(
    "masque_client.netio.offload._compiled", reason="NEEDS a C compiler at installation: no parity to test"
)

quick = settings(derandomize=True, deadline=None, max_examples=100, database=None)

SIZES = st.sampled_from([1, 2, 3, 20, 100, 101])
FLAGS = st.sampled_from([ACK] * 6 + [ACK | PSH, ACK | ECE, ACK | FIN, ACK | CWR])
FLOWS = [
    Packet(version=version, is_tcp=is_tcp, ports=(port, 443))
    for version in (4, 6)
    for is_tcp in (True, False)
    for port in (1, 2)
]


@st.composite
def trains(draw: st.DrawFn) -> list[bytes]:
    """A run of packets of one flow: a whole train, perhaps with changes in the middle."""
    flow = draw(st.sampled_from(FLOWS))
    start = draw(st.sampled_from([0, 1000, 2**32 - 150]))
    fragment = draw(st.sampled_from([0x4000, 0x4000, 0, 0x2000]))
    train = flow.but(
        payload=payload(draw(st.integers(0, 600)), draw(st.integers(0, 255))),
        seq=start,
        identification=draw(st.sampled_from([0, 7, 0xFFFE])),
        fragment=fragment,
        flags=draw(FLAGS),
        window=draw(st.sampled_from([500, 501])),
        options=draw(st.sampled_from([b"", b"", bytes.fromhex("0101080a0000000100000002")])),
        traffic_class=draw(st.sampled_from([0, 0, 1, 2])),
    )
    return train.cut(draw(SIZES)) or [bytes(train)]


@st.composite
def damaged(draw: st.DrawFn, packets: list[bytes]) -> list[bytes]:
    """The batch with some bytes changed, some packets cut, doubled, swapped or strange."""
    batch = list(packets)
    for _ in range(draw(st.integers(0, 4)) if batch else 0):
        at = draw(st.integers(0, len(batch) - 1))
        packet = bytearray(batch[at])
        match draw(st.integers(0, 4)):
            case 0 if packet:
                packet[draw(st.integers(0, min(len(packet) - 1, 70)))] = draw(st.integers(0, 255))
                batch[at] = bytes(packet)
            case 1:
                batch[at] = bytes(packet[: draw(st.integers(0, len(packet)))])
            case 2:
                batch.insert(at, batch[draw(st.integers(0, len(batch) - 1))])
            case 3:
                other = draw(st.integers(0, len(batch) - 1))
                batch[at], batch[other] = batch[other], batch[at]
            case _:
                batch.insert(at, draw(st.binary(max_size=80)))
    return batch


@st.composite
def batches(draw: st.DrawFn) -> list[bytes]:
    chosen = draw(st.lists(trains(), max_size=5))
    if draw(st.booleans()):
        mixed = [packet for train in chosen for packet in train]
    else:  # one packet of each in turn
        rounds = range(max(map(len, chosen), default=0))
        mixed = [train[turn] for turn in rounds for train in chosen if turn < len(train)]
    return draw(damaged(mixed))


@st.composite
def supers(draw: st.DrawFn) -> bytes:
    """A super-packet, valid or nearly so."""
    packet = draw(st.sampled_from(FLOWS)).but(
        payload=payload(draw(st.integers(0, 600))),
        flags=draw(st.integers(0, 255)),
        seq=draw(st.sampled_from([0, 2**32 - 150])),
        identification=draw(st.sampled_from([0, 0xFFFE])),
        options=draw(st.sampled_from([b"", bytes.fromhex("0101080a0000000100000002")])),
    )
    valid = packet.super_packet(draw(SIZES), more_type=draw(st.sampled_from([0, ECN])))
    [changed] = draw(damaged([valid]))[:1] or [valid]
    if draw(st.booleans()):
        numbers = st.sampled_from([0, 1, 6, 8, 16, 20, 40, 41, 60, 100, 0xFFFF])
        types = st.sampled_from([0, 1, 3, 4, 5, 0x80, 0x81, 0xFF])
        header = virtio(draw(st.integers(0, 3)), draw(types), *(draw(numbers) for _ in range(4)))
        changed = header + changed[10:]
    return changed


@quick
@given(st.lists(supers(), max_size=3), st.binary(max_size=2))
def test_both_kernels_cut_alike(batch: list[bytes], prefix: bytes) -> None:
    assert compiled.segment(batch, prefix) == python_kernel.segment(batch, prefix)


@quick
@given(st.lists(st.binary(max_size=120), max_size=3))
def test_both_kernels_cut_noise_alike(batch: list[bytes]) -> None:
    assert compiled.segment(batch) == python_kernel.segment(batch)


@quick
@given(st.lists(supers() | st.binary(max_size=120), max_size=3))
def test_both_kernels_measure_what_they_cut(batch: list[bytes]) -> None:
    packets = compiled.segment(batch)
    expected = len(packets), sum(map(len, packets))
    assert compiled.measure(batch) == expected
    assert python_kernel.measure(batch) == expected


@quick
@given(batches(), st.integers(0, 2), st.booleans())
def test_both_kernels_merge_alike(batch: list[bytes], skip: int, merge_udp: bool) -> None:
    payloads = [b"\0" * skip + packet for packet in batch]
    merged = compiled.coalesce(payloads, skip, merge_udp)
    assert merged == python_kernel.coalesce(payloads, skip, merge_udp)
    assert all(len(super_packet) <= 10 + 65_535 for super_packet in merged)


@quick
@given(st.lists(st.binary(max_size=120), max_size=6), st.integers(0, 100), st.booleans())
def test_both_kernels_merge_noise_alike(batch: list[bytes], skip: int, merge_udp: bool) -> None:
    assert compiled.coalesce(batch, skip, merge_udp) == python_kernel.coalesce(batch, skip, merge_udp)


@quick
@given(batches())
def test_merging_loses_nothing_and_keeps_the_order_of_each_flow(batch: list[bytes]) -> None:
    """Cutting what was merged gives the same packets: all of them, each flow's in the order they came."""
    again = compiled.segment(compiled.coalesce(batch, 0, True))
    assert sorted(map(without_meaning, again)) == sorted(map(without_meaning, batch))
    for flow in {flow_of(packet) for packet in batch}:
        assert [without_meaning(packet) for packet in again if flow_of(packet) == flow] == [
            without_meaning(packet) for packet in batch if flow_of(packet) == flow
        ]


def flow_of(packet: bytes) -> bytes:
    """Anything that packets of one flow have in common; packets that are none are a flow each."""
    if packet[:1] == b"\x45" and len(packet) >= 24:
        return packet[9:10] + packet[12:24]
    if packet[:1] == b"\x60" and len(packet) >= 44:
        return packet[6:7] + packet[8:44]
    return packet


def without_meaning(packet: bytes) -> bytes:
    """Without the identification where Don't Fragment is set, and its checksum: merging may rewrite it (RFC 6864)."""
    if packet[:1] == b"\x45" and len(packet) >= 20 and packet[6] & 0x40:
        return packet[:4] + packet[6:10] + packet[12:]
    return packet
