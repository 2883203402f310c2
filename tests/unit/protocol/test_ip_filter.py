import ipaddress
from collections import Counter

import pytest

from masque_client.protocol import icmp, ip_filter
from masque_client.protocol.drops import DropReason
from masque_client.protocol.ip_capsules import IpAddressRange
from masque_client.protocol.ip_filter import PacketFilter
from masque_client.protocol.ip_packet import ICMP, ICMPV6, TCP, UDP
from masque_client.protocol.ip_ranges import AddressSet
from masque_client.protocol.varint import parse_varint
from tests.unit.protocol.packets import build, extension, fragment, packed

net = ipaddress.ip_network
ME4, ME6 = "192.0.2.11", "2001:db8:1::11"
THEM4, THEM6 = "198.51.100.2", "2001:db8:2::2"
TCP_ONLY4, TCP_ONLY6 = "203.0.113.9", "2001:db8:3::9"
ELSEWHERE4, ELSEWHERE6 = "10.9.9.9", "2001:db8:f::f"

MINE = [AddressSet([net(f"{ME4}/32"), net(f"{ME6}/128")])]
THEIR_ROUTES = [
    AddressSet(
        routes=(
            IpAddressRange.from_prefix(net("198.51.100.0/24")),
            IpAddressRange.from_prefix(net("203.0.113.0/24"), TCP),
            IpAddressRange.from_prefix(net("2001:db8:2::/48")),
            IpAddressRange.from_prefix(net("2001:db8:3::/48"), TCP),
        )
    )
]


def client():
    packets = PacketFilter(Counter())
    packets.update(ours=MINE, theirs=THEIR_ROUTES)
    return packets


def proxy(**options):
    packets = PacketFilter(Counter())
    packets.update(ours=THEIR_ROUTES, theirs=MINE, check_our_sources=False, check_their_sources=True, **options)
    return packets


def drops_of(packets):
    return dict(packets._drops)


def outbound(packets, *batch, max_packet=65_575, now=0.0):
    """Twice, so that both the first judgement and the remembered one are seen."""
    first = packets.filter_outbound(batch, max_packet, now)
    assert packets.filter_outbound(batch, max_packet, now).send == first.send
    packets._drops.subtract({reason: count // 2 for reason, count in packets._drops.items()})
    return first


def inbound(packets, *batch):
    def strip_context(payload):
        parsed = parse_varint(payload)
        return payload[parsed[1] :] if parsed and parsed[0] == 0 else None

    payloads = [b"\0" + packet for packet in batch]
    first = packets.filter_inbound(payloads, 0, strip_context)
    assert packets.filter_inbound(payloads, 0, strip_context) == first
    packets._drops.subtract({reason: count // 2 for reason, count in packets._drops.items()})
    return first


def fragment_of_v4(packet, offset):
    return packet[:6] + offset.to_bytes(2) + packet[8:]


ALLOWED_OUT = [
    build(ME4, THEM4),
    build(ME6, THEM6),
    build(ME4, THEM4, b"", TCP),
    build(ME4, TCP_ONLY4, b"x", TCP),
    build(ME6, TCP_ONLY6, b"x", TCP),
    build(ME4, TCP_ONLY4, bytes(8), ICMP),  # ICMP passes every route
    build(ME6, TCP_ONLY6, bytes(8), ICMPV6),
    build(ME6, TCP_ONLY6, extension(TCP) + b"x", 0),  # judged by the header behind the extensions
    build(ME6, TCP_ONLY6, fragment(UDP, 7) + b"x", 44),  # a later fragment shows no protocol: addresses decide
    b"\x46" + build(ME4, THEM4, bytes(8))[1:],  # IPv4 options
]


@pytest.mark.parametrize("packet", ALLOWED_OUT)
def test_outbound_packets_that_pass(packet):
    packets = client()
    assert outbound(packets, packet).send == [packet]
    assert not +Counter(drops_of(packets))


REFUSED_OUT = [
    (build(ELSEWHERE4, THEM4), DropReason.SOURCE_NOT_ALLOWED),
    (build(ELSEWHERE6, THEM6), DropReason.SOURCE_NOT_ALLOWED),
    (build(ME4, ELSEWHERE4), DropReason.DESTINATION_NOT_ROUTED),
    (build(ME6, ELSEWHERE6), DropReason.DESTINATION_NOT_ROUTED),
    (build(ME4, TCP_ONLY4, b"x", UDP), DropReason.DESTINATION_NOT_ROUTED),
    (build(ME6, TCP_ONLY6, extension(UDP) + b"x", 0), DropReason.DESTINATION_NOT_ROUTED),
    (build(ME6, TCP_ONLY6, fragment(UDP, 0) + b"x", 44), DropReason.DESTINATION_NOT_ROUTED),
    (build(ME4, "224.0.0.251"), DropReason.LINK_SCOPE),
    (build(ME4, "255.255.255.255"), DropReason.LINK_SCOPE),
    (build(ME4, "169.254.1.1"), DropReason.LINK_SCOPE),
    (build("fe80::1", "ff02::2", bytes(8), ICMPV6), DropReason.LINK_SCOPE),  # a router solicitation
    (build(ME6, "fe80::1"), DropReason.LINK_SCOPE),
    (build(ME6, THEM6, bytes((UDP, 0, 0)) + bytes(5), 43), DropReason.ROUTING_HEADER),
    (b"", DropReason.MALFORMED_PACKET),
    (b"\x45", DropReason.MALFORMED_PACKET),
    (b"\x60" + bytes(30), DropReason.MALFORMED_PACKET),
    (build(ME4, THEM4) + b"x", DropReason.MALFORMED_PACKET),  # outbound lengths must match exactly
    (build(ME6, THEM6) + b"x", DropReason.MALFORMED_PACKET),
    (build(ME4, THEM4)[:-1], DropReason.MALFORMED_PACKET),
    (build(ME6, THEM6)[:-1], DropReason.MALFORMED_PACKET),
    (b"\x75" + build(ME4, THEM4)[1:], DropReason.MALFORMED_PACKET),
]


@pytest.mark.parametrize(("packet", "reason"), REFUSED_OUT)
def test_outbound_packets_that_do_not_pass(packet, reason):
    packets = client()
    good = build(ME4, THEM4)
    assert outbound(packets, good, packet, good).send == [good, good]
    assert +Counter(drops_of(packets)) == {reason: 1}


@pytest.mark.parametrize(
    ("packet", "type_and_code"),
    [
        (build(ELSEWHERE4, THEM4), (3, 13)),
        (build(ME4, ELSEWHERE4), (3, 0)),
        (build(ELSEWHERE6, THEM6), (1, 5)),
        (build(ME6, ELSEWHERE6), (1, 0)),
    ],
)
def test_senders_are_told(packet, type_and_code):
    (reply,) = outbound(client(), packet).replies
    offset = 40 if reply[0] >> 4 == 6 else 20
    assert tuple(reply[offset : offset + 2]) == type_and_code


@pytest.mark.parametrize("packet", [build(ME4, "224.0.0.251"), build(ME4, ELSEWHERE4, b"\x03" + bytes(7), ICMP), b"no"])
def test_some_senders_are_not_told(packet):
    assert outbound(client(), packet).replies == []


def test_replies_are_limited_in_rate():
    packets = client()
    batch = [build(ME4, ELSEWHERE4)] * 100
    assert len(packets.filter_outbound(batch, 1500, 50.0).replies) == 20
    assert len(packets.filter_outbound(batch, 1500, 51.0).replies) == 10


def test_too_big():
    packets = client()
    fits4, fits6 = build(ME4, THEM4, bytes(1380)), build(ME6, THEM6, bytes(1360))
    large4 = build(ME4, THEM4, bytes(1381), dont_fragment=True)
    large6 = build(ME6, THEM6, bytes(1361))
    result = outbound(packets, fits4, large4, fits6, large6, max_packet=1400)
    assert result.send == [fits4, fits6]
    assert +Counter(drops_of(packets)) == {DropReason.TOO_BIG: 2}
    frag_needed, packet_too_big = result.replies
    assert (frag_needed[20:22], frag_needed[26:28]) == (b"\x03\x04", (1400).to_bytes(2))
    assert (packet_too_big[40:42], packet_too_big[44:48]) == (b"\x02\x00", (1400).to_bytes(4))


def test_nothing_passes_before_addresses_and_routes_are_known():
    packets = PacketFilter(Counter())
    assert outbound(packets, build(ME4, THEM4)).send == []
    assert inbound(packets, build(THEM4, ME4)) == []


def test_new_routes_replace_remembered_verdicts():
    packets = client()
    packet, answer = build(ME4, THEM4), build(THEM4, ME4)
    assert outbound(packets, packet).send == [packet]
    assert inbound(packets, answer) == [answer]
    packets.update(ours=(), theirs=THEIR_ROUTES)
    assert outbound(packets, packet).send == []
    assert inbound(packets, answer) == []
    packets.update(ours=MINE, theirs=THEIR_ROUTES)
    assert outbound(packets, packet).send == [packet]


@pytest.mark.parametrize(("mine", "theirs"), [(ME4, THEM4), (ME6, THEM6)])
def test_the_second_packet_of_a_flow_is_only_looked_up(mine, theirs, monkeypatch):
    packets = client()
    packet, answer = build(mine, theirs), build(theirs, mine)
    packets.filter_outbound([packet], 1500, 0.0)
    packets.filter_inbound([b"\0" + answer], 0, lambda _: None)
    monkeypatch.setattr(ip_filter, "parse_ip_header", lambda _: pytest.fail("a known flow was judged again"))
    assert packets.filter_outbound([packet], len(packet), 0.0).send == [packet]
    assert packets.filter_inbound([b"\0" + answer], 0, lambda _: None) == [answer]


def test_remembered_verdicts_are_bounded(monkeypatch):
    monkeypatch.setattr(ip_filter, "MAX_FLOWS", 50)
    packets = client()
    batch = [build(ME4, f"198.51.100.{index}") for index in range(256)]
    assert outbound(packets, *batch).send == batch
    assert len(packets._outbound) <= 50


ALLOWED_IN = [
    build(ELSEWHERE4, ME4),
    build(ELSEWHERE6, ME6),
    build("fe80::1", ME6, bytes(8), ICMPV6),  # ICMP may come from anywhere
    build("fe80::1", "ff02::1", bytes(8), ICMPV6),  # the peer's MTU probe
]


@pytest.mark.parametrize("packet", ALLOWED_IN)
def test_inbound_packets_that_pass(packet):
    packets = client()
    assert inbound(packets, packet) == [packet]
    assert not +Counter(drops_of(packets))


REFUSED_IN = [
    (build(THEM4, ELSEWHERE4), DropReason.DESTINATION_NOT_OURS),
    (build(THEM6, ELSEWHERE6), DropReason.DESTINATION_NOT_OURS),
    (build("127.0.0.1", ME4), DropReason.SOURCE_NOT_ALLOWED),
    (build("224.0.0.1", ME4), DropReason.SOURCE_NOT_ALLOWED),
    (build("::1", ME6), DropReason.SOURCE_NOT_ALLOWED),
    (build("ff02::1", ME6), DropReason.SOURCE_NOT_ALLOWED),
    (build(THEM4, "224.0.0.1"), DropReason.LINK_SCOPE),
    (build(THEM6, "ff02::1", b"x", UDP), DropReason.LINK_SCOPE),
    (build(THEM6, ME6, bytes((UDP, 0, 0)) + bytes(5), 43), DropReason.ROUTING_HEADER),
    (build(THEM4, ME4)[:-1], DropReason.MALFORMED_PACKET),
    (build(THEM6, ME6)[:-1], DropReason.MALFORMED_PACKET),
    (b"", DropReason.MALFORMED_PACKET),
    (b"\x45" * 19, DropReason.MALFORMED_PACKET),
]


@pytest.mark.parametrize(("packet", "reason"), REFUSED_IN)
def test_inbound_packets_that_do_not_pass(packet, reason):
    packets = client()
    good = build(THEM4, ME4)
    assert inbound(packets, good, packet, good) == [good, good]
    assert +Counter(drops_of(packets)) == {reason: 1}


@pytest.mark.parametrize("packet", [build(THEM4, ME4), build(THEM6, ME6)])
def test_link_padding_behind_a_packet_is_cut_off(packet):
    packets = client()
    assert inbound(packets, packet + bytes(6)) == [packet]
    assert drops_of(packets) == {DropReason.TRIMMED: 1}


# --- proxy ---


def test_proxy_drops_spoofed_sources():
    packets = proxy()
    good = build(ME4, THEM4)
    assert inbound(packets, good, build(ELSEWHERE4, THEM4), build("fe80::1", THEM6)) == [good]
    assert +Counter(drops_of(packets)) == {DropReason.SOURCE_NOT_ALLOWED: 2}


def test_proxy_enforces_what_it_advertised():
    packet = build(ME4, ELSEWHERE4)
    wrong_protocol = build(ME4, TCP_ONLY4, b"x", UDP)
    ping = build(ME4, TCP_ONLY4, bytes(8), ICMP)
    packets = proxy()
    assert inbound(packets, packet, wrong_protocol, ping) == [ping]
    assert +Counter(drops_of(packets)) == {DropReason.DESTINATION_NOT_OURS: 2}
    assert inbound(proxy(check_our_destinations=False), packet, wrong_protocol) == [packet, wrong_protocol]


def test_proxy_sends_the_client_only_what_is_for_it():
    packets = proxy()
    good = build(ELSEWHERE4, ME4)
    assert outbound(packets, good, build(ELSEWHERE4, THEM4)).send == [good]
    assert +Counter(drops_of(packets)) == {DropReason.DESTINATION_NOT_ROUTED: 1}


def test_probe_from_the_client_reaches_the_proxy():
    probe = icmp.compose_echo_request(packed(ME6), icmp.ALL_NODES, 1, 1)
    assert inbound(proxy(), probe) == [probe]
