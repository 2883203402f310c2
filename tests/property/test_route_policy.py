"""Routes made of rules agree with the rule engine, address by address."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hypothesis import given
from hypothesis import strategies as st

from masque_client.protocol.uri_template import IpTemplate
from masque_client.pvd.match import Flow, FlowKind, Matcher, Verdict
from masque_client.pvd.names import HostPort
from masque_client.pvd.proxies import ProxyProtocol, PvdProxy
from masque_client.pvd.rules import DomainPattern, PortRange, ProxyRule
from masque_client.tunnel.address_ranges import EVERYTHING, AddressRanges
from masque_client.tunnel.route_policy import route_policy

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


def networks() -> st.SearchStrategy[Network]:
    """Few enough bits that networks overlap often; both families."""
    ipv4 = st.builds(
        lambda bits, length: IPv4Network((bits << 27, length), strict=False), st.integers(0, 31), st.integers(0, 5)
    )
    ipv6 = st.builds(
        lambda bits, length: IPv6Network((bits << 123, length), strict=False), st.integers(0, 31), st.integers(0, 5)
    )
    return st.one_of(ipv4, ipv6)


def corners(of: Iterable[Network]) -> set[Address]:
    """The addresses at, just before and just after every boundary: nothing can change anywhere else."""
    found: set[Address] = {IPv4Address(0), IPv6Address(0)}
    for network in of:
        kind = IPv4Address if network.version == 4 else IPv6Address
        last = (1 << network.max_prefixlen) - 1
        numbers = {int(network[0]) - 1, int(network[0]), int(network[-1]), int(network[-1]) + 1}
        found |= {kind(number) for number in numbers if 0 <= number <= last}
    return found


def inside(address: Address, of: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in of)


def proxy(identifier: str | None, protocol: ProxyProtocol = ProxyProtocol.CONNECT_IP) -> PvdProxy:
    text = f"https://{identifier or 'free'}.example/ip/"
    return PvdProxy(protocol, IpTemplate.parse(text), text, HostPort("proxy.example", 443), identifier=identifier)


PROXIES = [proxy("ours"), proxy("other"), proxy(None), proxy("web", ProxyProtocol.HTTPS_CONNECT)]
IDENTIFIERS = st.lists(st.sampled_from(["ours", "other", "web", "unknown"]), max_size=2).map(tuple)
SUBNETS = st.none() | st.lists(networks(), min_size=1, max_size=3).map(tuple)


@st.composite
def rules(draw: st.DrawFn, *, expressible: bool) -> list[ProxyRule]:
    found = []
    for index in range(draw(st.integers(0, 5))):
        by_name = by_port = False
        if not expressible:
            by_name, by_port = draw(st.booleans()), draw(st.booleans())
        found.append(
            ProxyRule(
                draw(IDENTIFIERS),
                domains=(DomainPattern("a.example", is_wildcard=True),) if by_name else None,
                subnets=draw(SUBNETS),
                ports=(PortRange(80, 80),) if by_port else None,
                index=index,
            )
        )
    return found


ADVERTISED = st.lists(networks(), max_size=4)
USED = st.sampled_from([PROXIES[0], PROXIES[2]])


@given(ADVERTISED, ADVERTISED)
def test_sets_of_addresses_obey_arithmetic(left: list[Network], right: list[Network]) -> None:
    a, b = AddressRanges.of(left), AddressRanges.of(right)
    for address in corners([*left, *right]):
        in_a, in_b = inside(address, left), inside(address, right)
        assert inside(address, (a | b).prefixes()) == (in_a or in_b)
        assert inside(address, (a & b).prefixes()) == (in_a and in_b)
        assert inside(address, (a - b).prefixes()) == (in_a and not in_b)
    assert AddressRanges.of(a.prefixes()) == a
    assert a - b == a - (a & b)
    assert not a - EVERYTHING


@given(ADVERTISED, USED, rules(expressible=True))
def test_an_address_enters_exactly_when_the_rules_choose_the_proxy(
    advertised: list[Network], used: PvdProxy, rules: list[ProxyRule]
) -> None:
    """For rules that routes can express, and with the proxies of a tunnel: those that carry IP packets."""
    policy = route_policy(advertised, used, PROXIES, rules)
    matcher = Matcher([entry for entry in PROXIES if entry.protocol is ProxyProtocol.CONNECT_IP], rules)
    for address in corners([*advertised, *(subnet for rule in rules for subnet in rule.subnets or ())]):
        selection = matcher.select(Flow(FlowKind.IP, ips=(address,)))
        chosen = selection.verdict is Verdict.PROXY and any(used in group for group in selection.groups)
        offered = inside(address, advertised)
        assert inside(address, policy.tunnel) == (offered and chosen)
        assert inside(address, policy.excluded) == (offered and not chosen)


@given(ADVERTISED, USED, rules(expressible=False))
def test_what_is_advertised_is_divided_without_gap_or_overlap(
    advertised: list[Network], used: PvdProxy, rules: list[ProxyRule]
) -> None:
    policy = route_policy(advertised, used, PROXIES, rules)
    tunnel, excluded = AddressRanges.of(policy.tunnel), AddressRanges.of(policy.excluded)
    assert not tunnel & excluded
    assert tunnel | excluded == AddressRanges.of(advertised)


@given(ADVERTISED, USED, rules(expressible=False))
def test_no_exclusion_is_lost_in_silence(advertised: list[Network], used: PvdProxy, rules: list[ProxyRule]) -> None:
    """Without reported rules, nothing that the rules keep away from the proxy can be in its tunnel."""
    policy = route_policy(advertised, used, PROXIES, rules)
    if policy.unsupported:
        return
    matcher = Matcher([entry for entry in PROXIES if entry.protocol is ProxyProtocol.CONNECT_IP], rules)
    for address in corners(policy.tunnel):
        if not inside(address, policy.tunnel):
            continue
        for host, port in ((None, None), ("a.example", 80), ("a.example", 81), ("b.example", 80)):
            selection = matcher.select(Flow(FlowKind.TCP, host, (address,), port))
            assert selection.verdict is Verdict.PROXY
            assert any(used in group for group in selection.groups)
