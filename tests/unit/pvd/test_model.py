"""The object itself: mandatory keys, optional keys, and the documents with known verdicts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Network
from typing import Any

import pytest

from masque_client.errors import PvdError
from masque_client.pvd.model import MAX_LIFETIME, PvdDocument
from masque_client.pvd.policy import ParsePolicy
from masque_client.pvd.proxies import ProxyProtocol
from tests.unit.pvd.documents import (
    DOCUMENT_A,
    DOCUMENT_B,
    DOCUMENT_C,
    DOCUMENT_D,
    DOCUMENT_E,
    DOCUMENT_F,
    DOCUMENT_G,
    HOST,
    LEFT_OUT,
    NOW,
    TLS_PROXY,
    UDP_PROXY,
    document,
    parse,
)


def pointers(parsed: PvdDocument) -> list[str]:
    return [ignored.pointer for ignored in parsed.ignored]


# --- whole documents --------------------------------------------------------------------------------------------------


def test_document_a_offers_three_proxies_for_anything() -> None:
    parsed = parse(DOCUMENT_A)
    assert parsed.identifier == HOST
    assert [proxy.protocol for proxy in parsed.proxies] == ["connect-udp", "connect-ip", "https-connect"]
    assert [proxy.alpn for proxy in parsed.proxies] == [("h3",), ("h3", "h2"), ("h2",)]
    assert all(proxy.identifier is None for proxy in parsed.proxies)
    assert parsed.rules == ()
    assert pointers(parsed) == ["/proxies/2/acme_tier"]


def test_document_b_has_rules_and_groups() -> None:
    parsed = parse(DOCUMENT_B, expected_identifier="egress.corp.example")
    assert parsed.expires == datetime(2026, 11, 23, 5, 30, tzinfo=UTC)
    assert [proxy.identifier for proxy in parsed.proxies] == ["main", "main", "lab", "spare", "orphan"]
    assert [rule.proxies for rule in parsed.rules] == [(), (), ("lab",), ("main", "spare"), ("spare",)]
    assert parsed.ignored == ()


def test_document_c_loses_most_of_its_parts() -> None:
    parsed = parse(DOCUMENT_C, expected_identifier="edge.example.org")
    assert [proxy.pointer for proxy in parsed.proxies] == ["/proxies/0"]
    assert [rule.index for rule in parsed.rules] == [4, 8, 9]
    reasons = {ignored.pointer: ignored.reason for ignored in parsed.ignored}
    assert "acme_posture" in reasons["/proxies/1"]
    assert "target_port" in reasons["/proxies/2"]
    assert "connect-warp" in reasons["/proxies/3"]
    assert "host:port" in reasons["/proxies/4"]
    assert "empty" in reasons["/proxies/5"]
    assert "/alpn" in reasons["/proxies/6"]
    assert "object" in reasons["/proxies/7"]
    assert "/ports/0" in reasons["/proxy-match/0"]
    assert "/domains/1" in reasons["/proxy-match/1"]
    assert "empty" in reasons["/proxy-match/2"]
    assert "acme_processid" in reasons["/proxy-match/3"]
    assert "proxies is missing" in reasons["/proxy-match/5"]
    assert "/subnets/0" in reasons["/proxy-match/6"]
    assert "ascending" in reasons["/proxy-match/7"]
    assert len(reasons) == len(parsed.ignored) == 14


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (DOCUMENT_D, "/identifier: names"),
        (DOCUMENT_E, "/expires: is not an RFC 3339"),
        (DOCUMENT_F, 'repeats the member "proxies"'),
        (DOCUMENT_F.replace(b"} ]\n}", b"} ],\n}"), "not JSON|repeats"),
    ],
)
def test_documents_d_to_f_are_refused(body: bytes, complaint: str) -> None:
    with pytest.raises(PvdError, match=complaint):
        parse(body)


def test_document_g_depends_on_where_it_came_from() -> None:
    inside, outside = IPv6Network("2001:db8:cafe:1::/64"), IPv6Network("2001:db8:f00d::/64")
    parsed = parse(DOCUMENT_G, expected_identifier="net.example.com", from_ra_prefixes=[inside])
    assert parsed.prefixes == (IPv6Network("2001:db8:cafe::/48"),)
    assert parsed.dns_zones == ("corp.example.com",)
    assert parsed.no_internet is False
    with pytest.raises(PvdError, match="2001:db8:f00d::/64"):
        parse(DOCUMENT_G, expected_identifier="net.example.com", from_ra_prefixes=[inside, outside])
    with pytest.raises(PvdError, match="/prefixes: must be empty"):
        parse(DOCUMENT_G, expected_identifier="net.example.com")


# --- mandatory keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("MASQUE.example.net", "masque.example.NET"),
        ("masque.example.net.", "masque.example.net"),
        ("masque.example.net", "masque.example.net."),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "Bücher.example"),
    ],
)
def test_identifiers_are_compared_as_names(written: str, expected: str) -> None:
    assert parse(document(identifier=written), expected_identifier=expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"identifier": LEFT_OUT},
        {"identifier": None},
        {"identifier": ""},
        {"identifier": "sub.masque.example.net"},
        {"identifier": "example.net"},
        {"identifier": "*.example.net"},
        {"identifier": "192.0.2.1"},
        {"expires": LEFT_OUT},
        {"expires": 1798761600},
        {"expires": "2026-12-01"},
        {"expires": "2026-11-22T12:00:00Z"},
        {"expires": "2026-11-22T11:59:59.999Z"},
        {"expires": "2026-11-22T13:00:00+01:00"},
        {"prefixes": LEFT_OUT},
        {"prefixes": None},
        {"prefixes": "[]"},
        {"prefixes": {}},
        {"prefixes": ["2001:db8::/32"]},
        {"prefixes": [1]},
    ],
)
def test_a_bad_mandatory_key_discards_the_document(changes: dict[str, Any]) -> None:
    with pytest.raises(PvdError, match=next(iter(changes))):
        parse(document(**changes))


def test_an_expected_identifier_that_is_no_name_is_refused() -> None:
    with pytest.raises(PvdError, match=r"192\.0\.2\.1.*IP address"):
        parse(document(), expected_identifier="192.0.2.1")


def test_messages_cannot_carry_control_characters() -> None:
    with pytest.raises(PvdError) as caught:
        parse(document(identifier="x\x1b[31m" + "y" * 500), expected_identifier=HOST)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300


def test_a_document_is_usable_for_thirty_days_at_most() -> None:
    late = parse(document(expires="2099-01-01T00:00:00Z"))
    assert (late.expires.year, late.usable_until) == (2099, NOW + MAX_LIFETIME)
    soon = parse(document(expires="2026-11-22T12:00:01Z"))
    assert soon.usable_until == soon.expires == NOW + timedelta(seconds=1)


@pytest.mark.parametrize("prefix", ["10.0.0.0/8", "2001:db8::", "2001:db8::/129", "2001:db8::/ffff::", "fe80::%1/64"])
def test_prefixes_of_a_network_are_ipv6(prefix: str) -> None:
    with pytest.raises(PvdError, match="/prefixes/0"):
        parse(document(prefixes=[prefix]), from_ra_prefixes=[])


# --- optional keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"dnsZones": "corp.example"}, "/dnsZones"),
        ({"dnsZones": ["corp.example", "*.bad"]}, "/dnsZones"),
        ({"noInternet": "true"}, "/noInternet"),
        ({"noInternet": None}, "/noInternet"),
        ({"splitDnsClaims": {}}, "/splitDnsClaims"),
        ({"splitDnsClaims": [{"resolver": "ns.example"}]}, "/splitDnsClaims"),
        ({"splitDnsClaims": ["x"]}, "/splitDnsClaims"),
        ({"surprise": [1, {"deep": 2}]}, "/surprise"),
        ({"vendor-acme": 7}, "/vendor-acme"),
        ({"a/b~c": 1}, "/a~1b~0c"),
    ],
)
def test_a_bad_or_unknown_optional_key_is_ignored_alone(changes: dict[str, Any], pointer: str) -> None:
    parsed = parse(document(proxies=[UDP_PROXY], **changes))
    assert pointers(parsed) == [pointer]
    assert (parsed.dns_zones, parsed.no_internet, parsed.split_dns_claims) == ((), None, ())
    assert len(parsed.proxies) == 1


def test_good_optional_keys_are_kept() -> None:
    claim = {
        "resolver": "NS.example.",
        "parent": "example",
        "subdomains": ["a", "*"],
        "algorithm": "SHA384",
        "salt": "AA",
    }
    parsed = parse(
        document(
            dnsZones=["Corp.Example."],
            noInternet=True,
            splitDnsClaims=[claim | {"extra": 1}],
            **{"vendor-acme": {"build": 7}, "urn:example:x": {}},
        )
    )
    assert parsed.dns_zones == ("corp.example",)
    assert parsed.no_internet is True
    assert (parsed.split_dns_claims[0].resolver, parsed.split_dns_claims[0].subdomains) == ("ns.example", ("a", "*"))
    assert parsed.ignored == ()


# --- the proxy configuration as a whole -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"proxies": {}}, "/proxies: must be an array"),
        ({"proxies": None}, "/proxies: must be an array"),
        ({"proxy_match": "x"}, "/proxy-match: must be an array"),
        ({"proxies": [TLS_PROXY] * 65}, "65 entries"),
        ({"proxy_match": [{"proxies": []}] * 4097}, "4097 rules"),
        ({"proxy_match": [{"ports": ["1"] * 8193, "proxies": []}]}, "/proxy-match/0/ports: has 8193"),
        ({"proxy_match": [{"ports": ["1"] * 8192, "proxies": []}] * 8 + [{"ports": ["1"], "proxies": []}]}, "65537"),
    ],
)
def test_a_bad_or_huge_list_discards_both(changes: dict[str, Any], complaint: str) -> None:
    parsed = parse(
        document(**{"proxies": [UDP_PROXY], "proxy_match": [{"proxies": []}], "noInternet": False} | changes)
    )
    assert (parsed.proxies, parsed.rules, parsed.is_proxy_configuration_ignored) == ((), (), True)
    assert pointers(parsed) == ["/proxies", "/proxy-match"]
    assert complaint in parsed.ignored[0].reason
    assert parsed.no_internet is False


def test_the_limits_themselves_are_allowed() -> None:
    parsed = parse(document(proxies=[TLS_PROXY] * 64, proxy_match=[{"ports": ["1"] * 8192, "proxies": []}] * 8))
    assert (len(parsed.proxies), len(parsed.rules)) == (64, 8)


def test_strict_rules_let_no_exclusion_get_lost() -> None:
    body = document(proxies=[UDP_PROXY], proxy_match=[{"domains": ["*"], "proxies": []}])
    assert len(parse(body).proxies) == 1
    strict = parse(body, policy=ParsePolicy(strict_rules=True))
    assert (strict.proxies, strict.is_proxy_configuration_ignored) == ((), True)


def test_protocols_print_as_their_registered_values() -> None:
    assert [str(protocol) for protocol in ProxyProtocol] == [
        "socks5",
        "http-connect",
        "https-connect",
        "connect-tcp",
        "connect-udp",
        "connect-ip",
    ]
