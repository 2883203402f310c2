"""Routes made of rules: what enters the tunnel, what does not, and which rules a person must hear of.

That routes agree with the rule engine, address by address, is a property: tests/property/test_route_policy.py.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from masque_client.errors import PvdError
from masque_client.pvd.proxies import ProxyProtocol
from masque_client.tunnel import route_policy as module
from masque_client.tunnel.route_policy import RoutePolicy, route_policy
from tests.unit.pvd.documents import document, parse

DEFAULTS = "0.0.0.0/0 ::/0"
IP = {"protocol": "connect-ip", "proxy": "https://proxy.example/ip/"}
WEB = {"protocol": "https-connect", "proxy": "proxy.example:443", "identifier": "web"}
OURS, OTHER = IP | {"identifier": "ours"}, IP | {"identifier": "other"}


def judge(advertised: str, rules: list[dict[str, Any]], *entries: dict[str, Any]) -> RoutePolicy:
    """The policy of a tunnel through the first entry."""
    parsed = parse(document(proxies=list(entries or (OURS, OTHER, WEB)), proxy_match=rules))
    assert parsed.proxies[0].protocol is ProxyProtocol.CONNECT_IP
    networks = [ip_network(text) for text in advertised.split()]
    return route_policy(networks, parsed.proxies[0], parsed.proxies, parsed.rules)


def texts(policy: RoutePolicy) -> tuple[str, str]:
    return " ".join(map(str, policy.tunnel)), " ".join(map(str, policy.excluded))


def test_without_rules_a_proxy_for_everything_gets_what_it_advertises() -> None:
    assert judge(DEFAULTS, [], IP) == RoutePolicy((ip_network("0.0.0.0/0"), ip_network("::/0")))


def test_an_exclusion_leaves_a_hole() -> None:
    rules = [{"subnets": ["128.0.0.0/2"], "proxies": []}]
    assert texts(judge("0.0.0.0/0", rules, IP)) == ("0.0.0.0/1 192.0.0.0/2", "128.0.0.0/2")


def test_order_decides_between_an_exclusion_and_its_exception() -> None:
    rules = [
        {"subnets": ["10.1.0.0/16"], "proxies": ["ours"]},
        {"subnets": ["10.0.0.0/8"], "proxies": []},
        {"subnets": ["10.2.0.0/16", "11.0.0.0/8"], "proxies": ["ours"]},
    ]
    tunnel, _ = texts(judge("10.0.0.0/7", rules))
    assert tunnel == "10.1.0.0/16 11.0.0.0/8"


def test_rules_that_name_some_subnets_narrow_the_tunnel_to_them() -> None:
    rules = [{"subnets": ["10.1.0.0/16", "2001:db8::/32"], "proxies": ["ours"]}]
    assert judge(DEFAULTS, rules).tunnel == (ip_network("10.1.0.0/16"), ip_network("2001:db8::/32"))


def test_nothing_enters_that_is_not_advertised() -> None:
    assert texts(judge("10.1.0.0/16", [{"subnets": ["10.0.0.0/8"], "proxies": ["ours"]}])) == ("10.1.0.0/16", "")


def test_what_belongs_to_another_tunnel_proxy_does_not_enter_ours() -> None:
    rules = [{"subnets": ["10.1.0.0/16"], "proxies": ["other"]}, {"proxies": ["ours", "other"]}]
    _, excluded = texts(judge("10.0.0.0/8", rules))
    assert excluded == "10.1.0.0/16"


def test_a_proxy_that_no_rule_names_carries_nothing() -> None:
    assert texts(judge("10.0.0.0/8", [])) == ("", "10.0.0.0/8")


@pytest.mark.parametrize(
    ("condition", "words"),
    [({"domains": ["*.secret.example"]}, "by name"), ({"ports": ["25"]}, "by port")],
)
def test_an_exclusion_that_routes_cannot_make_is_reported(condition: dict[str, list[str]], words: str) -> None:
    policy = judge(DEFAULTS, [{**condition, "proxies": []}], IP)
    assert [str(rule) for rule in policy.unsupported] == [
        f"rule 1 excludes destinations {words}, and a route knows only addresses"
    ]
    assert policy.tunnel == (ip_network("0.0.0.0/0"), ip_network("::/0")), "the report is all that can be done"


def test_a_rule_is_not_reported_where_it_makes_no_difference() -> None:
    rules = [
        {"domains": ["a.example"], "proxies": ["ours"]},
        {"domains": ["b.example"], "subnets": ["192.0.2.0/24"], "proxies": []},
        {"proxies": ["ours"]},
    ]
    assert judge("10.0.0.0/8", rules).unsupported == ()


def test_a_rule_that_would_let_more_in_is_reported() -> None:
    rules = [{"domains": ["a.example"], "proxies": ["ours"]}, {"subnets": ["10.0.0.0/8"], "proxies": ["ours"]}]
    [unsupported] = judge("10.0.0.0/7", rules).unsupported
    assert str(unsupported) == "rule 1 applies by name, and a route knows only addresses"
    assert unsupported.rule.index == 0


def test_a_rule_for_other_protocols_decides_nothing_and_is_reported_where_nothing_else_does() -> None:
    rules = [{"subnets": ["10.0.0.0/8"], "proxies": ["web"]}, {"subnets": ["10.1.0.0/16"], "proxies": ["ours"]}]
    policy = judge("10.0.0.0/8", rules)
    assert texts(policy)[0] == "10.1.0.0/16"
    [unsupported] = policy.unsupported
    assert "to proxies of other protocols only" in str(unsupported)
    assert judge("10.0.0.0/8", [rules[0], {"proxies": ["ours"]}]).unsupported == ()


def test_rules_that_shatter_the_routes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROUTES", 31)
    rules = [{"subnets": ["10.20.30.40"], "proxies": []}]
    with pytest.raises(PvdError, match="more than 31 prefixes"):
        judge("0.0.0.0/0", rules, IP)
    monkeypatch.setattr(module, "MAX_ROUTES", 32)
    assert len(judge("0.0.0.0/0", rules, IP).tunnel) == 32
