from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from masque_client.testing.address_pool import AddressPool


def test_gateway_is_first_and_clients_follow() -> None:
    pool = AddressPool(ip_network("10.89.0.0/24"))
    assert pool.gateway == ip_address("10.89.0.1")
    assert [pool.lend() for _ in range(2)] == [ip_address("10.89.0.2"), ip_address("10.89.0.3")]


def test_ipv6_pool_is_not_enumerated() -> None:
    pool = AddressPool(ip_network("fd89::/64"))
    assert (pool.gateway, pool.lend()) == (ip_address("fd89::1"), ip_address("fd89::2"))


def test_exhaustion_and_reuse_oldest_first() -> None:
    pool = AddressPool(ip_network("10.89.0.0/29"))
    lent = [pool.lend() for _ in range(6)]
    assert lent[5] is None
    assert len(set(lent)) == 6
    for address in (ip_address("10.89.0.4"), ip_address("10.89.0.2")):
        pool.give_back(address)
    assert [pool.lend() for _ in range(3)] == [ip_address("10.89.0.4"), ip_address("10.89.0.2"), None]


def test_wanted_address_is_lent_when_free() -> None:
    pool = AddressPool(ip_network("10.89.0.0/29"))
    wanted = ip_network("10.89.0.4/32")
    assert pool.lend(wanted) == ip_address("10.89.0.4")
    assert pool.lend(wanted) == ip_address("10.89.0.2")
    assert [pool.lend() for _ in range(4)] == [*map(ip_address, ("10.89.0.3", "10.89.0.5", "10.89.0.6")), None]


@pytest.mark.parametrize("wanted", ["10.89.0.0/32", "10.89.0.1/32", "10.89.0.7/32", "192.0.2.1/32", "10.89.0.0/30"])
def test_what_cannot_be_lent_gives_another(wanted: str) -> None:
    assert AddressPool(ip_network("10.89.0.0/29")).lend(ip_network(wanted)) == ip_address("10.89.0.2")


@pytest.mark.parametrize("prefix", ["10.89.0.0/31", "10.89.0.0/32", "fd89::/127"])
def test_too_small(prefix: str) -> None:
    with pytest.raises(ValueError, match="too small"):
        AddressPool(ip_network(prefix))
