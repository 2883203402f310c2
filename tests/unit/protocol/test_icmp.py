import pytest

from masque_client.protocol import icmp
from masque_client.protocol.icmp import Problem, TokenBucket, compose_error
from masque_client.protocol.ip_packet import ICMP, ICMPV6, TCP, UDP, checksum, parse_ip_header
from tests.unit.protocol.packets import build, fragment, packed
from tests.vectors import masque

HOST4, TARGET4, ROUTER4 = "192.0.2.11", "198.51.100.2", "203.0.113.1"
HOST6, TARGET6, ROUTER6 = "2001:db8:1234::a", "2001:db8:dead::1", "2001:db8:ffff::1"
TABLE = {
    Problem.SOURCE_NOT_ALLOWED: ((3, 13), (1, 5)),
    Problem.NO_ROUTE: ((3, 0), (1, 0)),
    Problem.PROHIBITED: ((3, 13), (1, 1)),
    Problem.TIME_EXCEEDED: ((11, 0), (3, 0)),
}


def large(source, destination, **options):
    return build(source, destination, bytes(1500), **options)


def test_fragmentation_needed_vector():
    expected = bytes.fromhex(masque.ICMPV4_FRAGMENTATION_NEEDED)
    offender = expected[28:]
    assert compose_error(offender, Problem.TOO_BIG, source=packed(ROUTER4), mtu=1280) == expected


def test_no_route_vector():
    expected = bytes.fromhex(masque.ICMPV6_NO_ROUTE)
    assert compose_error(expected[48:], Problem.NO_ROUTE, source=packed(ROUTER6)) == expected


@pytest.mark.parametrize(("problem", "types"), TABLE.items())
def test_types_and_codes(problem, types):
    v4 = compose_error(build(HOST4, TARGET4), problem)
    v6 = compose_error(build(HOST6, TARGET6), problem)
    assert v4 is not None
    assert v6 is not None
    assert (tuple(v4[20:22]), tuple(v6[40:42])) == types
    assert checksum(v4[20:]) == 0
    assert v4[24:28] == v6[44:48] == bytes(4)


def test_source_is_the_offenders_destination_unless_given():
    error = compose_error(build(HOST4, TARGET4), Problem.NO_ROUTE)
    header = parse_ip_header(error or b"")
    assert header is not None
    assert (header.source, header.destination) == (packed(TARGET4), packed(HOST4))


def test_quotes_are_bounded():
    v4 = compose_error(large(HOST4, TARGET4, dont_fragment=True), Problem.TOO_BIG, mtu=1400)
    v6 = compose_error(large(HOST6, TARGET6), Problem.TOO_BIG, mtu=1400)
    assert v4 is not None
    assert v6 is not None
    assert (len(v4), len(v6)) == (576, 1280)
    assert (v4[26:28], v6[44:48]) == ((1400).to_bytes(2), (1400).to_bytes(4))


def test_too_big_ipv4_that_may_be_fragmented_gets_no_answer():
    assert compose_error(large(HOST4, TARGET4), Problem.TOO_BIG, mtu=1400) is None


def test_ipv6_never_hears_of_less_than_1280():
    error = compose_error(large(HOST6, TARGET6), Problem.TOO_BIG, mtu=1000)
    assert error is not None
    assert error[44:48] == (1280).to_bytes(4)
    assert compose_error(build(HOST6, TARGET6, bytes(1240)), Problem.TOO_BIG, mtu=1000) is None
    assert compose_error(build(HOST6, TARGET6, bytes(1241)), Problem.TOO_BIG, mtu=1000) is not None


@pytest.mark.parametrize("kind", [3, 4, 5, 11, 12])
def test_icmpv4_errors_are_never_answered(kind):
    assert compose_error(build(HOST4, TARGET4, bytes((kind,)) + bytes(7), ICMP), Problem.NO_ROUTE) is None


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 100, 127, 137])
def test_icmpv6_errors_are_never_answered(kind):
    assert compose_error(build(HOST6, TARGET6, bytes((kind,)) + bytes(7), ICMPV6), Problem.NO_ROUTE) is None


def test_pings_are_answered():
    assert compose_error(build(HOST4, TARGET4, b"\x08" + bytes(7), ICMP), Problem.NO_ROUTE)
    assert compose_error(build(HOST6, TARGET6, b"\x80" + bytes(7), ICMPV6), Problem.NO_ROUTE)


@pytest.mark.parametrize(
    "packet",
    [
        build(HOST4, TARGET4, b"", ICMP),  # its type is not there
        build(HOST4, "224.0.0.251"),
        build(HOST4, "255.255.255.255"),
        build("0.0.0.0", TARGET4),
        build("224.0.0.1", TARGET4),
        build("255.255.255.255", TARGET4),
        build(HOST6, "ff02::1"),
        build("::", TARGET6),
        build("ff02::1", TARGET6),
        build(HOST6, TARGET6, fragment(TCP, 9) + bytes(8), 44),
        build(HOST4, TARGET4)[:6] + b"\x00\x09" + build(HOST4, TARGET4)[8:],
        b"no packet",
    ],
)
def test_never_answered(packet):
    assert compose_error(packet, Problem.NO_ROUTE) is None


def test_too_big_multicast_ipv6_is_answered():
    assert compose_error(large(HOST6, "ff0e::1"), Problem.TOO_BIG, source=packed(ROUTER6), mtu=1400)


def test_probe_vector():
    probe = icmp.compose_echo_request(packed(HOST6), icmp.ALL_NODES, 0x4D51, 1)
    assert probe == bytes.fromhex(masque.ICMPV6_PROBE_HEAD) + bytes(1232)
    assert len(probe) == 1280


@pytest.mark.parametrize(("host", "target"), [(HOST4, TARGET4), (HOST6, TARGET6)])
def test_ping_and_reply(host, target):
    request = icmp.compose_echo_request(packed(host), packed(target), 7, 9, b"data")
    reply = icmp.compose_echo_reply(request)
    assert reply is not None
    assert icmp.parse_echo_reply(reply) == icmp.EchoReply(packed(target), packed(host), 7, 9, b"data")
    assert icmp.parse_echo_reply(request) is None
    assert icmp.compose_echo_reply(reply) is None
    assert icmp.parse_echo_reply(reply[:-1] + b"X") is None  # checksum
    assert icmp.parse_echo_reply(reply[:-1]) is None
    assert icmp.parse_echo_reply(build(host, target, reply[-12:], UDP)) is None
    assert icmp.parse_echo_reply(build(host, target, reply[-12:-5], reply[9] if ":" not in host else reply[6])) is None


def test_reply_to_a_multicast_ping_comes_from_one_address():
    request = icmp.compose_echo_request(packed(ROUTER6), icmp.ALL_NODES, 7, 9)
    reply = icmp.parse_echo_reply(icmp.compose_echo_reply(request, source=packed(HOST6)) or b"")
    assert reply is not None
    assert (reply.source, reply.destination, len(reply.data)) == (packed(HOST6), packed(ROUTER6), 1232)


def test_token_bucket():
    bucket = TokenBucket(rate=10, burst=3)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(100.05)
    assert bucket.take(100.15)
    assert not bucket.take(99.0)  # time does not run backward
    assert [bucket.take(200.0) for _ in range(4)] == [True, True, True, False]
