"""PvD documents of any shape parse or are refused; rules agree with a plain reading of PROXY-CONFIG §4.2."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from masque_client.errors import ConfigurationError, PvdError
from masque_client.pvd.match import Flow, FlowKind, Matcher, Selection, Verdict, carries, preference
from masque_client.pvd.model import PvdDocument, parse_pvd
from masque_client.pvd.names import HostPort, canonical_name
from masque_client.pvd.proxies import ProxyProtocol, PvdProxy, parse_proxy
from masque_client.pvd.rfc3339 import parse_date_time
from masque_client.pvd.rules import DomainPattern, PortRange, ProxyRule, parse_subnet
from masque_client.pvd.source import PvdSource

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HOST = "masque.example.net"


# The same examples every time, and no time limit for one: a busy machine is no bug.
quick = settings(derandomize=True, deadline=None, max_examples=200, database=None)


def parse(body: bytes) -> PvdDocument | None:
    try:
        return parse_pvd(body, expected_identifier=HOST, now=NOW)
    except PvdError as error:
        assert str(error).isprintable()
        return None


# --- parsing ----------------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(
    [
        *("identifier", "expires", "prefixes", "dnsZones", "noInternet", "splitDnsClaims", "proxies", "proxy-match"),
        *("protocol", "proxy", "mandatory", "alpn", "domains", "subnets", "ports", "resolver", "parent", "a_b"),
    ]
)
TEXTS = st.text(max_size=12) | st.sampled_from(
    [
        *(HOST, "2026-12-01T00:00:00Z", "connect-udp", "connect-ip", "https-connect", "socks5", "proxy.example:443"),
        *(
            "https://proxy.example/u{?target_host,target_port}",
            "https://[::1]/ip",
            "*.a.example",
            "10.0.0.0/8",
            "80-90",
        ),
    ]
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(KEYS | st.text(max_size=5), children, max_size=6),
    max_leaves=25,
)
ENTRIES = st.lists(st.dictionaries(KEYS, TEXTS | st.lists(TEXTS, max_size=3) | JSON_VALUES, max_size=6), max_size=4)


@quick
@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(body: bytes) -> None:
    parse(body)


@quick
@given(JSON_VALUES)
def test_any_json_parses_or_is_refused(value: Any) -> None:
    parse(json.dumps(value).encode())


@quick
@given(ENTRIES, ENTRIES, st.dictionaries(KEYS | st.text(max_size=5), JSON_VALUES, max_size=4))
def test_bad_entries_never_spoil_the_document(proxies: Any, rules: Any, extra: dict[str, Any]) -> None:
    members = {"identifier": HOST, "expires": "2026-12-01T00:00:00Z", "prefixes": []}
    body = json.dumps(extra | members | {"proxies": proxies, "proxy-match": rules})
    parsed = parse(body.encode())
    if parsed is None:
        return  # only the syntax layer may refuse: a forbidden character or number somewhere
    dropped = {ignored.pointer for ignored in parsed.ignored}
    kept = {proxy.pointer for proxy in parsed.proxies} | {rule.pointer for rule in parsed.rules}
    entries = {f"/proxies/{i}" for i in range(len(proxies))} | {f"/proxy-match/{i}" for i in range(len(rules))}
    assert not kept & dropped
    assert entries <= kept | dropped


SMALL_PARSERS: list[Callable[[str], object]] = [
    *(canonical_name, parse_date_time, parse_subnet, HostPort.parse, HostPort.of_https_url),
    *(PortRange.parse, DomainPattern.parse, PvdSource.parse),
]


@quick
@given(st.text(max_size=40) | st.from_regex(r"[a-z*.:\[\]0-9/@#{}%-]{0,40}"))
def test_small_parsers_raise_nothing_else(text: str) -> None:
    for parser in SMALL_PARSERS:
        try:
            parser(text)
        except ConfigurationError:
            pass
    for protocol in ProxyProtocol:
        try:
            parse_proxy(protocol, text)
        except ConfigurationError:
            pass


@quick
@given(st.text(max_size=40))
def test_canonical_names_stay_as_they_are(text: str) -> None:
    try:
        name = canonical_name(text)
    except ConfigurationError:
        return
    assert canonical_name(name) == canonical_name(name + ".") == name


@quick
@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)))
def test_date_times_survive_a_round_trip(moment: datetime) -> None:
    assert parse_date_time(moment.isoformat()) == moment


# --- matching ---------------------------------------------------------------------------------------------------------

# Small worlds, so that rules and destinations meet often.
NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join)
ADDRESSES = st.integers(0, 15).map(lambda low: IPv4Address(0x0A000000 | low)) | st.integers(0, 15).map(IPv6Address)
PORTS = st.integers(0, 6)
IDENTIFIERS = st.sampled_from("xyz")

RULES = st.lists(
    st.builds(
        ProxyRule,
        proxies=st.lists(IDENTIFIERS, max_size=3).map(tuple),
        domains=st.none() | st.lists(st.builds(DomainPattern, NAMES, st.booleans()), min_size=1, max_size=3).map(tuple),
        subnets=st.none()
        | st.lists(
            st.builds(lambda ip, cut: parse_subnet(f"{ip}/{ip.max_prefixlen - cut}"), ADDRESSES, st.integers(0, 4)),
            min_size=1,
            max_size=3,
        ).map(tuple),
        ports=st.none()
        | st.lists(st.builds(lambda a, b: PortRange(min(a, b), max(a, b)), PORTS, PORTS), min_size=1, max_size=3).map(
            tuple
        ),
    ),
    max_size=8,
)
PROXIES = st.lists(
    st.builds(
        lambda proxy, identifier: PvdProxy(proxy.protocol, proxy.proxy, proxy.text, proxy.authority, (), identifier),
        st.sampled_from(
            [
                parse_proxy(ProxyProtocol.HTTPS_CONNECT, "tcp.example:443"),
                parse_proxy(ProxyProtocol.CONNECT_UDP, "https://udp.example/{target_host}/{target_port}/"),
                parse_proxy(ProxyProtocol.CONNECT_IP, "https://ip.example/"),
            ]
        ),
        st.none() | IDENTIFIERS,
    ),
    max_size=4,
)
FLOWS = st.builds(
    Flow,
    kind=st.sampled_from(FlowKind),
    host=st.none() | NAMES,
    ips=st.lists(ADDRESSES, max_size=2).map(tuple),
    port=st.none() | PORTS,
)


def plainly_matches(rule: ProxyRule, flow: Flow) -> bool:
    """PROXY-CONFIG §4.2 word by word: every property that is present has an element that matches."""
    if rule.domains is not None and not any(
        flow.host is not None and (flow.host == p.name or (p.is_wildcard and flow.host.endswith("." + p.name)))
        for p in rule.domains
    ):
        return False
    if rule.subnets is not None and not any(ip in network for ip in flow.ips for network in rule.subnets):
        return False
    return rule.ports is None or any(flow.port is not None and p.low <= flow.port <= p.high for p in rule.ports)


def plainly_select(proxies: list[PvdProxy], rules: list[ProxyRule], flow: Flow) -> Selection:
    fitting = sorted((proxy for proxy in proxies if carries(proxy, flow.kind)), key=preference)
    for rule in rules:
        if not plainly_matches(rule, flow):
            continue
        if not rule.proxies:
            return Selection(Verdict.EXCLUDED, rule=rule)
        named = [tuple(p for p in fitting if p.identifier == name) for name in dict.fromkeys(rule.proxies)]
        if any(named):
            return Selection(Verdict.PROXY, tuple(group for group in named if group), rule)
    free = tuple(proxy for proxy in fitting if proxy.identifier is None)
    return Selection(Verdict.PROXY, (free,)) if free else Selection(Verdict.NO_MATCH)


@quick
@given(PROXIES, RULES, FLOWS)
def test_the_first_matching_rule_wins(proxies: list[PvdProxy], rules: list[ProxyRule], flow: Flow) -> None:
    matcher = Matcher(proxies, rules)
    selection = matcher.select(flow)
    expected = plainly_select(proxies, rules, flow)
    assert (selection.verdict, selection.groups) == (expected.verdict, expected.groups)
    assert selection.rule is expected.rule
    explained, steps = matcher.explain(flow)
    assert explained == selection
    assert [step.reason for step in steps].count("decides") == (selection.verdict is not Verdict.NO_MATCH)


@quick
@given(PROXIES, RULES, RULES, FLOWS)
def test_rules_after_the_deciding_one_change_nothing(
    proxies: list[PvdProxy], rules: list[ProxyRule], more: list[ProxyRule], flow: Flow
) -> None:
    decided = Matcher(proxies, rules).select(flow)
    if decided.rule is not None:
        assert Matcher(proxies, rules + more).select(flow) == decided


@quick
@given(PROXIES, RULES, FLOWS, st.data())
def test_a_rule_of_unknown_proxies_changes_nothing(
    proxies: list[PvdProxy], rules: list[ProxyRule], flow: Flow, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(rules)))
    with_stranger = [*rules[:place], ProxyRule(("DIRECT",)), *rules[place:]]
    assert Matcher(proxies, with_stranger).select(flow) == Matcher(proxies, rules).select(flow)
