"""The router's decisions: proxy, direct or nowhere, and never directly against the document's or the user's will."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from masque_client.errors import ConfigurationError, DestinationBlocked
from masque_client.http.connector import ConnectOptions
from masque_client.netio.clock import MonotonicClock
from masque_client.pvd.discover import Discovery
from masque_client.pvd.match import FlowKind, Verdict
from masque_client.pvd.proxies import ProxyProtocol
from masque_client.pvd.source import PvdSource
from masque_client.tunnel.proxies import ProxyChoice, choose
from masque_client.tunnel.proxy_pool import ProxyPool
from masque_client.tunnel.route_policy import Unmatched
from masque_client.tunnel.router import Decision, Router, Way
from tests.unit.pvd.documents import DOCUMENT_B, HOST, TLS_PROXY, UDP_PROXY, document, parse

TCP, UDP = FlowKind.TCP, FlowKind.UDP
IP_PROXY = {"protocol": "connect-ip", "proxy": "https://proxy.example/ip/"}


def choice(body: bytes, identifier: str = HOST) -> ProxyChoice:
    parsed = parse(body, expected_identifier=identifier)
    return choose(Discovery(PvdSource.well_known(identifier), parsed), ProxyProtocol.CONNECT_UDP)


def router(of: ProxyChoice, unmatched: Unmatched = Unmatched.BLOCK) -> Router:
    clock = MonotonicClock()
    return Router(of, ProxyPool(ConnectOptions(), clock), clock, unmatched=unmatched)


def rules(*entries: dict[str, Any], proxies: tuple[dict[str, Any], ...] = (UDP_PROXY | {"identifier": "u"},)) -> bytes:
    return document(proxies=list(proxies), proxy_match=list(entries))


@pytest.mark.parametrize(
    ("host", "port", "unmatched", "way", "reason"),
    [
        ("www.corp.example", 443, Unmatched.DIRECT, Way.PROXY, "rule 4"),
        ("status.corp.example", 443, Unmatched.BLOCK, Way.BLOCKED, "rule 1 excludes it"),
        ("status.corp.example", 443, Unmatched.DIRECT, Way.DIRECT, "rule 1 excludes it"),
        ("10.1.2.3", 443, Unmatched.BLOCK, Way.BLOCKED, "rule 2 excludes it"),
        ("elsewhere.example", 80, Unmatched.BLOCK, Way.BLOCKED, "no rule covers it"),
        ("elsewhere.example", 80, Unmatched.DIRECT, Way.DIRECT, "no rule covers it"),
    ],
)
def test_the_digests_document(host: str, port: int, unmatched: Unmatched, way: Way, reason: str) -> None:
    decision = router(choice(DOCUMENT_B, "egress.corp.example"), unmatched).decide(UDP, host, port)
    assert (decision.way, decision.reason) == (way, reason)
    assert bool(decision.proxies) is (way is Way.PROXY)


@pytest.mark.parametrize("unmatched", list(Unmatched))
def test_what_the_document_wants_proxied_otherwise_never_goes_directly(unmatched: Unmatched) -> None:
    """Rule 4 of the document gives TCP to https-connect, which we do not speak."""
    decision = router(choice(DOCUMENT_B, "egress.corp.example"), unmatched).decide(TCP, "www.corp.example", 443)
    assert decision.way is Way.BLOCKED
    assert decision.reason == "rule 4 wants it carried by https-connect, which is not possible here"


def test_a_rule_for_protocols_that_are_not_ours_yields_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    body = rules(
        {"proxies": ["tunnel"]},
        {"ports": ["53"], "proxies": ["u"]},
        proxies=(UDP_PROXY | {"identifier": "u"}, IP_PROXY | {"identifier": "tunnel"}),
    )
    of = router(choice(body), Unmatched.DIRECT)
    assert [proxy.identifier for proxy in of.decide(UDP, "a.example", 53).proxies] == ["u"]
    assert of.decide(UDP, "a.example", 54).way is Way.BLOCKED


@pytest.mark.parametrize("unmatched", list(Unmatched))
def test_when_the_document_has_ended_nothing_has_a_way(unmatched: Unmatched) -> None:
    of = router(choice(rules({"ports": ["53"], "proxies": []}, {"proxies": ["u"]})), unmatched)
    assert of.decide(UDP, "a.example", 54).way is Way.PROXY
    of.replace(None)
    for port in (53, 54):
        decision = of.decide(UDP, "a.example", port)
        assert (decision.way, decision.selection.verdict) == (Way.BLOCKED, Verdict.NO_MATCH)
        assert "expired" in decision.reason


def test_new_rules_count_for_the_next_decision() -> None:
    of = router(choice(rules({"proxies": ["u"]})))
    of.replace(choice(rules({"ports": ["53"], "proxies": []}, {"proxies": ["u"]})))
    assert of.decide(UDP, "a.example", 53).way is Way.BLOCKED


def test_a_blocked_destination_is_not_opened() -> None:
    async def scenario() -> None:
        of = router(choice(rules({"proxies": []}, {"proxies": ["u"]})))
        with pytest.raises(DestinationBlocked, match=r"udp a\.example port 53 is blocked: rule 1 excludes it"):
            await of.open_udp("a.example", 53, lambda payloads: None)
        with pytest.raises(DestinationBlocked, match=r"tcp 192\.0\.2\.1 port 80 is blocked"):
            await of.open_tcp("192.0.2.1", 80)

    asyncio.run(scenario())


def test_what_is_no_destination_is_an_error() -> None:
    with pytest.raises(ConfigurationError):
        router(choice(rules({"proxies": ["u"]}))).decide(UDP, "not a host", 53)


def test_the_trace_is_logged_for_those_who_look(caplog: pytest.LogCaptureFixture) -> None:
    of = router(choice(rules({"ports": ["53"], "proxies": []}, {"proxies": ["u"]})))
    quiet: Decision = of.decide(UDP, "a.example", 54)
    with caplog.at_level(logging.DEBUG, "masque_client.tunnel.router"):
        assert of.decide(UDP, "a.example", 54) == quiet, "looking changes nothing"
    assert [record.message.strip() for record in caplog.records][-1] == "/proxy-match/1: decides"
    assert len(caplog.records) == 3


def test_a_document_without_our_protocol_is_of_no_use() -> None:
    with pytest.raises(ConfigurationError, match="offers no connect-udp proxy"):
        choice(document(proxies=[TLS_PROXY]))
