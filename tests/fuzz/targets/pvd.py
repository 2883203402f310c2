"""PvD documents: the strict model, then the rules it holds, asked for destinations of every kind."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address

from masque_client.errors import PvdError
from masque_client.pvd.match import Flow, FlowKind, Matcher, Verdict
from masque_client.pvd.model import parse_pvd
from masque_client.pvd.policy import ParsePolicy
from tests.fuzz.harness import FuzzOne

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HOST = "masque.example.net"
POLICIES = (ParsePolicy(), ParsePolicy(strict_rules=True), ParsePolicy(reached_over_tls=False))
FLOWS = (
    Flow(FlowKind.UDP, "www.example.com", port=443),
    Flow(FlowKind.TCP, "a.internal.example.net", ips=(ip_address("10.1.2.3"),), port=22),
    Flow(FlowKind.IP, ips=(ip_address("2001:db8::1"), ip_address("192.0.2.1"))),
    Flow(FlowKind.UDP, "xn--mnchen-3ya.example"),
)
WORDS = tuple(
    word.encode()
    for word in (
        '"identifier"', '"expires"', '"prefixes"', '"dnsZones"', '"noInternet"', '"splitDnsClaims"', '"proxies"',
        '"proxy-match"', '"protocol"', '"proxy"', '"mandatory"', '"alpn"', '"identifier"', '"domains"', '"subnets"',
        '"ports"', '"connect-udp"', '"connect-ip"', '"http-connect"', '"socks5"', '"2001:db8::/32"', '"*.example"',
        '"masque.example.net"', '"2026-12-01T00:00:00Z"', '"vendor-x"', "\\ud800", "1e999", "0-65535",
    )
)  # fmt: skip


def make() -> FuzzOne:
    """Input: one byte that chooses the policy, the document."""
    return fuzz_one


def fuzz_one(data: bytes) -> None:
    policy = POLICIES[(data[0] if data else 0) % len(POLICIES)]
    try:
        document = parse_pvd(data[1:], expected_identifier=HOST, now=NOW, policy=policy)
    except PvdError as error:
        assert str(error)
        return
    assert NOW < document.usable_until <= document.expires
    matcher = Matcher(document.proxies, document.rules)
    for flow in FLOWS:
        selection, steps = matcher.explain(flow)
        assert (selection.verdict is Verdict.PROXY) is bool(selection.groups)
        assert steps
