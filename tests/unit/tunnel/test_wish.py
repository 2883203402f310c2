"""From what a session says to what the host is asked for: families, blocks, and what never enters a tunnel."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest

from masque_client.errors import PvdError
from masque_client.host.interface import HostConfiguration, OuterFlow
from masque_client.protocol.capsule import encode_capsule
from masque_client.protocol.ip_capsules import (
    AssignedAddress,
    IpAddressRange,
    encode_address_assign,
    encode_route_advertisement,
)
from masque_client.protocol.ip_session import ConnectIpSession
from masque_client.protocol.session import Role
from masque_client.pvd.proxies import ProxyProtocol, parse_proxy
from masque_client.pvd.rules import ProxyRule
from masque_client.tunnel.options import TunnelOptions
from masque_client.tunnel.proxies import ProxyChoice
from masque_client.tunnel.wish import advertised_prefixes, host_addresses, wish

PROXY = parse_proxy(ProxyProtocol.CONNECT_IP, "https://proxy.example/ip")
OPTIONS = TunnelOptions(ProxyChoice((PROXY,), (PROXY,)))
OUTER = OuterFlow("udp", ("192.0.2.1", 5000), ("192.0.2.2", 443))


def asked(
    addresses: list[str], routes: list[str], mtu: int = 1440, options: TunnelOptions = OPTIONS
) -> HostConfiguration:
    configuration, _ = wish(
        "tun0", mtu, [ip_interface(a) for a in addresses], [ip_network(r) for r in routes], PROXY, options, OUTER
    )
    return configuration


def test_what_was_assigned_and_advertised() -> None:
    configuration = asked(["10.0.0.2", "fd00::2"], ["10.1.0.0/16", "fd01::/64"])
    assert configuration.addresses == (ip_interface("10.0.0.2"), ip_interface("fd00::2"))
    assert configuration.routes == (ip_network("10.1.0.0/16"), ip_network("fd01::/64"))
    assert configuration.outer_flows == (OUTER,)
    assert not configuration.block_ipv4 and not configuration.block_ipv6


@pytest.mark.parametrize("default", [["0.0.0.0/0"], ["0.0.0.0/1", "128.0.0.0/1"]])
def test_a_full_tunnel_without_ipv6_lets_no_ipv6_leak(default: list[str]) -> None:
    configuration = asked(["10.0.0.2"], default)
    assert configuration.block_ipv6 and not configuration.block_ipv4


def test_a_full_tunnel_too_narrow_for_ipv6_lets_no_ipv6_leak() -> None:
    configuration = asked(["10.0.0.2", "fd00::2"], ["0.0.0.0/0", "::/0"], mtu=1279)
    assert configuration.addresses == (ip_interface("10.0.0.2"),)
    assert configuration.routes == (ip_network("0.0.0.0/0"),)
    assert configuration.block_ipv6


def test_a_split_tunnel_blocks_nothing() -> None:
    configuration = asked(["10.0.0.2"], ["10.1.0.0/16"])
    assert not configuration.block_ipv4 and not configuration.block_ipv6


def test_routes_without_an_address_of_their_family_are_left_out() -> None:
    assert asked(["10.0.0.2"], ["10.1.0.0/16", "fd01::/64"]).routes == (ip_network("10.1.0.0/16"),)


def open_session() -> ConnectIpSession:
    session = ConnectIpSession(Role.CLIENT)
    session.receive_headers([(b":status", b"200")], end_stream=False)
    return session


def test_loopback_and_link_local_never_enter_a_tunnel() -> None:
    session = open_session()
    ranges = [IpAddressRange.from_prefix(ip_network(p)) for p in ("10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16")]
    session.receive_data(encode_route_advertisement(ranges), end_stream=False)
    assert advertised_prefixes(session) == [ip_network("10.0.0.0/8")]


def test_a_prefix_becomes_one_host_address_and_a_refusal_none() -> None:
    session = open_session()
    entries = [AssignedAddress(0, ip_network(p)) for p in ("10.0.0.0/24", "fd00::/64", "0.0.0.0/32")]
    session.receive_data(encode_address_assign(entries), end_stream=False)
    assert host_addresses(session, 0x1234) == [ip_interface("10.0.0.1"), ip_interface("fd00::1234")]


def test_unknown_capsules_change_nothing() -> None:
    session = open_session()
    session.receive_data(encode_capsule(0x17, b"x"), end_stream=False)
    assert host_addresses(session, 1) == [] and advertised_prefixes(session) == []


def test_nothing_usable_in_the_rules_is_said() -> None:
    other = parse_proxy(ProxyProtocol.CONNECT_IP, "https://other.example/ip")
    named = replace(PROXY, identifier="mine")
    rules = (ProxyRule(proxies=(), subnets=(ip_network("10.0.0.0/8"),)),)
    options = TunnelOptions(ProxyChoice((named,), (named, other), rules))
    with pytest.raises(PvdError, match=r"nothing that proxy\.example advertises"):
        wish("tun0", 1440, [ip_interface("10.0.0.2")], [ip_network("10.1.0.0/16")], named, options, OUTER)
