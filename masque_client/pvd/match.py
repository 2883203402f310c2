"""The ordered rules of a PvD document, evaluated for one destination (PROXY-CONFIG §4.2).

Pure: no clock, no resolver, no network. The first rule in the document's order that matches the destination and can
be acted on decides; identifier-less proxies come after all rules, as the catch-all.

Rules are compiled once (`rule_index`); a destination then costs microseconds, whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple, Protocol

from masque_client.errors import ConfigurationError
from masque_client.pvd.names import IpAddress, canonical_name, parse_address, unmapped
from masque_client.pvd.proxies import ProxyProtocol, PvdProxy
from masque_client.pvd.rule_index import RuleIndex, members, rule_set
from masque_client.pvd.rules import ProxyRule

PREFERRED_ALPN = ("h3", "h2", "http/1.1")
"""The HTTP versions we speak, best first."""

Group = tuple[PvdProxy, ...]


class FlowKind(StrEnum):
    """What has to be carried. TCP and UDP packets inside an IP tunnel are `TCP` and `UDP`; `IP` is the rest (ICMP)."""

    TCP = "tcp"
    UDP = "udp"
    IP = "ip"


_CARRIES: dict[ProxyProtocol, frozenset[FlowKind]] = {
    ProxyProtocol.SOCKS5: frozenset({FlowKind.TCP}),  # we do not speak UDP ASSOCIATE
    ProxyProtocol.HTTP_CONNECT: frozenset({FlowKind.TCP}),
    ProxyProtocol.HTTPS_CONNECT: frozenset({FlowKind.TCP}),
    ProxyProtocol.CONNECT_TCP: frozenset({FlowKind.TCP}),
    ProxyProtocol.CONNECT_UDP: frozenset({FlowKind.UDP}),
    ProxyProtocol.CONNECT_IP: frozenset(FlowKind),
}


@dataclass(frozen=True, slots=True)
class Flow:
    """One destination.

    The host may be given in any spelling, or as an IP literal; construction makes it canonical.

    Attributes:
        kind: what has to be carried.
        host: the name, when one is known. Names are never looked up, nor addresses reversed, here.
        ips: addresses known for it; empty for a name that is not resolved locally, where `subnets` rules cannot match.
        port: None for protocols without ports.

    Raises:
        ConfigurationError: the host is neither a name nor an address, or the port is none.
    """

    kind: FlowKind
    host: str | None = None
    ips: tuple[IpAddress, ...] = ()
    port: int | None = None

    def __post_init__(self) -> None:
        host, ips = self.host, self.ips
        literal = parse_address(host.removeprefix("[").removesuffix("]")) if host else None
        if literal is not None:
            host, ips = None, (literal, *ips)
        if self.port is not None and not 0 <= self.port <= 65_535:
            raise ConfigurationError(f"{self.port} is not a port")
        object.__setattr__(self, "host", canonical_name(host) if host else None)
        object.__setattr__(self, "ips", tuple(unmapped(ip) for ip in ips))

    def __str__(self) -> str:
        target = self.host or ", ".join(str(ip) for ip in self.ips) or "unknown destination"
        return f"{self.kind} {target}" if self.port is None else f"{self.kind} {target} port {self.port}"


class LocalPolicy(Protocol):
    """What the user wants, document or not. Both answers can only take possibilities away."""

    def wants_proxy(self, flow: Flow) -> bool:
        """Whether this destination is to be proxied at all."""

    def allows(self, proxy: PvdProxy, flow: Flow) -> bool:
        """Whether this proxy may be used for this destination."""


class AllowAll:
    """The policy of a user who trusts the document for every destination."""

    def wants_proxy(self, flow: Flow) -> bool:
        """Always."""
        return True

    def allows(self, proxy: PvdProxy, flow: Flow) -> bool:
        """Always."""
        return True


class Verdict(StrEnum):
    """What is to happen. Only `PROXY` permits sending; the others do not say "go direct", which is local policy."""

    PROXY = "proxy"
    EXCLUDED = "excluded"
    NO_MATCH = "no-match"
    LOCAL_DENY = "local-deny"


@dataclass(frozen=True, slots=True)
class Selection:
    """The answer for one flow.

    Attributes:
        verdict: see `Verdict`.
        groups: for `PROXY`, never empty: groups in order of preference. The members of a group are equal choices,
            best first: keep using the one that works, try the others when it fails, then the next group, then stop.
        rule: the rule that decided; None when the identifier-less proxies did, or nothing.
    """

    verdict: Verdict
    groups: tuple[Group, ...] = ()
    rule: ProxyRule | None = None


class Step(NamedTuple):
    """Why one rule, or the catch-all after them (`rule` is None), did or did not decide."""

    rule: ProxyRule | None
    reason: str


class Matcher:
    """Rules and proxies of one document, compiled. Immutable; one serves any number of flows.

    Args:
        proxies: of the document, in its order.
        rules: of the document, in its order, unusable ones already removed.
        policy: local policy, which may only narrow.
        known_proxy: the proxy that the user configured. It joins the identifier-less ones unless the document lists
            it, in which case the listed entry alone counts.
    """

    def __init__(
        self,
        proxies: Sequence[PvdProxy],
        rules: Sequence[ProxyRule],
        *,
        policy: LocalPolicy | None = None,
        known_proxy: PvdProxy | None = None,
    ) -> None:
        self._rules = tuple(rules)
        self._policy = policy or AllowAll()
        self._index = RuleIndex(self._rules)
        self._identifiers = {proxy.identifier for proxy in proxies}
        usable = list(proxies)
        if known_proxy is not None and _location(known_proxy) not in map(_location, proxies):
            usable.append(replace(known_proxy, identifier=None))
        usable.sort(key=preference)
        self._free = {kind: tuple(p for p in usable if p.identifier is None and carries(p, kind)) for kind in FlowKind}
        self._groups = {kind: _groups(usable, kind) for kind in FlowKind}
        self._decisive = {kind: self._decisive_rules(kind) for kind in FlowKind}

    def select(self, flow: Flow) -> Selection:
        """Which proxies this destination may use."""
        if not self._policy.wants_proxy(flow):
            return Selection(Verdict.LOCAL_DENY)
        for number in members(self._index.matching(flow.host, flow.ips, flow.port) & self._decisive[flow.kind]):
            rule = self._rules[number]
            if not rule.proxies:
                return Selection(Verdict.EXCLUDED, rule=rule)
            if groups := self._allowed_groups(rule, flow):
                return Selection(Verdict.PROXY, groups, rule)
        if free := self._allowed(self._free[flow.kind], flow):
            return Selection(Verdict.PROXY, (free,))
        return Selection(Verdict.NO_MATCH)

    def explain(self, flow: Flow) -> tuple[Selection, tuple[Step, ...]]:
        """The same selection with a reason for each rule up to the one that decided."""
        selection = self.select(flow)
        if selection.verdict is Verdict.LOCAL_DENY:
            return selection, ()
        steps = []
        for number, rule in enumerate(self._rules):
            decides = rule is selection.rule
            steps.append(Step(rule, "decides" if decides else self._why_not(number, flow)))
            if decides:
                return selection, tuple(steps)
        found = selection.verdict is Verdict.PROXY
        return selection, (*steps, Step(None, "decides" if found else f"no proxy takes any {flow.kind} traffic"))

    def _why_not(self, number: int, flow: Flow) -> str:
        if mismatch := self._index.mismatch(number, flow.host, flow.ips, flow.port):
            return mismatch
        identifiers = self._rules[number].proxies
        if self._identifiers.isdisjoint(identifiers):
            return "none of its proxies is known"
        if not self._decisive[flow.kind] >> number & 1:
            return f"none of its proxies carries {flow.kind}"
        return "local policy refuses its proxies"

    def _decisive_rules(self, kind: FlowKind) -> int:
        """Rules that may decide for this kind; the others "do not match", and the next rule is asked."""
        groups = self._groups[kind]
        return rule_set(
            i for i, rule in enumerate(self._rules) if not rule.proxies or any(p in groups for p in rule.proxies)
        )

    def _allowed_groups(self, rule: ProxyRule, flow: Flow) -> tuple[Group, ...]:
        candidates = (self._groups[flow.kind].get(identifier, ()) for identifier in dict.fromkeys(rule.proxies))
        return tuple(group for candidate in candidates if (group := self._allowed(candidate, flow)))

    def _allowed(self, proxies: Group, flow: Flow) -> Group:
        return tuple(proxy for proxy in proxies if self._policy.allows(proxy, flow))


def carries(proxy: PvdProxy, kind: FlowKind) -> bool:
    """Whether a proxy of this protocol can transport such a flow."""
    return kind in _CARRIES[proxy.protocol]


def preference(proxy: PvdProxy) -> tuple[bool, int]:
    """Sort key among equal choices: TLS before cleartext, then our best HTTP version, the unstated one second."""
    if not proxy.alpn:
        return proxy.protocol.is_cleartext, 1
    ranks = [2 * rank for rank, name in enumerate(PREFERRED_ALPN) if name in proxy.alpn]
    return proxy.protocol.is_cleartext, min(ranks, default=2 * len(PREFERRED_ALPN))


def _location(proxy: PvdProxy) -> tuple[ProxyProtocol, str]:
    return proxy.protocol, str(proxy.authority) if not proxy.protocol.has_template else proxy.text


def _groups(proxies: Iterable[PvdProxy], kind: FlowKind) -> dict[str, Group]:
    groups: dict[str, Group] = {}
    for proxy in proxies:
        if proxy.identifier is not None and carries(proxy, kind):
            groups[proxy.identifier] = (*groups.get(proxy.identifier, ()), proxy)
    return groups
