"""Rules of `proxy-match`: one bad element makes the whole rule unusable."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from masque_client.pvd.rules import DomainPattern, PortRange, ProxyRule, parse_rules

GOOD = {"proxies": ["a"]}


def test_a_rule_in_full() -> None:
    (rule,), ignored, warnings = parse_rules(
        [
            {
                "proxies": ["a", "a", "b"],
                "domains": ["Example.NET.", "*.bücher.example"],
                "subnets": ["192.0.2.0/24", "2001:db8::1"],
                "ports": ["0", "80", "8000-8999", "65535"],
            }
        ]
    )
    assert rule == ProxyRule(
        proxies=("a", "a", "b"),
        domains=(DomainPattern("example.net", False), DomainPattern("xn--bcher-kva.example", True)),
        subnets=(ip_network("192.0.2.0/24"), ip_network("2001:db8::1/128")),
        ports=(PortRange(0, 0), PortRange(80, 80), PortRange(8000, 8999), PortRange(65535, 65535)),
    )
    assert (ignored, warnings) == ((), ())


def test_a_rule_may_have_no_property_or_no_proxy() -> None:
    rules, ignored, _ = parse_rules([{"proxies": []}, GOOD])
    assert [(rule.proxies, rule.domains, rule.subnets, rule.ports) for rule in rules] == [
        ((), None, None, None),
        (("a",), None, None, None),
    ]
    assert ignored == ()


@pytest.mark.parametrize(
    "rule",
    [
        None,
        "a",
        {},
        {"domains": ["a.example"]},
        {"proxies": None},
        {"proxies": "a"},
        {"proxies": ["a", 1]},
        {"proxies": {"a": 1}},
        GOOD | {"acme_processid": 7},
        GOOD | {"Domains": ["a.example"]},
        *(GOOD | {"domains": value} for value in ([], None, "a.example", [1], [None], {"a": 1})),
        *(
            GOOD | {"domains": ["good.example", name]}
            for name in (
                *("", "*", "*.", ".", "*.*.example", "foo.*.example", "*foo.example", "foo*", "**.example", "a..b"),
                *(
                    "a b.example",
                    "a.example:443",
                    "https://a.example",
                    "10.0.0.1",
                    "[::1]",
                    "::1",
                    "1.2.3.4.",
                    "\u200d",
                ),
            )
        ),
        *(GOOD | {"subnets": value} for value in ([], "10.0.0.0/8", [10], None)),
        *(
            GOOD | {"subnets": ["10.0.0.0/8", text]}
            for text in (
                *("", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/08", "10.0.0.0/", "010.0.0.0/8", "10.0.0", "10/8"),
                *(
                    "192.0.2.0/255.255.255.0",
                    "192.0.2.0/0.0.0.255",
                    "fe80::1%eth0/64",
                    "fe80::1%eth0",
                    "2001:db8::/129",
                ),
                *("[2001:db8::]/32", "２.0.0.0/8", "10.0.0.0/8\n", "corp.example", "2001:db8::/032"),
            )
        ),
        *(GOOD | {"ports": value} for value in ([], "443", [443], ["80", 443], None)),
        *(
            GOOD | {"ports": ["80", text]}
            for text in (
                *("", "-", "1-", "-1", "65536", "0-65536", "99999", "100000", "2-1", "0443", "00", "01-2"),
                *("443\n", " 443", "４４３", "80,443", "+80", "1-2-3", "1 - 2", "http", "0x50"),
            )
        ),
    ],
)
def test_a_bad_rule_is_ignored_whole_and_alone(rule: object) -> None:
    rules, ignored, warnings = parse_rules([GOOD, rule, GOOD])
    assert [good.index for good in rules] == [0, 2]
    assert [one.pointer for one in ignored] == ["/proxy-match/1"]
    assert warnings == ()


def test_host_bits_are_masked_with_a_warning() -> None:
    (rule,), ignored, warnings = parse_rules([GOOD | {"subnets": ["10.0.0.0/8", "10.1.2.3/8", "2001:db8::1/32"]}])
    assert rule.subnets == (ip_network("10.0.0.0/8"), ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    assert [warning.partition(":")[0] for warning in warnings] == [
        "/proxy-match/0/subnets/1",
        "/proxy-match/0/subnets/2",
    ]
    assert ignored == ()


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.1.2.3", "10.1.2.3/32"),
        ("::/0", "::/0"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_mapped_networks_are_ipv4_networks(text: str, network: str) -> None:
    (rule,), _, _ = parse_rules([GOOD | {"subnets": [text]}])
    assert rule.subnets == (ip_network(network),)


def test_patterns_print_as_written() -> None:
    parts: list[Any] = [
        DomainPattern("x.example", True),
        DomainPattern("x.example", False),
        PortRange(1, 1),
        PortRange(1, 9),
    ]
    assert [str(part) for part in parts] == ["*.x.example", "x.example", "1", "1-9"]
    assert ProxyRule((), index=3).pointer == "/proxy-match/3"
