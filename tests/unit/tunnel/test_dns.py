"""`tunnel.dns.plan_dns`: which names go where, rule by rule (draft-ietf-masque-connect-ip-dns-06 §3.5, §5)."""

from __future__ import annotations

from ipaddress import IPv6Network, ip_address, ip_network

import pytest

from masque_client.host.dns import DnsClaim, DnsConfiguration, DnsTransport, Resolver, UnclaimedNames
from masque_client.protocol.capsule import CapsuleReader
from masque_client.protocol.dns_capsules import (
    DRAFT_TYPES,
    AssignedDns,
    DnsAssignment,
    Nameserver,
    Pref64,
    parse_dns_assign,
)
from masque_client.protocol.service_parameters import ServiceParameters
from masque_client.tunnel.dns import MAX_SEARCH_CHARACTERS, DnsFromProxy, ProxyOrigin, plan_dns
from tests.vectors import dns

EVERYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
PROXY = ProxyOrigin("masque.example.org", 443)


def vector(encoded: str) -> DnsAssignment:
    (capsule,) = CapsuleReader(DRAFT_TYPES.limits).receive_data(bytes.fromhex(encoded))
    return parse_dns_assign(capsule.value)


def server(*addresses: str, priority: int = 1, name: str = "", **parameters: object) -> Nameserver:
    parsed = [ip_address(address) for address in addresses]
    return Nameserver(
        priority,
        tuple(address for address in parsed if address.version == 4),
        tuple(address for address in parsed if address.version == 6),
        name,
        ServiceParameters.of(**parameters),  # type: ignore[arg-type]
    )


def plan(*configurations: AssignedDns, prefixes: tuple[IPv6Network, ...] = (), **options: object) -> DnsConfiguration:
    given = {"policy": DnsFromProxy.SPLIT, "routes": EVERYWHERE, "proxy": PROXY, **options}
    configuration = plan_dns(DnsAssignment(configurations), Pref64(prefixes), **given)  # type: ignore[arg-type]
    assert configuration == plan_dns(DnsAssignment(configurations), Pref64(prefixes), **given)  # type: ignore[arg-type]
    return configuration


def asked(configuration: DnsConfiguration, name: str) -> tuple[str, ...] | None:
    """Addresses or names of those asked for `name`, in order; empty is SERVFAIL, None unclaimed."""
    claim = configuration.claim_for(name)
    if claim is None:
        return None
    return tuple(str(one) for resolver in claim.resolvers for one in resolver.addresses or [resolver.name])


# --- the draft's examples ---


def test_full_tunnel_with_doh_on_the_proxy() -> None:
    configuration = plan(*vector(dns.FULL_TUNNEL).configurations)
    resolver = Resolver(
        1,
        (DnsTransport.HTTPS_2, DnsTransport.HTTPS_3),
        name="masque.example.org",
        doh_path="/dns-query{?dns}",
        is_proxy=True,
    )
    assert configuration == DnsConfiguration((DnsClaim("", (resolver,)),))
    assert asked(configuration, "anything.example") == ("masque.example.org",)
    assert resolver.port_for(DnsTransport.HTTPS_3) == 443


@pytest.mark.parametrize(
    "proxy",
    [
        None,
        ProxyOrigin("other.example.org", 443),
        ProxyOrigin("masque.example.org", 4433),
    ],
)
def test_doh_elsewhere(proxy: ProxyOrigin | None) -> None:
    (claim,) = plan(*vector(dns.FULL_TUNNEL).configurations, proxy=proxy).claims
    assert not claim.resolvers[0].is_proxy


def test_doh_on_the_proxy_needs_the_http_version_of_its_connection() -> None:
    only_2 = AssignedDns((server(name=PROXY.host, alpn=("h2",), doh_path="/q{?dns}"),), ("",))
    assert not plan(only_2).claims[0].resolvers[0].is_proxy
    over_2 = ProxyOrigin(PROXY.host, 443, DnsTransport.HTTPS_2)
    assert plan(only_2, proxy=over_2).claims[0].resolvers[0].is_proxy


def test_split_tunnel() -> None:
    configuration = plan(*vector(dns.SPLIT_TUNNEL).configurations)
    assert asked(configuration, "wiki.internal.corp.example") == ("192.0.2.33", "2001:db8::1")
    assert asked(configuration, "Internal.Corp.Example.") == ("192.0.2.33", "2001:db8::1")
    assert asked(configuration, "corp.example") is None
    assert asked(configuration, "notinternal.corp.example") is None
    assert configuration.unclaimed is UnclaimedNames.SYSTEM
    assert configuration.search_domains == ("internal.corp.example", "corp.example")


def test_two_configurations() -> None:
    configuration = plan(*vector(dns.TWO_CONFIGURATIONS).configurations)
    assert asked(configuration, "a.corp.example") == ("192.0.2.53",)
    assert asked(configuration, "a.lab.example") == ("198.51.100.53",)
    dot = configuration.claims[0].resolvers[0]
    assert (dot.transports, dot.port, dot.name) == ((DnsTransport.TLS,), 853, "dns.corp.example")


# --- policy ---


def test_off_ignores_everything() -> None:
    nat64 = (IPv6Network("64:ff9b::/96"),)
    configuration = plan(*vector(dns.SPLIT_TUNNEL).configurations, prefixes=nat64, policy=DnsFromProxy.OFF)
    assert configuration == DnsConfiguration()


def test_full_blocks_what_is_not_claimed_even_when_nothing_is() -> None:
    assert plan(policy=DnsFromProxy.FULL).unclaimed is UnclaimedNames.BLOCK
    assert plan().unclaimed is UnclaimedNames.SYSTEM


# --- claims ---


def test_the_longest_suffix_decides_over_all_configurations() -> None:
    configuration = plan(
        AssignedDns((server("192.0.2.1"),), ("",)),
        AssignedDns((server("192.0.2.2"),), ("corp.example",)),
        AssignedDns((server("192.0.2.3"),), ("lab.corp.example", "corp.example")),
    )
    assert asked(configuration, "example.org") == ("192.0.2.1",)
    assert asked(configuration, "") == ("192.0.2.1",)
    assert asked(configuration, "a.corp.example") == ("192.0.2.2", "192.0.2.3")
    assert asked(configuration, "a.lab.corp.example") == ("192.0.2.3",)


def test_no_domain_claims_nothing_and_the_root_everything() -> None:
    servers = (server("192.0.2.1"),)
    assert asked(plan(AssignedDns(servers, ())), "a.example") is None
    assert "no domain is assigned to 192.0.2.1" in plan(AssignedDns(servers, ())).remarks
    assert asked(plan(AssignedDns(servers, ("",))), "a.example") == ("192.0.2.1",)


def test_lowest_priority_first() -> None:
    servers = (server("192.0.2.9", priority=9), server("192.0.2.1"), server("192.0.2.5", priority=5))
    assert asked(plan(AssignedDns(servers, ("",))), "a") == ("192.0.2.1", "192.0.2.5", "192.0.2.9")


def test_claimed_without_a_usable_server_is_servfail() -> None:
    nobody = AssignedDns((), ("corp.example",))
    unreachable = AssignedDns((server("192.0.2.1"),), ("lab.example",))
    configuration = plan(
        nobody, unreachable, AssignedDns((server("10.0.0.1"),), ("",)), routes=[ip_network("10.0.0.0/8")]
    )
    assert asked(configuration, "a.corp.example") == ()
    assert asked(configuration, "a.lab.example") == ()
    assert asked(configuration, "a.example") == ("10.0.0.1",)
    assert "the nameserver 192.0.2.1 cannot be asked safely" in configuration.remarks


# --- plain text stays in the tunnel ---


@pytest.mark.parametrize(
    ("addresses", "routes", "usable"),
    [
        (["10.1.2.3"], ["10.0.0.0/8"], ("10.1.2.3",)),
        (["10.1.2.3"], ["192.0.2.0/24"], ()),
        (["10.1.2.3"], [], ()),
        (["10.1.2.3", "fd00::1"], ["fd00::/8"], ("fd00::1",)),
        (["127.0.0.53"], ["0.0.0.0/0"], ()),
        (["169.254.1.1"], ["0.0.0.0/0"], ()),
        (["224.0.0.251"], ["0.0.0.0/0"], ()),
        (["0.0.0.0"], ["0.0.0.0/0"], ()),
        (["::1"], ["::/0"], ()),
        (["fe80::1"], ["::/0"], ()),
        (["::ffff:127.0.0.1"], ["::/0"], ()),
        (["::ffff:192.0.2.1"], ["::/0"], ()),
    ],
)
def test_plain_servers_only_inside(addresses: list[str], routes: list[str], usable: tuple[str, ...]) -> None:
    assigned = AssignedDns((server(*addresses),), ("",))
    assert asked(plan(assigned, routes=list(map(ip_network, routes))), "a") == usable


def test_encrypted_servers_may_be_outside() -> None:
    assigned = AssignedDns((server("192.0.2.1", name="dns.example", alpn=("dot",)),), ("",))
    assert asked(plan(assigned, routes=[]), "a") == ("192.0.2.1",)


# --- transports ---


def test_encrypted_wherever_we_can_and_then_never_plain() -> None:
    both = AssignedDns((server("192.0.2.1", name="dns.example", alpn=("doq", "dot"), port=8853),), ("",))
    (resolver,) = plan(both).claims[0].resolvers
    assert (resolver.transports, resolver.port) == ((DnsTransport.QUIC, DnsTransport.TLS), 8853)
    (resolver,) = plan(both, supported=[DnsTransport.TLS, DnsTransport.PLAIN]).claims[0].resolvers
    assert resolver.transports == (DnsTransport.TLS,)
    (resolver,) = plan(both, supported=[DnsTransport.PLAIN]).claims[0].resolvers
    assert (resolver.transports, resolver.port, resolver.name) == ((DnsTransport.PLAIN,), None, "")
    assert resolver.port_for(DnsTransport.PLAIN) == 53


def test_no_default_alpn_forbids_plain() -> None:
    only_dot = AssignedDns((server("192.0.2.1", name="dns.example", alpn=("dot",), no_default_alpn=True),), ("",))
    assert asked(plan(only_dot, supported=[DnsTransport.PLAIN]), "a") == ()


def test_a_plain_server_on_another_port() -> None:
    (resolver,) = plan(AssignedDns((server("192.0.2.1", port=5353),), ("",))).claims[0].resolvers
    assert resolver.port_for(DnsTransport.PLAIN) == 5353


def test_a_name_alone_does_not_encrypt() -> None:
    (resolver,) = plan(AssignedDns((server("192.0.2.1", name="dns.example"),), ("",))).claims[0].resolvers
    assert resolver.transports == (DnsTransport.PLAIN,)


def test_doh_needs_its_path_and_unknown_protocols_are_passed_over() -> None:
    servers = (
        server("192.0.2.1", name="a.example", alpn=("h3", "dot")),
        server("192.0.2.2", name="b.example", alpn=("h3", "coap"), no_default_alpn=True),
    )
    configuration = plan(AssignedDns(servers, ("",)))
    (resolver,) = configuration.claims[0].resolvers
    assert (resolver.transports, resolver.doh_path) == ((DnsTransport.TLS,), None)
    assert "the nameserver b.example cannot be asked safely" in configuration.remarks


# --- zones of the PvD document ---


def test_zones_of_the_document_go_to_servers_without_domains() -> None:
    general = AssignedDns((server("192.0.2.1"),))
    lab = AssignedDns((server("192.0.2.2"),), ("lab.example",))
    configuration = plan(general, lab, zones=["corp.example", "a.lab.example"])
    assert asked(configuration, "a.corp.example") == ("192.0.2.1",)
    assert asked(configuration, "b.a.lab.example") == ("192.0.2.2",)  # the capsule has said so already
    assert asked(configuration, "example.org") is None


def test_zones_of_the_document_claim_nothing_by_themselves() -> None:
    configuration = plan(AssignedDns((server("192.0.2.2"),), ("lab.example",)), zones=["corp.example"])
    assert asked(configuration, "corp.example") is None
    assert "no nameserver is assigned for corp.example, named by the PvD document" in configuration.remarks
    assert plan(zones=["corp.example"]).claims == ()


# --- search domains, NAT64, remarks ---


def test_search_domains_are_capped() -> None:
    many = plan(AssignedDns(search_domains=tuple(f"d{n}.example" for n in range(9))))
    assert many.search_domains == tuple(f"d{n}.example" for n in range(6))
    assert "only the first 6 of 9 search domains are used" in many.remarks
    long = plan(AssignedDns(search_domains=tuple(f"{n}{'a' * 60}.example" for n in range(5))))
    assert len(" ".join(long.search_domains)) <= MAX_SEARCH_CHARACTERS
    assert len(long.search_domains) == 3


def test_search_domains_of_all_configurations_once() -> None:
    configuration = plan(AssignedDns(search_domains=("b", "a")), AssignedDns(search_domains=("c", "b")))
    assert configuration.search_domains == ("b", "a", "c")


def test_nat64_prefixes_must_be_routed() -> None:
    prefixes = (IPv6Network("64:ff9b::/96"), IPv6Network("2001:db8:64::/96"))
    assert plan(prefixes=prefixes).nat64_prefixes == prefixes
    some = plan(prefixes=prefixes, routes=[ip_network("2001:db8::/32"), ip_network("0.0.0.0/0")])
    assert some.nat64_prefixes == prefixes[1:]
    assert some.remarks == ("no route leads to the NAT64 prefix 64:ff9b::/96",)
    assert plan(prefixes=()).nat64_prefixes == ()


def test_what_the_parser_left_out_is_remarked() -> None:
    assignment, pref64 = DnsAssignment((), ("one",)), Pref64((), ("two",))
    configuration = plan_dns(assignment, pref64, policy=DnsFromProxy.SPLIT, routes=())
    assert configuration.remarks == ("one", "two")
