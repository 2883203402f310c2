"""The linter: what it says of good and bad documents, where it says that it is, and that clients agree."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import timedelta
from ipaddress import IPv6Network, ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque_client.errors import PvdError
from masque_client.pvd.json_strict import MAX_BODY_BYTES
from masque_client.pvd.lint import lint
from masque_client.pvd.match import Flow, FlowKind, Matcher
from masque_client.pvd.model import parse_pvd
from masque_client.pvd.problems import Problem, Severity
from tests.property.test_pvd import JSON_VALUES
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
    document,
    parse,
)

OURS = {"protocol": "https-connect", "proxy": f"{HOST}:443"}
PIO = IPv6Network("2001:db8:cafe:1::/64")


def check(body: bytes, expected_identifier: str | None = HOST, **arguments: Any) -> tuple[Problem, ...]:
    return lint(body, now=NOW, expected_identifier=expected_identifier, **arguments)


def brief(problems: Sequence[Problem]) -> list[tuple[str, str, int | None]]:
    return [(str(problem.severity), problem.pointer, problem.line) for problem in problems]


def only(severity: Severity, problems: Sequence[Problem]) -> list[str]:
    return [problem.pointer for problem in problems if problem.severity is severity]


# --- the example documents --------------------------------------------------------------------------------------------


def test_a_clean_document_has_no_problems() -> None:
    assert check(document(proxies=[OURS])) == ()


def test_document_a_is_usable_as_it_stands() -> None:
    assert brief(check(DOCUMENT_A)) == [("note", "/expires", 1), ("note", "/proxies/2/acme_tier", 5)]


def test_document_b_has_an_orphan() -> None:
    found = check(DOCUMENT_B, "egress.corp.example")
    assert only(Severity.ERROR, found) == []
    assert only(Severity.WARNING, found) == ["/proxies/4/identifier"]


def test_document_c_has_every_problem_at_its_place() -> None:
    found = check(DOCUMENT_C, "edge.example.org")
    assert [
        (problem.pointer, problem.line, problem.column) for problem in found if problem.severity is Severity.ERROR
    ] == [
        ("/proxies/2/proxy", 5, 34),
        ("/proxies/4/proxy", 7, 36),
        ("/proxies/5/identifier", 8, 69),
        ("/proxies/6/alpn", 9, 96),
        ("/proxies/7", 10, 5),
        ("/proxy-match/0/ports/0", 12, 45),
        ("/proxy-match/1/domains/1", 13, 34),
        ("/proxy-match/2/domains", 14, 7),
        ("/proxy-match/3/acme_processid", 15, 35),
        ("/proxy-match/5", 17, 5),
        ("/proxy-match/6/subnets/0", 18, 19),
        ("/proxy-match/7/ports/0", 19, 17),
    ]
    assert only(Severity.WARNING, found) == [
        *("/proxies/1/mandatory/0", "/proxies/3/protocol"),  # other clients may know them
        *("/proxy-match/4", "/proxy-match/4/proxies/0", "/proxy-match/8/proxies/0"),
    ]
    lost_exclusions = [problem.pointer for problem in found if "is proxied after all" in problem.message]
    assert lost_exclusions == ["/proxy-match/1/domains/1", "/proxy-match/3/acme_processid", "/proxy-match/6/subnets/0"]
    assert any("write an empty array" in problem.message for problem in found)


@pytest.mark.parametrize(
    ("body", "pointer", "message"),
    [
        (DOCUMENT_D, "/identifier", 'names "other.example.org.", but "masque.example.net" was asked'),
        (DOCUMENT_E, "/expires", "an HTTP-date: write 2026-12-23T07:28:00Z"),
        (DOCUMENT_F, "/proxies", "repeated"),
        (DOCUMENT_F.replace(b"} ] }", b"} ], }"), "", "not JSON: "),
    ],
)
def test_documents_d_to_f_are_refused(body: bytes, pointer: str, message: str) -> None:
    found = [problem for problem in check(body) if problem.severity is Severity.ERROR]
    assert any(problem.pointer == pointer and message in problem.message for problem in found), found
    assert any("clients ignore the whole document" in problem.message for problem in found)


def test_document_g_depends_on_where_it_came_from() -> None:
    arguments: dict[str, Any] = {"expected_identifier": "net.example.com"}
    assert only(Severity.ERROR, check(DOCUMENT_G, **arguments, ra_prefixes=[PIO])) == []
    uncovered = check(DOCUMENT_G, **arguments, ra_prefixes=[PIO, IPv6Network("2001:db8:f00d::/64")])
    assert only(Severity.ERROR, uncovered) == ["/prefixes"]
    assert only(Severity.ERROR, check(DOCUMENT_G, **arguments)) == ["/prefixes"]


# --- one by one -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "severity", "pointer", "message"),
    [
        ({"identifier": LEFT_OUT}, "error", "", "the key identifier is missing"),
        ({"identifier": 7}, "error", "/identifier", "must be a string"),
        ({"identifier": "a b"}, "error", "/identifier", "not a host name"),
        ({"expires": LEFT_OUT}, "error", "", "the key expires is missing"),
        ({"expires": "2026-11-22T11:59:59Z"}, "error", "/expires", "expired at"),
        ({"expires": "2026-11-22T12:30:00Z"}, "warning", "/expires", "expires in 30 minutes"),
        ({"expires": "2027-11-22T12:30:00Z"}, "note", "/expires", "30 days at most"),
        ({"expires": "2026-11-24T12:30:00.5Z"}, "note", "/expires", "some clients read only"),
        ({"prefixes": LEFT_OUT}, "error", "", "the key prefixes is missing"),
        ({"prefixes": ["2001:db8::/32"]}, "error", "/prefixes", "must be empty"),
        ({"dnsZones": ["a.example", ".."]}, "error", "/dnsZones/1", "clients ignore the key"),
        ({"noInternet": "true"}, "error", "/noInternet", "must be a boolean"),
        ({"splitDnsClaims": {}}, "error", "/splitDnsClaims", "must be an array"),
        ({"proxys": []}, "warning", "/proxys", "a typing error?"),
        ({"vendor-acme": 7}, "error", "/vendor-acme", "must hold an object"),
        ({"proxies": {}}, "error", "/proxies", "all proxies and rules"),
        ({"proxies": [OURS] * 65}, "error", "/proxies", "65 entries"),
        ({"proxy_match": [{"proxies": []}] * 4097}, "error", "/proxy-match", "4097 rules"),
        ({"proxies": []}, "warning", "/proxies", "offers no proxy"),
        ({"proxies": [{"proxy": "a.example:1"}]}, "error", "/proxies/0", "the key protocol is missing"),
        ({"proxies": [{"protocol": "socks5"}]}, "error", "/proxies/0", "the key proxy is missing"),
        ({"proxies": [OURS | {"protocol": "socks5"}]}, "warning", "/proxies/0/protocol", "over TLS ignore it"),
        ({"proxies": [OURS | {"proxy": "127.0.0.1:1"}]}, "error", "/proxies/0/proxy", "only this machine"),
        ({"proxies": [OURS | {"proxy": "other.example:1"}]}, "note", "/proxies/0/proxy", "another host"),
        ({"proxies": [OURS | {"identifer": "a"}]}, "warning", "/proxies/0/identifer", "typing error"),
        ({"proxies": [OURS | {"matchDomains": []}]}, "error", "/proxies/0/matchDomains", "outdated drafts"),
        ({"proxies": [OURS | {"alpn": "h3"}]}, "error", "/proxies/0/alpn", "clients ignore the key"),
        ({"proxies": [OURS | {"mandatory": ["x"]}]}, "error", "/proxies/0/mandatory/0", "is missing"),
        ({"proxies": [OURS | {"identifier": 'a"b'}]}, "warning", "/proxies/0/identifier", "should not need escapes"),
        ({"proxies": [OURS], "proxy_match": [{"proxies": []}]}, "note", "/proxies/0", "every destination that no rule"),
        ({"proxy_match": ["x"]}, "error", "/proxy-match/0", "must be an object"),
        ({"proxy_match": [{"proxies": "x"}]}, "error", "/proxy-match/0/proxies", "must be an array"),
        ({"proxy_match": [{"proxies": [], "subnets": ["10.1.0.0/8"]}]}, "warning", "/proxy-match/0/subnets/0", "bits"),
    ],
)  # fmt: skip
def test_single_problems(changes: dict[str, Any], severity: str, pointer: str, message: str) -> None:
    found = check(document(**changes))
    assert any((p.severity, p.pointer) == (severity, pointer) and message in p.message for p in found), found


def test_all_problems_of_one_entry_are_named() -> None:
    entry = {
        "protocol": "connect-udp",
        "proxy": "http://x",
        "identifier": "",
        "alpn": [""],
        "mandatory": ["alpn"],
        "match": [],
    }
    found = check(document(proxies=[entry]))
    assert sorted(only(Severity.ERROR, found)) == [
        f"/proxies/0/{key}" for key in ("alpn", "identifier", "match", "proxy")
    ]


def test_all_problems_of_one_rule_are_named() -> None:
    rule = {"proxies": ["a", 7], "domains": ["*", "good.example", "b ad"], "ports": ["x"], "odd": 1}
    found = check(document(proxy_match=[rule]))
    assert sorted(only(Severity.ERROR, found)) == [
        f"/proxy-match/0/{place}" for place in ("domains/0", "domains/2", "odd", "ports/0", "proxies/1")
    ]


def test_all_three_mandatory_keys_are_looked_at() -> None:
    found = check(document(identifier="x.example", expires="soon", prefixes=7))
    assert only(Severity.ERROR, found) == ["/identifier", "/expires", "/prefixes"]


@pytest.mark.parametrize(
    ("body", "line", "column", "message"),
    [
        (b'{\n "a": 1,\n}', 3, 1, "not JSON"),
        (b"\xff", None, None, "not UTF-8"),
        (b"\xef\xbb\xbf{}", None, None, "byte order mark"),
        (b"[]", None, None, "not a JSON object"),
        (b'{"a": NaN}', None, None, "NaN"),
        (b'{"a": [' + b"[" * 20 + b"]" * 20 + b"]}", None, None, "nests deeper"),
        (b" " * (MAX_BODY_BYTES + 1), None, None, "larger than"),
        (b"", 1, 1, "not JSON"),
    ],
)  # fmt: skip
def test_syntax(body: bytes, line: int | None, column: int | None, message: str) -> None:
    problem = check(body)[0]
    assert message in problem.message
    assert (problem.line, problem.column) == (line, column)


def test_a_repeated_member_deep_inside_is_found_with_its_line() -> None:
    body = document(proxies=[OURS]).replace(b'"protocol"', b'\n"prot\\u006fcol": "socks5",\n"protocol"')
    (problem,) = check(body)
    assert (problem.pointer, problem.line, problem.column) == ("/proxies/0/protocol", 3, 1)


def test_without_an_expected_host_the_documents_own_name_counts() -> None:
    assert check(document(proxies=[OURS], identifier=HOST), None) == ()
    assert only(Severity.ERROR, check(document(identifier=[]), None)) == ["/identifier"]


# --- rules that never decide ------------------------------------------------------------------------------------------


def rules(*texts: tuple[list[str], dict[str, list[str]]]) -> bytes:
    proxies = [
        OURS | {"identifier": "tcp"},
        {"protocol": "connect-ip", "proxy": f"https://{HOST}/ip", "identifier": "all"},
    ]
    return document(proxies=proxies, proxy_match=[{"proxies": names, **properties} for names, properties in texts])


@pytest.mark.parametrize(
    ("earlier", "later", "is_dead"),
    [
        (([], {}), (["all"], {}), True),
        (([], {"domains": ["*.example"]}), (["all"], {"domains": ["a.example", "*.b.example"]}), True),
        (([], {"domains": ["a.example"]}), (["all"], {"domains": ["*.a.example"]}), False),
        (([], {"domains": ["*.example"]}), (["all"], {"domains": ["a.example", "a.test"]}), False),
        (([], {"domains": ["*.example"]}), (["all"], {}), False),
        (([], {"subnets": ["10.0.0.0/8"]}), (["all"], {"subnets": ["10.1.0.0/16", "10.0.0.1"]}), True),
        (([], {"subnets": ["10.1.0.0/16"]}), (["all"], {"subnets": ["10.0.0.0/8"]}), False),
        (([], {"subnets": ["0.0.0.0/0"]}), (["all"], {"subnets": ["::/0"]}), False),
        (([], {"ports": ["1-100"]}), (["all"], {"ports": ["1", "50-100"]}), True),
        (([], {"ports": ["1-100"]}), (["all"], {"ports": ["50-101"]}), False),
        (([], {"ports": ["1-100"]}), (["all"], {}), False),
        ((["tcp"], {}), (["all"], {}), False),  # what is not TCP gets past the first
        ((["all"], {}), (["tcp"], {}), True),
        ((["nobody"], {}), (["tcp"], {}), False),
    ],
)  # fmt: skip
def test_shadowed_rules(earlier: Any, later: Any, is_dead: bool) -> None:
    found = check(rules(earlier, later))
    assert (
        any(problem.pointer == "/proxy-match/1" and "can never decide" in problem.message for problem in found)
        is is_dead
    )


PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "domains": st.lists(st.sampled_from(["a.example", "*.a.example", "*.example"]), min_size=1, max_size=2),
        "subnets": st.lists(st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "::/0"]), min_size=1, max_size=2),
        "ports": st.lists(st.sampled_from(["1", "1-5", "3-9"]), min_size=1, max_size=2),
    },
)
RULES = st.lists(
    st.tuples(st.lists(st.sampled_from(["tcp", "all", "nobody"]), max_size=2), PROPERTIES), min_size=2, max_size=4
)
FLOWS = st.builds(
    Flow,
    st.sampled_from(FlowKind),
    st.sampled_from([None, "example", "a.example", "b.a.example"]),
    st.sampled_from([(), (ip_address("10.1.0.1"),), (ip_address("10.2.0.1"), ip_address("2001:db8::1"))]),
    st.sampled_from([None, 1, 4, 8]),
)


@settings(derandomize=True, deadline=None, database=None, max_examples=200)
@given(RULES, st.lists(FLOWS, min_size=20, max_size=20))
def test_what_is_called_dead_never_decides(texts: Any, flows: list[Flow]) -> None:
    body = rules(*texts)
    dead = {problem.pointer for problem in check(body) if "can never decide" in problem.message}
    found = parse(body)
    matcher = Matcher(found.proxies, found.rules)
    for flow in flows:
        rule = matcher.select(flow).rule
        assert rule is None or rule.pointer not in dead


# --- linter and parser agree ------------------------------------------------------------------------------------------


@settings(derandomize=True, deadline=None, database=None, max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(["identifier", "expires", "prefixes", "dnsZones", "noInternet", "proxies", "proxy-match", "x"]),
        JSON_VALUES,
    )
)
def test_a_document_without_errors_is_used_as_a_whole(changes: dict[str, Any]) -> None:
    try:
        body = json.dumps({**json.loads(document(proxies=[OURS])), **changes}).encode()
    except (ValueError, UnicodeEncodeError):
        return
    errors = only(Severity.ERROR, check(body))
    try:
        found = parse_pvd(body, expected_identifier=HOST, now=NOW)
    except PvdError:
        assert errors
        return
    if not errors:
        assert not found.is_proxy_configuration_ignored
        assert len(found.rules) == len(changes.get("proxy-match", []))


@settings(derandomize=True, deadline=None, database=None, max_examples=300)
@given(
    st.binary(max_size=80) | st.integers(0, len(DOCUMENT_C)).map(lambda cut: DOCUMENT_C[:cut] + DOCUMENT_C[cut + 1 :])
)
def test_any_bytes_are_judged(body: bytes) -> None:
    for problem in check(body):
        assert (problem.line or 1) >= 1 and (problem.column or 1) >= 1


def test_the_largest_rule_list_is_checked_quickly() -> None:
    many = [{"domains": [f"h{number}.example", f"*.w{number}.example"], "proxies": []} for number in range(4096)]
    body = document(proxies=[OURS], proxy_match=many, expires=(NOW + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%SZ"))
    started = time.process_time()
    assert only(Severity.ERROR, check(body)) == []
    assert time.process_time() - started < 10
