import pytest

from masque_client.protocol.ip_packet import (
    ICMPV6,
    TCP,
    UDP,
    IpHeader,
    build_ipv4,
    checksum,
    decrement_ttl,
    parse_ip_header,
    pseudo_header,
)
from tests.unit.protocol.packets import build, extension, fragment, packed
from tests.vectors import masque

V4 = bytes.fromhex(masque.PACKET_V4_TTL_64)
A, B = "2001:db8::a", "2001:db8::b"


def test_ipv4_vector():
    header = parse_ip_header(V4)
    assert header == IpHeader(4, packed("192.0.2.11"), packed("198.51.100.2"), UDP, 20, 33)
    assert checksum(V4[:20]) == 0


def test_build_ipv4_vector():
    built = build_ipv4(
        packed("192.0.2.11"), packed("198.51.100.2"), UDP, V4[20:], identification=0x1234, dont_fragment=True
    )
    assert built == V4


def test_pseudo_header_makes_udp_checksums_come_out():
    for packet in (V4, bytes.fromhex(masque.ICMPV6_NO_ROUTE)[48:]):
        header = parse_ip_header(packet)
        assert header is not None
        upper = packet[header.payload_offset :]
        assert checksum(pseudo_header(header.source, header.destination, len(upper), UDP) + upper) == 0


def test_decrement_ttl_vector():
    assert decrement_ttl(V4) == bytes.fromhex(masque.PACKET_V4_TTL_63)


@pytest.mark.parametrize("ttl", range(2, 256))
def test_decrement_keeps_the_checksum_right_for_every_ttl(ttl):
    changed = decrement_ttl(build("192.0.2.11", "198.51.100.2", ttl=ttl))
    assert changed is not None
    assert (changed[8], checksum(changed[:20])) == (ttl - 1, 0)


def test_decrement_at_the_wrap_of_one_complement():
    # A header whose checksum is 0xfeff becomes 0xffff, which is written as 0 like a full computation does.
    for identification in range(0x10000):
        packet = build_ipv4(packed("10.0.0.1"), packed("10.0.0.2"), UDP, b"", identification=identification)
        if packet[10:12] == b"\xfe\xff":
            break
    changed = decrement_ttl(packet)
    assert changed is not None
    assert changed == build_ipv4(
        packed("10.0.0.1"), packed("10.0.0.2"), UDP, b"", identification=identification, ttl=63
    )
    assert changed[10:12] == b"\0\0"


def test_decrement_ipv6_hop_limit():
    changed = decrement_ttl(build(A, B, hop_limit=9))
    assert changed == build(A, B, hop_limit=8)


@pytest.mark.parametrize("hops", [0, 1])
def test_no_hop_left(hops):
    assert decrement_ttl(build("192.0.2.1", "192.0.2.2", ttl=hops)) is None
    assert decrement_ttl(build(A, B, hop_limit=hops)) is None


@pytest.mark.parametrize(
    ("payload", "first", "protocol", "offset"),
    [
        (b"12345678", TCP, TCP, 40),
        (extension(UDP), 0, UDP, 48),
        (extension(60) + extension(UDP, 2), 0, UDP, 40 + 8 + 24),
        (extension(TCP), 135, TCP, 48),
        (extension(TCP), 139, TCP, 48),
        (extension(TCP), 140, TCP, 48),
        (fragment(UDP, 0) + b"12345678", 44, UDP, 48),
        (bytes((TCP, 4)) + bytes(22), 51, TCP, 64),  # AH counts in 4-byte units
        (b"esp-----", 50, 50, 40),
        (b"", 59, 59, 40),
    ],
)
def test_extension_walk(payload, first, protocol, offset):
    header = parse_ip_header(build(A, B, payload, first))
    assert header is not None
    assert (header.protocol, header.payload_offset, header.is_later_fragment) == (protocol, offset, False)


def test_walk_stops_at_a_later_fragment():
    header = parse_ip_header(build(A, B, fragment(UDP, 5) + bytes(8), 44))
    assert header is not None
    assert header.is_later_fragment


def test_ipv4_fragments():
    later = bytearray(build("192.0.2.1", "192.0.2.2"))
    later[6:8] = b"\x20\x05"
    header = parse_ip_header(bytes(later))
    assert header is not None
    assert (header.is_later_fragment, header.protocol) == (True, UDP)


def test_routing_header_type_0_is_noticed():
    type_0 = bytes((UDP, 0, 0)) + bytes(5)
    type_2 = bytes((UDP, 0, 2)) + bytes(5)
    found = [parse_ip_header(build(A, B, routing, 43)) for routing in (type_0, type_2)]
    assert [header and header.has_routing_header for header in found] == [True, False]


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x45",
        V4[:19],
        b"\x44" + V4[1:],  # header of 16 bytes
        b"\x4f" + V4[1:],  # header of 60 bytes in a packet of 33
        V4[:2] + b"\x00\x13" + V4[4:],  # total length below the header
        b"\x55" + V4[1:],
        build(A, B)[:39],
        build(A, B, b"", 0),  # extension promised, none there
        build(A, B, extension(UDP, 3)[:16], 0),  # extension leaves the packet
        build(A, B, extension(60) * 9 + extension(UDP), 60),  # too many
    ],
)
def test_no_packet(packet):
    assert parse_ip_header(packet) is None


def test_total_length_is_what_the_header_says():
    header = parse_ip_header(V4 + b"padding")
    assert header is not None
    assert header.total_length == len(V4)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"", 0xFFFF),
        (b"\0\0", 0xFFFF),
        (b"\xff\xff", 0),
        (b"\x01", 0xFEFF),
        (bytes.fromhex("0001f203f4f5f6f7"), 0x220D),
    ],
)
def test_checksum(data, value):
    assert checksum(data) == value


def test_build_ipv6_length():
    assert build(A, B, bytes(1240), ICMPV6)[4:8] == (1240).to_bytes(2) + bytes((ICMPV6, 64))
