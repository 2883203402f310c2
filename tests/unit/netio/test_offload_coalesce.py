"""Packets into super-packets: both kernels, by the rules of the kernel's own receive offload."""

from __future__ import annotations

import struct
from itertools import chain
from types import ModuleType

import pytest

from tests.unit.netio.segments import (
    ACK,
    CWR,
    ECE,
    FIN,
    NO_HEADER,
    PSH,
    RST,
    SYN,
    URG,
    Packet,
    payload,
    spoil,
)

DATA = Packet(payload(4000))
TIMESTAMPS = bytes.fromhex("0101080a0000000100000002")
FOUR = DATA.cut(1000)


def alone(packet: bytes | bytearray) -> bytes:
    return NO_HEADER + packet


def following(first: Packet, **changes: object) -> Packet:
    """The flow's next packet, with something changed."""
    numbers = {"seq": first.seq + len(first.payload), "identification": first.identification + 1}
    return first.but(**{**numbers, **changes})


# --- merging --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("is_tcp", [True, False], ids=["tcp", "udp"])
@pytest.mark.parametrize("size", [1001, 2000, 3999, 40_500])
def test_merging_undoes_cutting(kernel: ModuleType, version: int, is_tcp: bool, size: int) -> None:
    packet = Packet(payload(size), version=version, is_tcp=is_tcp)
    assert kernel.coalesce(packet.cut(1000), merge_udp=True) == [packet.super_packet(1000)]


def test_options_and_push_of_the_last_are_kept(kernel: ModuleType) -> None:
    packet = DATA.but(options=TIMESTAMPS, flags=ACK | PSH | ECE, urgent=7)
    assert kernel.coalesce(packet.cut(999)) == [packet.super_packet(999)]


def test_sequence_and_identification_wrap(kernel: ModuleType) -> None:
    packet = DATA.but(seq=0xFFFF_FC00, identification=0xFFFE, fragment=0)
    assert kernel.coalesce(packet.cut(1000)) == [packet.super_packet(1000)]


def test_payloads_are_taken_from_behind_their_prefix(kernel: ModuleType) -> None:
    assert kernel.coalesce([b"\0" + packet for packet in FOUR], skip=1) == [DATA.super_packet(1000)]
    assert kernel.coalesce([b"\0", b"", b"ab" + FOUR[0]], skip=2) == [NO_HEADER, NO_HEADER, alone(FOUR[0])]


def test_a_super_packet_never_exceeds_what_a_length_field_can_say(kernel: ModuleType) -> None:
    for version, most in ((4, 65), (6, 65)):
        packets = Packet(payload(70_000), version=version).cut(1000)
        first, second = kernel.coalesce(packets)
        header_bytes = 40 if version == 4 else 60
        assert len(first) == 10 + header_bytes + most * 1000
        assert kernel.segment([first, second]) == packets


def test_no_more_udp_datagrams_than_any_kernel_takes(kernel: ModuleType) -> None:
    packets = Packet(payload(650), is_tcp=False).cut(5)
    supers = kernel.coalesce(packets, merge_udp=True)
    assert [len(super_packet) for super_packet in supers] == [10 + 28 + 320, 10 + 28 + 320, 10 + 28 + 10]
    assert kernel.segment(supers) == packets


def test_udp_is_left_alone_unless_asked_for(kernel: ModuleType) -> None:
    packets = DATA.but(is_tcp=False).cut(1000)
    assert kernel.coalesce(packets) == list(map(alone, packets))


# --- what ends a super-packet ---------------------------------------------------------------------------------------


def test_a_shorter_segment_is_the_last(kernel: ModuleType) -> None:
    first, second = DATA.but(payload=payload(1500)), DATA.but(payload=payload(2000), seq=2500)
    assert kernel.coalesce(first.cut(1000) + second.cut(1000)) == [first.super_packet(1000), second.super_packet(1000)]


def test_push_ends_a_super_packet(kernel: ModuleType) -> None:
    first, second = DATA.but(payload=payload(2000), flags=ACK | PSH), DATA.but(payload=payload(2000), seq=3000)
    assert kernel.coalesce(first.cut(1000) + second.cut(1000)) == [first.super_packet(1000), second.super_packet(1000)]


def test_a_pushed_packet_does_not_begin_one(kernel: ModuleType) -> None:
    pushed = DATA.but(payload=payload(1000), flags=ACK | PSH)
    next_one = following(pushed, flags=ACK)
    assert kernel.coalesce([bytes(pushed), bytes(next_one)]) == [alone(bytes(pushed)), alone(bytes(next_one))]


def test_a_longer_segment_begins_anew(kernel: ModuleType) -> None:
    short = DATA.but(payload=payload(500))
    long = following(short, payload=payload(2000))
    assert kernel.coalesce([bytes(short), *long.cut(1000)]) == [alone(bytes(short)), long.super_packet(1000)]


ONE = DATA.but(payload=payload(1000))
ONE6 = ONE.but(version=6)
ONE_UDP = ONE.but(is_tcp=False)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ONE, following(ONE, seq=ONE.seq)),
        (ONE, following(ONE, seq=ONE.seq + 1001)),
        (ONE, following(ONE, seq=ONE.seq - 1000)),
        (ONE, following(ONE, ack=2001)),
        (ONE, following(ONE, window=513)),
        (ONE, following(ONE, urgent=1)),
        (ONE, following(ONE, options=TIMESTAMPS)),
        (ONE.but(options=TIMESTAMPS), following(ONE, options=TIMESTAMPS[:-1] + b"\x03")),
        (ONE, following(ONE, flags=ACK | ECE)),
        (ONE, following(ONE, hops=63)),
        (ONE, following(ONE, traffic_class=1)),
        (ONE, following(ONE, traffic_class=3)),
        (ONE, following(ONE, fragment=0)),
        (ONE.but(fragment=0), following(ONE, fragment=0, identification=ONE.identification)),
        (ONE.but(fragment=0), following(ONE, fragment=0, identification=ONE.identification + 2)),
        (ONE6, following(ONE6, hops=63)),
        (ONE6, following(ONE6, traffic_class=1)),
        (ONE6, following(ONE6, flow_label=1)),
        (ONE, following(ONE, ports=(40_000, 444))),
        (ONE, following(ONE, ports=(40_001, 443))),
        (ONE, following(ONE, ports=(443, 40_000))),
        (ONE, following(ONE, source="192.0.2.3")),
        (ONE, following(ONE, destination="192.0.2.3")),
        (ONE6, following(ONE6, destination="2001:db8::3")),
        (ONE, ONE6.but(seq=2000)),
        (ONE, ONE_UDP),
        (ONE_UDP, following(ONE_UDP, traffic_class=2)),
        (ONE_UDP, following(ONE_UDP, payload=payload(1001))),
    ],
)
def test_packets_that_differ_are_not_merged(kernel: ModuleType, first: Packet, second: Packet) -> None:
    pair = [bytes(first), bytes(second)]
    assert kernel.coalesce(pair, merge_udp=True) == list(map(alone, pair))


def test_with_dont_fragment_the_identification_means_nothing(kernel: ModuleType) -> None:
    """RFC 6864 §4.1; several systems send zero in all packets."""
    packets = [bytes(ONE.but(seq=1000 + n * 1000, identification=0)) for n in range(3)]
    [merged] = kernel.coalesce(packets)
    assert len(merged) == 10 + 40 + 3000


@pytest.mark.parametrize("flags", [0, SYN, SYN | ACK, ACK | FIN, ACK | RST, ACK | URG, ACK | CWR, ACK | ECE | CWR])
def test_special_segments_stay_alone_and_in_place(kernel: ModuleType, flags: int) -> None:
    special = bytes(ONE.but(seq=3000, flags=flags, payload=payload(1000)))
    before, after = DATA.but(payload=payload(2000)), DATA.but(payload=payload(2000), seq=4000)
    supers = kernel.coalesce([*before.cut(1000), special, *after.cut(1000)])
    assert supers == [before.super_packet(1000), alone(special), after.super_packet(1000)]
    assert kernel.coalesce([special, special]) == [alone(special)] * 2


def test_accurate_ecn_is_left_alone(kernel: ModuleType) -> None:
    """The AE bit counts (RFC 9768): it may not be repeated or lost."""
    packet = bytearray(bytes(ONE))
    packet[32] |= 1
    packet[36:38] = (int.from_bytes(packet[36:38]) - 0x100).to_bytes(2)
    assert kernel.coalesce([bytes(packet), bytes(following(ONE))]) == [alone(packet), alone(bytes(following(ONE)))]


# --- order ----------------------------------------------------------------------------------------------------------


def test_flows_are_told_apart_and_each_keeps_its_order(kernel: ModuleType) -> None:
    flows = [DATA.but(ports=(port, 443), version=version) for port in (1, 2) for version in (4, 6)]
    mixed = list(chain.from_iterable(zip(*(flow.cut(1000) for flow in flows), strict=True)))
    assert kernel.coalesce(mixed) == [flow.super_packet(1000) for flow in flows]


def test_an_acknowledgement_is_not_overtaken_by_its_flow(kernel: ModuleType) -> None:
    acknowledgement = bytes(DATA.but(payload=b"", seq=3000))
    other = DATA.but(ports=(5, 6))
    batch = [*FOUR[:2], other.cut(1000)[0], acknowledgement, other.cut(1000)[1], *FOUR[2:]]
    assert kernel.coalesce(batch) == [
        DATA.but(payload=DATA.payload[:2000]).super_packet(1000),
        other.but(payload=other.payload[:2000]).super_packet(1000),
        alone(acknowledgement),
        DATA.but(payload=DATA.payload[2000:], seq=3000, identification=0x1002).super_packet(1000),
    ]


def fragment_of(packet: bytes) -> bytes:
    return packet[:6] + b"\x20\x00" + packet[8:]


def with_ip_options(packet: bytes) -> bytes:
    return b"\x46" + packet[1:2] + (len(packet) + 4).to_bytes(2) + packet[4:20] + b"\x01\x01\x01\x00" + packet[20:]


def padded(packet: bytes) -> bytes:
    return packet + b"\0"


def without_tcp(packet: bytes) -> bytes:
    return packet[:2] + (30).to_bytes(2) + packet[4:30]


def with_impossible_offset(packet: bytes) -> bytes:
    return packet[:32] + b"\x40" + packet[33:]


def ping(packet: bytes) -> bytes:
    return packet[:9] + b"\x01" + packet[10:]


@pytest.mark.parametrize(
    "change",
    [fragment_of, with_ip_options, padded, without_tcp, with_impossible_offset, ping],
    ids=lambda f: f.__name__,
)
def test_what_may_belong_to_a_flow_is_not_overtaken_by_it(kernel: ModuleType, change: object) -> None:
    """Its ports are not looked for: all flows between its hosts end their super-packets."""
    odd = change(bytes(following(ONE)))  # type: ignore[operator]
    elsewhere = DATA.but(destination="192.0.2.9")
    supers = kernel.coalesce([FOUR[0], elsewhere.cut(1000)[0], odd, FOUR[1], elsewhere.cut(1000)[1]])
    merged = elsewhere.but(payload=elsewhere.payload[:2000]).super_packet(1000)
    assert supers == [alone(FOUR[0]), merged, alone(odd), alone(FOUR[1])]


@pytest.mark.parametrize(
    "header", [0, 43, 44, 60, 135], ids=["hop-by-hop", "routing", "fragment", "options", "mobility"]
)
def test_ipv6_extension_headers_pass_alone(kernel: ModuleType, header: int) -> None:
    first = ONE6
    plain = bytes(following(first))
    extended = (
        plain[:4] + (len(plain) - 32).to_bytes(2) + bytes((header, 64)) + plain[8:40] + b"\x06" + bytes(7) + plain[40:]
    )
    batch = [bytes(first), extended, plain]
    assert kernel.coalesce(batch) == list(map(alone, batch))


def test_wrong_ipv6_lengths_pass_alone(kernel: ModuleType) -> None:
    batch = [bytes(ONE6), bytes(following(ONE6)) + b"\0", bytes(following(ONE6))]
    assert kernel.coalesce(batch) == list(map(alone, batch))


def test_udp_lengths_that_disagree_pass_alone(kernel: ModuleType) -> None:
    good = bytes(ONE_UDP)
    odd = good[:24] + struct.pack("!H", 1007) + good[26:]
    assert kernel.coalesce([good, odd, good], merge_udp=True) == list(map(alone, [good, odd, good]))


def test_udp_without_checksum_passes_alone(kernel: ModuleType) -> None:
    good = bytes(ONE_UDP)
    none = good[:26] + b"\0\0" + good[28:]
    assert kernel.coalesce([good, none, good], merge_udp=True) == list(map(alone, [good, none, good]))


def test_empty_udp_datagrams_pass_alone(kernel: ModuleType) -> None:
    batch = [bytes(ONE_UDP.but(payload=b""))] * 3
    assert kernel.coalesce(batch, merge_udp=True) == list(map(alone, batch))


def test_what_is_no_ip_packet_passes_unchanged(kernel: ModuleType) -> None:
    batch = [b"", b"\x45", b"\x60" + bytes(38), b"\x00 neither", bytes(70_000)]
    assert kernel.coalesce([FOUR[0], *batch, FOUR[1]]) == [
        DATA.but(payload=DATA.payload[:2000]).super_packet(1000),
        *map(alone, batch),
    ]


def test_the_oldest_group_closes_for_the_thirty_third(kernel: ModuleType) -> None:
    flows = [DATA.but(ports=(port, 443)) for port in range(33)]
    firsts = [flow.cut(1000)[0] for flow in flows]
    seconds = [flow.cut(1000)[1] for flow in (flows[1], flows[0])]
    supers = kernel.coalesce(firsts + seconds)
    assert supers[1] == flows[1].but(payload=DATA.payload[:2000]).super_packet(1000)
    assert [supers[0], *supers[2:]] == list(map(alone, [firsts[0], *firsts[2:], seconds[1]]))


# --- checksums ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("is_tcp", [True, False], ids=["tcp", "udp"])
@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("at", [-1, -1000, -1002], ids=["last byte", "first byte", "transport header"])
def test_a_damaged_packet_goes_alone_as_it_came(
    kernel: ModuleType, version: int, is_tcp: bool, which: int, at: int
) -> None:
    packets = DATA.but(version=version, is_tcp=is_tcp).cut(1000)
    packets[which] = spoil(packets[which], at)
    supers = kernel.coalesce(packets, merge_udp=True)
    assert alone(packets[which]) in supers
    assert kernel.segment(supers) == packets


def test_a_damaged_ip_header_goes_alone_as_it_came(kernel: ModuleType) -> None:
    packets = [FOUR[0], spoil(FOUR[1], 10), *FOUR[2:]]
    assert kernel.coalesce(packets) == [
        alone(FOUR[0]),
        alone(packets[1]),
        DATA.but(payload=DATA.payload[2000:], seq=3000, identification=0x1002).super_packet(1000),
    ]


def test_the_checksum_of_nothing_merged_is_not_looked_at(kernel: ModuleType) -> None:
    damaged = spoil(bytes(ONE), -1)
    assert kernel.coalesce([damaged]) == [alone(damaged)]


# --- mistakes -------------------------------------------------------------------------------------------------------


def test_nothing_gives_nothing(kernel: ModuleType) -> None:
    assert kernel.coalesce([]) == []


def test_a_negative_skip_is_a_mistake(kernel: ModuleType) -> None:
    with pytest.raises(ValueError, match="not negative"):
        kernel.coalesce([b"ab"], skip=-1)


@pytest.mark.parametrize("argument", [["text"], [None], 5, None])
def test_other_than_bytes_is_a_mistake(kernel: ModuleType, argument: object) -> None:
    with pytest.raises(TypeError):
        kernel.coalesce(argument)
