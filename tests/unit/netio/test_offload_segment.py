"""Super-packets into packets: both kernels, byte for byte what a network card would send."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.unit.netio.segments import (
    ACK,
    CWR,
    ECE,
    ECN,
    FIN,
    NEEDS_CSUM,
    NO_HEADER,
    PSH,
    TCPV4,
    TCPV6,
    UDP_L4,
    Packet,
    ones_complement_sum,
    payload,
    virtio,
)

DATA = Packet(payload(3000))
TIMESTAMPS = bytes.fromhex("0101080a00000001 00000002")

# One super-packet and its two segments, in hex; the sums below were added up by hand.
# 192.0.2.1 → 198.51.100.2, DF, id 1, TTL 64; ports 1 → 2, seq 1, ack 2, PSH ACK, window 3, payload 01 02 03 04.
#   IPv4 header of a 42-byte packet: 4500+002a+0001+4000+4006+c000+0201+c633+6402 = 2b167 → b169, complement 4e96
#   pseudo-header, TCP length 24:    c000+0201+c633+6402+0006+0018                = 1ec54 → ec55
#   segment 1, TCP length 22: ec53 + 0001+0002+0000+0001+0000+0002+5010+0003 + 0102 = 13d6e → 3d6f, complement c290
#   segment 2, TCP length 22: ec53 + 0001+0002+0000+0003+0000+0002+5018+0003 + 0304 = 13f7a → 3f7b, complement c084
SUPER = (
    "01 01 2800 0200 1400 1000"
    "4500002c 00014000 40060000 c0000201 c6336402  00010002 00000001 00000002 50180003 ec550000  01020304"
)
SEGMENTS = [
    "4500002a 00014000 40064e96 c0000201 c6336402  00010002 00000001 00000002 50100003 c2900000  0102",
    "4500002a 00024000 40064e95 c0000201 c6336402  00010002 00000003 00000002 50180003 c0840000  0304",
]


def test_a_vector_by_hand(kernel: ModuleType) -> None:
    header = virtio(NEEDS_CSUM, TCPV4, 40, 2, 20, 16)  # the vector's first ten bytes, in this machine's byte order
    super_packet = header + bytes.fromhex(SUPER)[10:]
    assert [segment.hex(" ", 4) for segment in kernel.segment([super_packet])] == [
        bytes.fromhex(segment).hex(" ", 4) for segment in SEGMENTS
    ]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("is_tcp", [True, False], ids=["tcp", "udp"])
@pytest.mark.parametrize("size", [1, 999, 1000, 1001, 3000, 60_001])
def test_segments_are_what_a_card_would_send(kernel: ModuleType, version: int, is_tcp: bool, size: int) -> None:
    packet = Packet(payload(size), version=version, is_tcp=is_tcp)
    assert kernel.segment([packet.super_packet(1000)]) == packet.cut(1000)


def test_options_are_repeated_and_numbers_wrap(kernel: ModuleType) -> None:
    packet = DATA.but(options=TIMESTAMPS, seq=0xFFFF_FF00, identification=0xFFFF)
    segments = kernel.segment([packet.super_packet(1000)])
    assert segments == packet.cut(1000)
    assert [int.from_bytes(segment[4:6]) for segment in segments] == [0xFFFF, 0, 1]
    assert [int.from_bytes(segment[24:28]) for segment in segments] == [0xFFFF_FF00, 744, 1744]


def test_flags_of_the_ends_stay_at_the_ends(kernel: ModuleType) -> None:
    packet = DATA.but(flags=ACK | FIN | PSH | ECE | CWR)
    segments = kernel.segment([packet.super_packet(1000, more_type=ECN)])
    assert [segment[33] for segment in segments] == [ACK | ECE | CWR, ACK | ECE, ACK | ECE | FIN | PSH]
    assert segments == packet.cut(1000)


def test_the_kernels_hint_about_the_headers_is_not_believed(kernel: ModuleType) -> None:
    assert kernel.segment([DATA.super_packet(1000, hdr_len=1040)]) == DATA.cut(1000)


def test_ipv4_options_stay_in_every_segment(kernel: ModuleType) -> None:
    plain = DATA.unfinished()
    packet = b"\x46" + plain[1:2] + (len(plain) + 4).to_bytes(2) + plain[4:20] + b"\x01\x01\x01\x00" + plain[20:]
    segments = kernel.segment([virtio(NEEDS_CSUM, TCPV4, 44, 1000, 24, 16) + packet])
    assert [len(segment) for segment in segments] == [1044] * 3
    assert all(ones_complement_sum(segment[:24]) == 0xFFFF for segment in segments)
    assert [segment[24:] for segment in segments] == [segment[20:] for segment in DATA.cut(1000)]


def test_an_ipv6_routing_header_leaves_the_pseudo_header_alone(kernel: ModuleType) -> None:
    """The pseudo-header names the final destination (RFC 8200 §8.1), which stands in the routing header."""
    packet = DATA.but(version=6)
    plain = packet.unfinished()
    routing = bytes((6, 0, 4, 1)) + bytes(4)
    behind = plain[:4] + (len(plain) - 40 + 8).to_bytes(2) + b"\x2b" + plain[7:40] + routing + plain[40:]
    segments = kernel.segment([virtio(NEEDS_CSUM, TCPV6, 68, 1000, 48, 16) + behind])
    assert [segment[48:] for segment in segments] == [segment[40:] for segment in packet.cut(1000)]
    assert [int.from_bytes(segment[4:6]) for segment in segments] == [1028] * 3


@pytest.mark.parametrize("is_tcp", [True, False], ids=["tcp", "udp"])
@pytest.mark.parametrize("size", [0, 1, 2, 501])
def test_a_checksum_alone_is_completed(kernel: ModuleType, is_tcp: bool, size: int) -> None:
    packet = Packet(payload(size), is_tcp=is_tcp)
    header = virtio(NEEDS_CSUM, 0, 0, 0, packet.ip_bytes, packet.checksum_at - packet.ip_bytes)
    assert kernel.segment([header + packet.unfinished()]) == [bytes(packet)]


def test_a_udp_checksum_is_never_zero(kernel: ModuleType) -> None:
    """Zero means "no checksum" (RFC 768), which IPv6 forbids: the sum's other zero stands for it."""
    packet = Packet(b"\0\0", version=6, is_tcp=False)
    rest = 0xFFFF - ones_complement_sum(bytes(packet)[46:48])
    zero_sum = packet.but(payload=(0xFFFF - rest).to_bytes(2))
    assert bytes(zero_sum)[46:48] == b"\xff\xff"
    assert kernel.segment([zero_sum.super_packet(2)]) == [bytes(zero_sum)]
    assert kernel.segment([virtio(NEEDS_CSUM, 0, 0, 0, 40, 6) + zero_sum.unfinished()]) == [bytes(zero_sum)]


def test_a_finished_packet_passes_as_it_is(kernel: ModuleType) -> None:
    assert kernel.segment([NO_HEADER + bytes(DATA), NO_HEADER + b"anything"]) == [bytes(DATA), b"anything"]


def test_a_batch_keeps_its_order_behind_the_prefix(kernel: ModuleType) -> None:
    batch: list[bytes | bytearray] = [DATA.super_packet(1000), NO_HEADER + b"one", bytearray(DATA.super_packet(2000))]
    expected = [*DATA.cut(1000), b"one", *DATA.cut(2000)]
    assert kernel.segment(batch) == expected
    assert kernel.segment(batch, prefix=b"\0") == [b"\0" + packet for packet in expected]
    assert kernel.segment((memoryview(buffer) for buffer in batch), b"ab") == [b"ab" + packet for packet in expected]
    assert kernel.segment([]) == []


TCP6 = DATA.but(version=6)
UDP4 = DATA.but(is_tcp=False)


@pytest.mark.parametrize(
    ("header", "packet"),
    [
        (virtio(0, TCPV4, 40, 1000, 20, 16), DATA.unfinished()),
        (virtio(NEEDS_CSUM, TCPV4, 40, 0, 20, 16), DATA.unfinished()),
        (virtio(NEEDS_CSUM, TCPV6, 40, 1000, 20, 16), DATA.unfinished()),
        (virtio(NEEDS_CSUM, TCPV4, 60, 1000, 40, 16), TCP6.unfinished()),
        (virtio(NEEDS_CSUM, TCPV6, 60, 1000, 38, 16), TCP6.unfinished()),
        (virtio(NEEDS_CSUM, 3, 28, 1000, 20, 6), UDP4.unfinished()),
        (virtio(NEEDS_CSUM, UDP_L4, 28, 1000, 20, 16), UDP4.unfinished()),
        (virtio(NEEDS_CSUM, TCPV4, 40, 1000, 24, 16), DATA.unfinished()),
        (virtio(NEEDS_CSUM, TCPV4, 40, 1000, 20, 17), DATA.unfinished()),
        (virtio(NEEDS_CSUM, TCPV4, 40, 1000, 20, 16), DATA.unfinished()[:39]),
        (virtio(NEEDS_CSUM, UDP_L4, 40, 1000, 20, 6), UDP4.unfinished()[:27]),
        (virtio(NEEDS_CSUM, TCPV4, 40, 1000, 20, 16), DATA.unfinished()[:32] + b"\x40" + bytes(40)),
        (virtio(NEEDS_CSUM, TCPV4, 40, 1000, 20, 16), DATA.unfinished()[:32] + b"\xf0" + bytes(40)),
        (virtio(NEEDS_CSUM, TCPV4, 40, 1000, 20, 16), b"\x45" + bytes(70_000)),
        (virtio(NEEDS_CSUM, UDP_L4, 40, 1000, 20, 6), b"\x55" + bytes(100)),
        (virtio(NEEDS_CSUM, 0, 0, 0, 90, 9), bytes(100)),
        (virtio(NEEDS_CSUM, 0, 0, 0, 0xFFFF, 0xFFFF), bytes(100)),
        (virtio(NEEDS_CSUM, TCPV4, 40, 1000, 20, 16), b""),
    ],
)
def test_what_makes_no_sense_is_passed_on_whole(kernel: ModuleType, header: bytes, packet: bytes) -> None:
    assert kernel.segment([header + packet], b"p") == [b"p" + packet]


def test_less_than_a_header_is_an_empty_packet(kernel: ModuleType) -> None:
    assert kernel.segment([b"", b"123456789"], b"p") == [b"p", b"p"]


@pytest.mark.parametrize("argument", [[1], ["text"], 5, None])
def test_other_than_bytes_is_a_mistake(kernel: ModuleType, argument: object) -> None:
    with pytest.raises(TypeError):
        kernel.segment(argument)


# --- measure: what segment would make of it --------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("is_tcp", [True, False], ids=["tcp", "udp"])
@pytest.mark.parametrize("size", [0, 1, 1000, 1001, 60_000])
def test_a_super_packet_measures_what_its_segments_do(
    kernel: ModuleType, version: int, is_tcp: bool, size: int
) -> None:
    packet = Packet(payload(size), version=version, is_tcp=is_tcp, options=TIMESTAMPS if is_tcp else b"")
    segments = packet.cut(1000) or [bytes(packet)]
    expected = len(segments), sum(map(len, segments))
    assert kernel.measure([packet.super_packet(1000)]) == expected
    assert kernel.measure([packet.super_packet(1000, hdr_len=1040)]) == expected, "the kernel's hdr_len is a hint"


def test_measures_add_up(kernel: ModuleType) -> None:
    lone = NO_HEADER + bytes(DATA)
    assert kernel.measure([]) == (0, 0)
    assert kernel.measure([lone]) == (1, 3040)
    assert kernel.measure((lone, DATA.super_packet(1000), NO_HEADER)) == (5, 3040 + 3120 + 0)


@pytest.mark.parametrize("nonsense", [b"", b"\1" * 9, virtio(1, TCPV4, 40, 0, 20, 16) + bytes(DATA), bytes(range(40))])
def test_nonsense_measures_as_one_packet(kernel: ModuleType, nonsense: bytes) -> None:
    """It passes whole."""
    assert kernel.measure([nonsense]) == (1, max(0, len(nonsense) - 10))
    assert list(map(len, kernel.segment([nonsense]))) == [max(0, len(nonsense) - 10)]
