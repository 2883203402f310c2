"""The rule engine: the worked table, each property, groups, preference, local policy, explanations and speed."""

from __future__ import annotations

import random
import time
from ipaddress import ip_address

import pytest

from masque_client.errors import ConfigurationError
from masque_client.pvd.match import Flow, FlowKind, Matcher, Selection, Verdict
from masque_client.pvd.model import PvdDocument
from masque_client.pvd.proxies import ProxyProtocol, PvdProxy, parse_proxy
from masque_client.pvd.rules import DomainPattern, PortRange, ProxyRule, parse_rules, parse_subnet
from tests.unit.pvd.documents import DOCUMENT_A, DOCUMENT_B, DOCUMENT_C, UDP_PROXY, document, parse

TCP, UDP, IP = FlowKind.TCP, FlowKind.UDP, FlowKind.IP
EXCLUDED, NO_MATCH = Verdict.EXCLUDED, Verdict.NO_MATCH


def flow(kind: FlowKind, host: str | None, port: int | None = 443, *ips: str) -> Flow:
    return Flow(kind, host, tuple(ip_address(ip) for ip in ips), port)


def matcher(parsed: PvdDocument) -> Matcher:
    return Matcher(parsed.proxies, parsed.rules)


def shown(selection: Selection) -> str:
    """A selection as one line: the deciding rule and the places of its proxies, groups separated by bars."""
    groups = " | ".join(" ".join(p.pointer.rpartition("/")[2] for p in group) for group in selection.groups)
    rule = "-" if selection.rule is None else str(selection.rule.index)
    return f"{selection.verdict} {rule} [{groups}]"


# In document B the proxies are: 0 main connect-udp, 1 main https-connect, 2 lab connect-ip, 3 spare https-connect.
@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        (flow(TCP, "www.corp.example"), "proxy 3 [1 | 3]"),
        (flow(UDP, "www.corp.example"), "proxy 3 [0]"),
        (flow(TCP, "corp.example."), "proxy 3 [1 | 3]"),
        (flow(TCP, "STATUS.corp.example"), "excluded 0 []"),
        (flow(TCP, "a.status.corp.example"), "proxy 3 [1 | 3]"),
        (flow(TCP, "notcorp.example", 80), "no-match - []"),
        (flow(TCP, "notcorp.example"), "proxy 4 [3]"),
        (flow(TCP, "10.1.2.3"), "excluded 1 []"),
        (flow(TCP, "db.corp.example", 5432, "10.1.2.3"), "excluded 1 []"),
        (flow(TCP, "db.corp.example", 5432), "proxy 3 [1 | 3]"),
        (flow(TCP, "x.lab.corp.example", 22), "proxy 2 [2]"),
        (flow(TCP, "x.lab.corp.example", 23), "proxy 3 [1 | 3]"),
        (flow(UDP, "bücher.example", 8000), "proxy 2 [2]"),
        (flow(IP, "www.corp.example", None), "no-match - []"),
        (flow(TCP, "::ffff:10.9.9.9"), "excluded 1 []"),
        (flow(TCP, "unused.corp.example"), "proxy 3 [1 | 3]"),  # never `orphan`, which no rule names
    ],
)
def test_document_b(destination: Flow, expected: str) -> None:
    assert shown(matcher(parse(DOCUMENT_B, expected_identifier="egress.corp.example")).select(destination)) == expected


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        (flow(UDP, "x.d.example"), "proxy 9 [0]"),  # "DIRECT" is no identifier: not direct, but the next rule
        (flow(UDP, "x.f.example"), "proxy 8 [0]"),
        (flow(UDP, "x.c.example", 1), "proxy 9 [0]"),  # the author meant to exclude it, in a rule that is unusable
        (flow(TCP, "x.f.example"), "no-match - []"),
    ],
)
def test_document_c(destination: Flow, expected: str) -> None:
    assert shown(matcher(parse(DOCUMENT_C, expected_identifier="edge.example.org")).select(destination)) == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(UDP, "proxy - [0 1]"), (TCP, "proxy - [1 2]"), (IP, "proxy - [1]")],
)
def test_document_a_takes_whatever_its_protocols_carry(kind: FlowKind, expected: str) -> None:
    assert shown(matcher(parse(DOCUMENT_A)).select(flow(kind, "anything.example"))) == expected


# --- one property at a time -------------------------------------------------------------------------------------------


def excluded_by(rule: dict[str, object], destination: Flow) -> bool:
    rules, ignored, _ = parse_rules([rule | {"proxies": []}])
    assert not ignored
    return Matcher((), rules).select(destination).verdict is EXCLUDED


@pytest.mark.parametrize(
    ("domain", "host", "matches"),
    [
        ("a.example", "a.example", True),
        ("a.example", "A.EXAMPLE.", True),
        ("a.example", "x.a.example", False),
        ("a.example", "example", False),
        ("*.a.example", "a.example", True),
        ("*.a.example", "x.a.example", True),
        ("*.a.example", "x.y.z.a.example", True),
        ("*.a.example", "xa.example", False),
        ("*.a.example", "a.example.net", False),
        ("*.example", "example", True),
        ("straße.example", "strasse.example", False),
        ("straße.example", "xn--strae-oqa.example", True),
    ],
)
def test_domains(domain: str, host: str, matches: bool) -> None:
    assert excluded_by({"domains": ["unrelated.example", domain]}, flow(TCP, host)) is matches


@pytest.mark.parametrize(
    ("subnet", "ips", "matches"),
    [
        ("10.0.0.0/8", ["10.255.255.255"], True),
        ("10.0.0.0/8", ["11.0.0.0"], False),
        ("10.0.0.0/8", ["11.0.0.0", "10.0.0.1"], True),
        ("10.0.0.0/8", ["::ffff:10.0.0.1"], True),
        ("10.0.0.0/8", ["::a00:1"], False),
        ("10.0.0.0/8", [], False),
        ("::/0", ["10.0.0.1"], False),
        ("0.0.0.0/0", ["2001:db8::1"], False),
        ("0.0.0.0/0", ["10.0.0.1"], True),
        ("::ffff:10.0.0.0/104", ["10.0.0.1"], True),
        ("2001:db8::1", ["2001:db8::1"], True),
        ("2001:db8::1", ["2001:db8::2"], False),
        ("192.0.2.5/24", ["192.0.2.99"], True),
    ],
)
def test_subnets(subnet: str, ips: list[str], matches: bool) -> None:
    assert excluded_by({"subnets": ["203.0.113.0/24", subnet]}, flow(TCP, "a.example", 443, *ips)) is matches


@pytest.mark.parametrize(
    ("ports", "port", "matches"),
    [
        (["443"], 443, True),
        (["443"], 442, False),
        (["443"], 444, False),
        (["443"], None, False),
        (["8000-8999"], 7999, False),
        (["8000-8999"], 8000, True),
        (["8000-8999"], 8999, True),
        (["8000-8999"], 9000, False),
        (["0-65535"], 65535, True),
        (["0"], 0, True),
        (["65535"], 65535, True),
        (["1-10", "5-20", "21-30"], 25, True),
        (["1-10", "5-20", "21-30"], 31, False),
        (["1-10", "3-4"], 7, True),
        (["80", "80"], 80, True),
    ],
)
def test_ports(ports: list[str], port: int | None, matches: bool) -> None:
    assert excluded_by({"ports": ports}, flow(TCP, "a.example", port)) is matches


def test_all_properties_of_a_rule_must_match() -> None:
    rule: dict[str, object] = {"domains": ["a.example"], "subnets": ["10.0.0.0/8"], "ports": ["22"]}
    assert excluded_by(rule, flow(TCP, "a.example", 22, "10.0.0.1"))
    assert not excluded_by(rule, flow(TCP, "b.example", 22, "10.0.0.1"))
    assert not excluded_by(rule, flow(TCP, "a.example", 22, "11.0.0.1"))
    assert not excluded_by(rule, flow(TCP, "a.example", 23, "10.0.0.1"))


@pytest.mark.parametrize("host", ["a b", "*.example", "example..net", "1.2.3"])
def test_a_destination_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError):
        Flow(TCP, host)


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(ConfigurationError):
        Flow(TCP, "a.example", port=port)


def test_flows_print_for_people() -> None:
    assert str(flow(TCP, "A.example.")) == "tcp a.example port 443"
    assert str(flow(IP, "[2001:db8::1]", None)) == "ip 2001:db8::1"
    assert str(Flow(UDP)) == "udp unknown destination"


# --- which proxies ----------------------------------------------------------------------------------------------------


def proxies(*entries: tuple[str, str | None, tuple[str, ...]]) -> list[PvdProxy]:
    """HTTPS proxies by (host, identifier, alpn)."""
    parsed = [parse_proxy(ProxyProtocol.HTTPS_CONNECT, f"{host}.example:443") for host, *_ in entries]
    return [
        PvdProxy(p.protocol, p.proxy, p.text, p.authority, alpn, identifier, f"/proxies/{i}")
        for i, (p, (_, identifier, alpn)) in enumerate(zip(parsed, entries, strict=True))
    ]


def test_equal_choices_are_ordered_by_tls_and_http_version_and_place() -> None:
    cleartext = parse_proxy(ProxyProtocol.SOCKS5, "clear.example:1080", pointer="/proxies/9")
    offered = proxies(("none", None, ("spdy",)), ("h1", None, ("http/1.1",)), ("h2", None, ("h2",)))
    offered += proxies(*[("x", None, ())] * 3, ("unstated", None, ()), ("best", None, ("h2", "h3")))[3:]
    selection = Matcher([cleartext, *offered], ()).select(flow(TCP, "a.example"))
    assert shown(selection) == "proxy - [4 3 2 1 0 9]"


def test_identifiers_group_and_their_order_is_preference() -> None:
    offered = proxies(("a", "x", ()), ("b", "y", ()), ("c", "x", ()), ("d", None, ()))
    rule = ProxyRule(("y", "unknown", "x", "y"))
    assert shown(Matcher(offered, [rule]).select(flow(TCP, "a.example"))) == "proxy 0 [1 | 0 2]"


def test_identifierless_proxies_come_after_all_rules() -> None:
    offered = proxies(("a", None, ()), ("b", "y", ()))
    rules = [ProxyRule(("y",), ports=(PortRange(80, 80),)), ProxyRule((), ports=(PortRange(25, 25),), index=1)]
    engine = Matcher(offered, rules)
    assert shown(engine.select(flow(TCP, "a.example", 80))) == "proxy 0 [1]"
    assert shown(engine.select(flow(TCP, "a.example", 25))) == "excluded 1 []"
    assert shown(engine.select(flow(TCP, "a.example", 443))) == "proxy - [0]"


def test_the_configured_proxy_joins_unless_it_is_listed() -> None:
    known = parse_proxy(ProxyProtocol.HTTPS_CONNECT, "Known.example:443", pointer="/known")
    assert shown(Matcher((), (), known_proxy=known).select(flow(TCP, "a.example"))) == "proxy - [known]"
    listed = proxies(("known", "named", ()))
    assert Matcher(listed, (), known_proxy=known).select(flow(TCP, "a.example")).verdict is NO_MATCH
    exclusion = [ProxyRule(())]
    assert Matcher((), exclusion, known_proxy=known).select(flow(TCP, "a.example")).verdict is EXCLUDED


class OnlyHost:
    """A policy that proxies one host, and never through the proxies of another."""

    def __init__(self, wanted: str, refused: str) -> None:
        self.wanted, self.refused = wanted, refused

    def wants_proxy(self, flow: Flow) -> bool:
        return flow.host == self.wanted

    def allows(self, proxy: PvdProxy, flow: Flow) -> bool:
        return proxy.authority.host != self.refused


def test_local_policy_only_narrows() -> None:
    offered = proxies(("a", "x", ()), ("b", "x", ()), ("c", "y", ()))
    rules = [ProxyRule(("x", "y")), ProxyRule(("y",), index=1)]
    wanted, other = flow(TCP, "w.example"), flow(TCP, "o.example")
    some = Matcher(offered, rules, policy=OnlyHost("w.example", "a.example"))
    assert shown(some.select(wanted)) == "proxy 0 [1 | 2]"
    assert some.explain(other) == (Selection(Verdict.LOCAL_DENY), ())
    only_a = Matcher(offered[:1], rules[:1], policy=OnlyHost("w.example", "a.example"))
    selection, steps = only_a.explain(wanted)
    assert selection.verdict is NO_MATCH
    assert steps[0].reason == "local policy refuses its proxies"


# --- explanations -----------------------------------------------------------------------------------------------------


def test_an_explanation_gives_each_rule_a_reason() -> None:
    engine = matcher(parse(DOCUMENT_B, expected_identifier="egress.corp.example"))
    selection, steps = engine.explain(flow(TCP, "www.corp.example"))
    assert selection == engine.select(flow(TCP, "www.corp.example"))
    assert [(step.rule.index if step.rule else None, step.reason) for step in steps] == [
        (0, "none of its domains"),
        (1, "needs an address, and none is known"),
        (2, "none of its domains"),
        (3, "decides"),
    ]
    _, steps = engine.explain(flow(IP, "x.lab.corp.example", None, "192.0.2.1"))
    assert [step.reason for step in steps] == [
        "none of its domains",
        "none of its subnets",
        "needs a port",
        "none of its proxies carries ip",
        "needs a port",
        "no proxy takes any ip traffic",
    ]
    _, steps = engine.explain(flow(TCP, "192.0.2.1", 80))
    assert [step.reason for step in steps][2:5] == ["needs a host name", "needs a host name", "none of its ports"]


def test_the_catch_all_is_explained() -> None:
    parsed = parse(document(proxies=[UDP_PROXY], proxy_match=[{"proxies": ["DIRECT"]}]))
    _, steps = matcher(parsed).explain(flow(UDP, "a.example"))
    assert [(step.rule is None, step.reason) for step in steps] == [
        (False, "none of its proxies is known"),
        (True, "decides"),
    ]


# --- speed ------------------------------------------------------------------------------------------------------------


def test_many_rules_cost_little() -> None:
    """10,000 rules, 1,000 destinations: about 10 ms here; trying rule by rule would take minutes."""
    random_numbers = random.Random(8801)
    rules = []
    for index in range(10_000):
        number = random_numbers.randrange(1 << 24)
        rules.append(
            ProxyRule(
                ("p",),
                domains=(DomainPattern(f"d{number}.example", index % 2 == 0),) if index % 3 else None,
                subnets=(parse_subnet(f"10.{number >> 16}.{number >> 8 & 255}.0/24"),) if index % 3 == 0 else None,
                ports=(PortRange(number % 30_000, number % 30_000 + 1_000),) if index % 5 == 0 else None,
                index=index,
            )
        )
    engine = Matcher(proxies(("p", "p", ())), rules)
    targets = [random_numbers.choice(rules) for _ in range(1_000)]
    flows = [
        Flow(TCP, f"x.{rule.domains[0].name}", port=443)
        if rule.domains
        else Flow(TCP, None, (rule.subnets[0].network_address,) if rule.subnets else (), 443)
        for rule in targets
    ]
    started = time.process_time()
    found = [engine.select(destination) for destination in flows]
    assert time.process_time() - started < 10.0
    assert {selection.verdict for selection in found} == {Verdict.PROXY, NO_MATCH}
