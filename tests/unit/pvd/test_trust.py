"""The trust rules: a document narrows what the user allows, and never anything else (PROXY-CONFIG §4.2, §5, §6)."""

from __future__ import annotations

from dataclasses import fields, replace
from ipaddress import IPv6Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque_client.errors import PvdError
from masque_client.pvd.fetch import Download, FetchOptions, evaluate
from masque_client.pvd.match import Flow, FlowKind, Matcher, Verdict
from masque_client.pvd.model import PvdDocument
from masque_client.pvd.proxies import ProxyProtocol, parse_proxy
from masque_client.pvd.rules import DomainPattern, parse_subnet
from masque_client.pvd.source import PvdSource
from masque_client.pvd.trust import LocalScope, NetworkPvdTrust, may_receive_credentials
from tests.unit.pvd.documents import DOCUMENT_A, DOCUMENT_B, DOCUMENT_G, HOST, NOW, document, parse

CORP = PvdSource.parse("egress.corp.example")
AT_NOON = FetchOptions(now=lambda: NOW)
PIO = (IPv6Network("2001:db8:cafe:1::/64"),)


def corp() -> PvdDocument:
    return parse(DOCUMENT_B, expected_identifier="egress.corp.example")


def tcp(host: str, port: int = 443) -> Flow:
    return Flow(FlowKind.TCP, host, port=port)


def patterns(*texts: str) -> tuple[DomainPattern, ...]:
    return tuple(DomainPattern.parse(text) for text in texts)


# --- three names agree (of which TLS checks the certificate's, see `test_fetch`) --------------------------------------


@pytest.mark.parametrize(
    ("asked", "identifier", "delivered_by", "outcome"),
    [
        (HOST, HOST, HOST, "proxies"),
        (HOST, "other.example.org", HOST, "refused"),
        (HOST, "other.example.org", "other.example.org", "refused"),
        (HOST, HOST, "other.example.org", "no proxies"),
    ],
)
def test_proxy_host_identifier_and_deliverer_must_agree(
    asked: str, identifier: str, delivered_by: str, outcome: str
) -> None:
    body = DOCUMENT_A.replace(b"Masque.Example.NET.", identifier.encode())
    download = Download(body, delivered_by, NOW, None, may_store=True)
    try:
        found = "proxies" if evaluate(download, PvdSource.parse(asked), AT_NOON).proxies else "no proxies"
    except PvdError:
        found = "refused"
    assert found == outcome


# --- a document only narrows ------------------------------------------------------------------------------------------


def test_a_document_adds_no_destination_to_the_users() -> None:
    """The example of PROXY-CONFIG §4.2: the user proxies *.example.com, the document names another company, too."""
    rules = [{"domains": ["internal.example.com", "other.company.com"], "proxies": ["p"]}]
    entry = {"protocol": "https-connect", "proxy": f"{HOST}:443", "identifier": "p"}
    found = parse(document(proxies=[entry], proxy_match=rules))
    matcher = Matcher(found.proxies, found.rules, policy=LocalScope(patterns("*.example.com")))
    verdicts = [matcher.select(tcp(host)).verdict for host in ("internal.example.com", "other.company.com")]
    assert verdicts == [Verdict.PROXY, Verdict.LOCAL_DENY]


def test_destinations_may_be_networks() -> None:
    scope = LocalScope((parse_subnet("2001:db8::/32"), *patterns("exact.example")))
    wanted = [scope.wants_proxy(tcp(host)) for host in ("2001:db8::7", "192.0.2.1", "exact.example", "a.exact.example")]
    assert wanted == [True, False, True, False]


HOSTS = st.sampled_from(["www.corp.example", "x.lab.corp.example", "status.corp.example", "10.1.2.3", "other.example"])
SCOPES = st.builds(
    LocalScope,
    destinations=st.none() | st.lists(st.sampled_from(patterns("*.corp.example", "*.lab.corp.example"))).map(tuple),
    proxy_hosts=st.none() | st.lists(st.sampled_from(patterns("*.corp.example", "lab-gw.corp.example"))).map(tuple),
    pinned=st.just(()) | st.just(corp().proxies[:1]),
)


@settings(derandomize=True, deadline=None, database=None)
@given(HOSTS, st.sampled_from([22, 443]), st.sampled_from(FlowKind), SCOPES)
def test_no_scope_opens_what_the_document_alone_does_not(
    host: str, port: int, kind: FlowKind, scope: LocalScope
) -> None:
    flow = Flow(kind, host, port=port)
    found = corp()
    narrowed = Matcher(found.proxies, found.rules, policy=scope).select(flow)
    for proxy in (proxy for group in narrowed.groups for proxy in group):
        assert scope.wants_proxy(flow) and scope.allows(proxy, flow)
    if Matcher(found.proxies, found.rules).select(flow).verdict is Verdict.EXCLUDED:
        assert narrowed.verdict in (Verdict.EXCLUDED, Verdict.LOCAL_DENY)


# --- the user's pin wins ----------------------------------------------------------------------------------------------


def test_a_pinned_proxy_is_the_only_one_used() -> None:
    pin = parse_proxy(ProxyProtocol.HTTPS_CONNECT, "[2001:db8:5::10]:8443")
    found = corp()
    flow = tcp("www.corp.example")
    preferred = Matcher(found.proxies, found.rules).select(flow)
    pinned = Matcher(found.proxies, found.rules, policy=LocalScope(pinned=(pin,)), known_proxy=pin).select(flow)
    assert preferred.groups[0][0].text == "egress.corp.example:443"
    assert [[proxy.text for proxy in group] for group in pinned.groups] == [[pin.text]]


def test_a_pinned_proxy_that_the_document_does_not_know_is_used_all_the_same() -> None:
    pin = parse_proxy(ProxyProtocol.HTTPS_CONNECT, "mine.example:443")
    found = corp()
    matcher = Matcher(found.proxies, found.rules, policy=LocalScope(pinned=(pin,)), known_proxy=pin)
    (group,) = matcher.select(tcp("www.corp.example")).groups
    assert [proxy.text for proxy in group] == ["mine.example:443"]


def test_proxies_outside_the_allowed_hosts_are_not_used() -> None:
    found = corp()
    scope = LocalScope(proxy_hosts=patterns("egress.corp.example"))
    selection = Matcher(found.proxies, found.rules, policy=scope).select(tcp("www.corp.example"))
    assert [[proxy.text for proxy in group] for group in selection.groups] == [["egress.corp.example:443"]]


def test_credentials_stay_with_the_host_they_were_given_for() -> None:
    main, _, lab, spare, _ = corp().proxies
    assert [may_receive_credentials(proxy, CORP) for proxy in (main, lab, spare)] == [True, False, False]
    cleartext = parse_proxy(ProxyProtocol.HTTP_CONNECT, "egress.corp.example:80")
    assert not may_receive_credentials(cleartext, CORP)


def test_a_document_has_no_field_for_trust_routes_or_the_kill_switch() -> None:
    """Adding one must be a decision: what a server may say stands here."""
    assert {field.name for field in fields(PvdDocument)} == {
        *("identifier", "expires", "usable_until", "prefixes", "dns_zones", "no_internet", "split_dns_claims"),
        *("proxies", "rules", "is_proxy_configuration_ignored", "ignored", "warnings"),
    }


# --- documents of networks --------------------------------------------------------------------------------------------

FULL_TRUST = NetworkPvdTrust(True, frozenset({"net.example.com"}), frozenset({"proxy.example.com"}))


def network_document() -> PvdDocument:
    return parse(DOCUMENT_G, expected_identifier="net.example.com", from_ra_prefixes=PIO)


def test_a_network_may_choose_among_the_users_own_proxies() -> None:
    assert FULL_TRUST.narrow(network_document()) == network_document()


@pytest.mark.parametrize(
    ("trust", "reason"),
    [
        (NetworkPvdTrust(), "not used unless a profile allows it"),
        (replace(FULL_TRUST, is_enabled=False), "not used unless a profile allows it"),
        (replace(FULL_TRUST, allowed_pvd_ids=frozenset({"example.com"})), "no profile trusts the network"),
        (replace(FULL_TRUST, allowed_proxy_hosts=frozenset({"example.com"})), "no profile names the proxy host"),
    ],
)
def test_each_of_the_three_conditions_is_needed(trust: NetworkPvdTrust, reason: str) -> None:
    narrowed = trust.narrow(network_document())
    assert narrowed.proxies == ()
    assert reason in narrowed.ignored[0].reason
    assert narrowed.dns_zones == ("corp.example.com",)  # still shown
    flow = Flow(FlowKind.UDP, "www.example", port=443)
    assert Matcher(narrowed.proxies, narrowed.rules).select(flow).verdict is Verdict.NO_MATCH
