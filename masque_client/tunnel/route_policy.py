"""Rules for destinations, as routes: what of the addresses that a proxy advertises may enter its tunnel.

Pure. Routing sees addresses and nothing else. Rules about `subnets`, and rules without conditions, become prefixes. A
rule about names or ports cannot; it is reported, unless it happens to make no difference, because an exclusion that
is not honoured sends traffic where its author did not want it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from masque_client.errors import PvdError
from masque_client.pvd.proxies import ProxyProtocol, PvdProxy
from masque_client.pvd.rules import ProxyRule
from masque_client.tunnel.address_ranges import EVERYTHING, AddressRanges, Network

MAX_ROUTES = 16_384
"""A tunnel with more prefixes than this is refused: the kernel takes about 0.3 ms for each."""


class Unmatched(StrEnum):
    """What happens to destinations that no proxy is to carry: those a rule excludes, and those no rule covers."""

    DIRECT = "direct"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class UnsupportedRule:
    """A rule that routes cannot express, and why."""

    rule: ProxyRule
    reason: str

    def __str__(self) -> str:
        what = "excludes destinations" if not self.rule.proxies else "applies"
        return f"rule {self.rule.index + 1} {what} {self.reason}"


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """What to do with the advertised addresses.

    Attributes:
        tunnel: advertised, and allowed through the proxy.
        excluded: advertised, but not for this proxy; direct or blocked, as the user decides (`Unmatched`).
        unsupported: the rules left out of account that would have made a difference.
    """

    tunnel: tuple[Network, ...]
    excluded: tuple[Network, ...] = ()
    unsupported: tuple[UnsupportedRule, ...] = ()


class _Outcome(StrEnum):
    """What a rule means for the addresses it matches, seen from a CONNECT-IP tunnel through one proxy."""

    OURS = "ours"
    """They may enter."""
    NOT_OURS = "not ours"
    """They are excluded, or belong to other CONNECT-IP proxies."""
    NONE = "none"
    """None of its proxies carries IP packets, so it does not match and the next rule is asked."""


def route_policy(
    advertised: Iterable[Network], proxy: PvdProxy, proxies: Sequence[PvdProxy], rules: Sequence[ProxyRule]
) -> RoutePolicy:
    """Divide what `proxy` advertises by the rules of its document, in their order (PROXY-CONFIG §4.2).

    Args:
        advertised: the routes that the proxy offers.
        proxy: the CONNECT-IP proxy in use.
        proxies, rules: of its document. Without rules, and without an identifier, everything may enter.

    Raises:
        PvdError: the result has more than `MAX_ROUTES` prefixes.
    """
    offered = AddressRanges.of(advertised)
    undecided, ours = EVERYTHING, AddressRanges()
    inexpressible: list[tuple[ProxyRule, _Outcome, str, AddressRanges]] = []
    for rule in rules:
        matching = undecided if rule.subnets is None else undecided & AddressRanges.of(rule.subnets)
        outcome = _outcome(rule, proxy, proxies)
        if reason := _inexpressible(rule, outcome):
            inexpressible.append((rule, outcome, reason, matching))
            continue
        undecided -= matching
        if outcome is _Outcome.OURS:
            ours |= matching
    if proxy.identifier is None:
        ours |= undecided
    tunnel, excluded = offered & ours, offered - ours
    unsupported = tuple(
        UnsupportedRule(rule, reason)
        for rule, outcome, reason, matching in inexpressible
        if matching & (tunnel if outcome is _Outcome.NOT_OURS else excluded)
    )
    return RoutePolicy(_bounded(tunnel), _bounded(excluded), unsupported)


def _outcome(rule: ProxyRule, proxy: PvdProxy, proxies: Sequence[PvdProxy]) -> _Outcome:
    if not rule.proxies:
        return _Outcome.NOT_OURS
    if proxy.identifier in rule.proxies:
        return _Outcome.OURS
    carriers = {other.identifier for other in proxies if other.protocol is ProxyProtocol.CONNECT_IP}
    return _Outcome.NONE if carriers.isdisjoint(rule.proxies) else _Outcome.NOT_OURS


def _inexpressible(rule: ProxyRule, outcome: _Outcome) -> str:
    """Why routes cannot do what the rule says; empty when they can."""
    if outcome is _Outcome.NONE:
        return "to proxies of other protocols only, which a tunnel of IP packets does not use"
    if rule.domains is not None:
        return "by name, and a route knows only addresses"
    if rule.ports is not None:
        return "by port, and a route knows only addresses"
    return ""


def _bounded(ranges: AddressRanges) -> tuple[Network, ...]:
    prefixes = tuple(islice(ranges.prefixes(), MAX_ROUTES + 1))
    if len(prefixes) > MAX_ROUTES:
        raise PvdError(f"the rules divide the proxy's routes into more than {MAX_ROUTES} prefixes")
    return prefixes
