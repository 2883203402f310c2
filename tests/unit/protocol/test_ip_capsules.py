import ipaddress

import pytest

from masque_client.errors import LocalProtocolError, RemoteProtocolError
from masque_client.protocol.capsule import CapsuleReader, CapsuleType
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.ip_capsules import (
    ANY_IPV4,
    ANY_IPV6,
    AssignedAddress,
    IpAddressRange,
    RequestedAddress,
    encode_address_assign,
    encode_address_request,
    encode_route_advertisement,
    find_route_problem,
    parse_address_assign,
    parse_address_request,
    parse_route_advertisement,
    to_prefixes,
)
from tests.vectors import masque

PARSERS = {
    CapsuleType.ADDRESS_ASSIGN: parse_address_assign,
    CapsuleType.ADDRESS_REQUEST: parse_address_request,
    CapsuleType.ROUTE_ADVERTISEMENT: parse_route_advertisement,
}
net = ipaddress.ip_network
address = ipaddress.ip_address


def value_of(encoded, type):
    reader = CapsuleReader({int(type): 1 << 20})
    (capsule,) = reader.receive_data(bytes.fromhex(encoded))
    assert capsule.type == type
    reader.receive_end()
    return capsule.value


def route(start, end, protocol=0):
    return IpAddressRange(address(start).version, address(start), address(end), protocol)


@pytest.mark.parametrize(
    ("encoded", "entries"),
    [
        (masque.ASSIGN_V4_ID_1, [(1, "192.0.2.11/32")]),
        (masque.ASSIGN_V6_UNPROMPTED, [(0, "2001:db8:1234::a/128")]),
        (masque.ASSIGN_V4_AND_REFUSED_V6, [(1, "192.0.2.11/32"), (2, "::/128")]),
        (masque.ASSIGN_NOTHING, []),
        (masque.ASSIGN_LARGE_ID, [(16384, "192.0.2.11/32")]),
        (masque.ASSIGN_ANY_V4_SOURCE, [(0, "0.0.0.0/0")]),
    ],
)
def test_address_assign(encoded, entries):
    assigned = tuple(AssignedAddress(request_id, net(prefix)) for request_id, prefix in entries)
    assert parse_address_assign(value_of(encoded, CapsuleType.ADDRESS_ASSIGN)) == assigned
    assert encode_address_assign(assigned).hex() == encoded


@pytest.mark.parametrize(
    ("encoded", "entries"),
    [
        (masque.REQUEST_ANY_V4, [(1, "0.0.0.0/32")]),
        (masque.REQUEST_ANY_V4_AND_V6, [(1, "0.0.0.0/32"), (2, "::/128")]),
        (masque.REQUEST_PREFIX_ID_3, [(3, "192.0.2.0/28")]),
    ],
)
def test_address_request(encoded, entries):
    requests = tuple(RequestedAddress(request_id, net(prefix)) for request_id, prefix in entries)
    assert parse_address_request(value_of(encoded, CapsuleType.ADDRESS_REQUEST)) == requests
    assert encode_address_request(requests).hex() == encoded


ALL_V4 = route("0.0.0.0", "255.255.255.255")
ALL_V6 = route("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")


@pytest.mark.parametrize(
    ("encoded", "ranges"),
    [
        (masque.ROUTES_ALL_V4, [ALL_V4]),
        (masque.ROUTES_ALL, [ALL_V4, ALL_V6]),
        (masque.ROUTES_SPLIT, [route("192.0.2.0", "192.0.2.41"), route("192.0.2.43", "192.0.2.255")]),
        (
            masque.ROUTES_UDP_HOSTS,
            [route("198.51.100.2", "198.51.100.2", 17), route("2001:db8:3456::b", "2001:db8:3456::b", 17)],
        ),
        (
            masque.ROUTES_TCP_THEN_UDP,
            [route("203.0.113.0", "203.0.113.255", 6), route("192.0.2.0", "192.0.2.255", 17)],
        ),
        (masque.ROUTES_NONE, []),
    ],
)
def test_route_advertisement(encoded, ranges):
    assert parse_route_advertisement(value_of(encoded, CapsuleType.ROUTE_ADVERTISEMENT)) == tuple(ranges)
    assert encode_route_advertisement(ranges).hex() == encoded


@pytest.mark.parametrize("encoded", masque.INVALID_IP_CAPSULES.values(), ids=masque.INVALID_IP_CAPSULES.keys())
def test_invalid_capsules_are_malformed(encoded):
    type = CapsuleType(int(encoded[:2], 16))
    with pytest.raises(RemoteProtocolError, match=r"RFC 9484 §4\.7") as caught:
        PARSERS[type](value_of(encoded, type))
    assert caught.value.code == H3ErrorCode.H3_MESSAGE_ERROR
    assert not caught.value.connection_error


@pytest.mark.parametrize(
    ("prefix", "is_rejection"),
    [("0.0.0.0/32", True), ("::/128", True), ("0.0.0.0/0", False), ("::/0", False), ("0.0.0.0/31", False)],
)
def test_rejection_is_all_zeros_with_full_length(prefix, is_rejection):
    assert AssignedAddress(1, net(prefix)).is_rejection is is_rejection


@pytest.mark.parametrize(
    ("prefix", "host"),
    [
        ("192.0.2.11/32", "192.0.2.11"),
        ("192.0.2.10/31", "192.0.2.10"),
        ("192.0.2.8/30", "192.0.2.9"),
        ("192.0.2.0/24", "192.0.2.1"),
        ("2001:db8::a/128", "2001:db8::a"),
        ("2001:db8::/96", "2001:db8::1"),
        ("2001:db8::/65", "2001:db8::1"),
        ("2001:db8::/64", "2001:db8::dead:beef"),
        ("2001:db8::/48", "2001:db8::dead:beef"),
        ("0.0.0.0/0", None),
        ("::/128", None),
    ],
)
def test_a_prefix_is_a_network_and_a_host_is_picked(prefix, host):
    picked = AssignedAddress(0, net(prefix)).host_address((1 << 64) + 0xDEAD_BEEF)
    assert picked == (address(host) if host else None)


def test_reject_keeps_the_family_and_id():
    assert RequestedAddress(7, net("192.0.2.0/28")).reject() == AssignedAddress(7, ANY_IPV4)
    assert RequestedAddress(8, net("2001:db8::/64")).reject() == AssignedAddress(8, ANY_IPV6)


def test_ranges_become_the_fewest_prefixes():
    ranges = parse_route_advertisement(value_of(masque.ROUTES_SPLIT, CapsuleType.ROUTE_ADVERTISEMENT))
    assert [str(prefix) for prefix in to_prefixes(ranges)] == masque.ROUTES_SPLIT_PREFIXES
    assert to_prefixes([ALL_V4, ALL_V6]) == (net("0.0.0.0/0"), net("::/0"))


def test_same_prefix_for_two_protocols_is_installed_once():
    ranges = [route("192.0.2.0", "192.0.2.255", 6), route("192.0.2.0", "192.0.2.255", 17)]
    assert find_route_problem(tuple(ranges)) is None
    assert to_prefixes(ranges) == (net("192.0.2.0/24"),)


def test_too_many_prefixes_fail_closed():
    worst = route("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe")  # 254 prefixes
    assert len(to_prefixes([worst])) == 254
    with pytest.raises(RemoteProtocolError) as caught:
        to_prefixes([worst], limit=253)
    assert caught.value.code == H3ErrorCode.H3_EXCESSIVE_LOAD


@pytest.mark.parametrize(
    ("ranges", "problem"),
    [
        ([route("192.0.2.0", "192.0.2.41"), route("192.0.2.42", "192.0.2.255")], None),  # touching
        ([route("192.0.2.0", "192.0.2.42"), route("192.0.2.42", "192.0.2.255")], "overlaps"),
        ([route("192.0.2.9", "192.0.2.9"), route("192.0.2.1", "192.0.2.1")], "sorts before"),
        ([route("::", "::1"), route("192.0.2.1", "192.0.2.1")], "sorts behind"),
        ([route("192.0.2.1", "192.0.2.1", 17), route("192.0.2.2", "192.0.2.2", 6)], "sorts behind"),
        ([route("192.0.2.0", "192.0.2.9"), route("192.0.2.5", "192.0.2.5", 6)], "all protocols"),
        ([route("192.0.2.5", "192.0.2.6"), route("192.0.2.0", "192.0.2.9", 6)], "all protocols"),
        ([route("192.0.2.0", "192.0.2.4"), route("192.0.2.5", "192.0.2.5", 6)], None),
        ([route("192.0.2.6", "192.0.2.9"), route("192.0.2.5", "192.0.2.5", 6)], None),
        ([ALL_V4, route("2001:db8::", "2001:db8::1", 6)], None),  # versions do not overlap
    ],
)
def test_order_and_overlap(ranges, problem):
    found = find_route_problem(tuple(ranges))
    assert found is None if problem is None else problem in (found or "")


def test_from_prefix():
    assert IpAddressRange.from_prefix(net("192.0.2.0/24"), 17) == route("192.0.2.0", "192.0.2.255", 17)
    assert str(route("192.0.2.0", "192.0.2.255", 17)) == "192.0.2.0-192.0.2.255 protocol 17"


@pytest.mark.parametrize(
    ("version", "start", "end", "protocol"),
    [
        (6, "192.0.2.0", "192.0.2.1", 0),
        (4, "192.0.2.0", "::", 0),
        (4, "192.0.2.1", "192.0.2.0", 0),
        (4, "0.0.0.0", "0.0.0.0", 256),
    ],
)
def test_impossible_ranges_cannot_exist(version, start, end, protocol):
    with pytest.raises(LocalProtocolError):
        IpAddressRange(version, address(start), address(end), protocol)
