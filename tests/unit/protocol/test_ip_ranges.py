import ipaddress

import pytest

from masque_client.protocol.ip_capsules import IpAddressRange
from masque_client.protocol.ip_ranges import AddressSet
from tests.unit.protocol.packets import packed

net = ipaddress.ip_network


@pytest.mark.parametrize(
    ("address", "covered"),
    [
        ("192.0.2.0", True),
        ("192.0.2.255", True),
        ("192.0.1.255", False),
        ("192.0.3.0", False),
        ("2001:db8::1", True),
        ("2001:db9::", False),
        ("::", False),
    ],
)
def test_prefixes_cover_every_protocol(address, covered):
    addresses = AddressSet([net("192.0.2.0/24"), net("2001:db8::/32"), net("192.0.2.128/25")])
    assert addresses.covers(packed(address), 6) is addresses.covers(packed(address), None) is covered


def test_routes_cover_their_protocol():
    routes = [IpAddressRange.from_prefix(net("192.0.2.0/24"), 6), IpAddressRange.from_prefix(net("10.0.0.0/8"))]
    addresses = AddressSet(routes=routes)
    assert addresses.covers(packed("192.0.2.1"), 6)
    assert not addresses.covers(packed("192.0.2.1"), 17)
    assert addresses.covers(packed("192.0.2.1"), None)
    assert addresses.covers(packed("10.1.1.1"), 17)


def test_overlapping_nested_and_touching_prefixes_merge():
    prefixes = [net(f"10.0.{index}.0/24") for index in range(256)] + [net("10.0.0.0/30"), net("10.2.0.0/16")]
    addresses = AddressSet(prefixes)
    assert all(addresses.covers(packed(f"10.0.{index}.7"), None) for index in range(256))
    assert addresses.covers(packed("10.2.3.4"), 1)
    assert not addresses.covers(packed("10.1.0.0"), 1)


def test_the_empty_set():
    assert not AddressSet().covers(packed("0.0.0.0"), None)
    assert AddressSet([net("0.0.0.0/0")]).covers(packed("255.255.255.255"), 99)
