"""Problems of the array `proxy-match`: rules that clients ignore, and rules that can never decide anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from masque_client.pvd.match import FlowKind, carries
from masque_client.pvd.model import PvdDocument
from masque_client.pvd.problems import Finding, Severity
from masque_client.pvd.rule_index import RuleIndex, members
from masque_client.pvd.rules import MAX_RULES, RULE_KEYS, DomainPattern, IpNetwork, ProxyRule, parse_rules
from masque_client.pvd.trust import covers_name
from masque_client.pvd.values import JsonObject, child, quoted, type_name

_EVERY_KIND = frozenset(FlowKind)


def lint_rules(document: JsonObject, parsed: PvdDocument) -> Iterator[Finding]:
    """Everything about `proxy-match`; that it is no array, or too long, is `lint`'s business."""
    rules = document.get("proxy-match")
    if not isinstance(rules, list) or len(rules) > MAX_RULES:
        return
    usable = {rule.index for rule in parsed.rules}
    for index, rule in enumerate(rules):
        if index not in usable:
            yield from _rule_problems(rule, child("/proxy-match", index))
    for warning in parsed.warnings:
        pointer, _, message = warning.partition(": ")
        yield Severity.WARNING, pointer, message
    yield from _unknown_proxies(rules, parsed)
    yield from _shadowed(parsed)


def _rule_problems(rule: object, pointer: str) -> Iterator[Finding]:
    """Each part is parsed in a rule of its own: the parser stops at a rule's first mistake."""
    if not isinstance(rule, dict):
        yield Severity.ERROR, pointer, f"must be an object, not {type_name(rule)}; clients ignore it"
        return
    consequence = "clients ignore the whole rule"
    if rule.get("proxies") == []:
        consequence += ", so that what it excludes is proxied after all"
    if "proxies" not in rule:
        yield Severity.ERROR, pointer, f"the key proxies is missing; {consequence}"
    for key, value in rule.items():
        place = child(pointer, key)
        if key not in RULE_KEYS:
            yield Severity.ERROR, place, f"is not a known key; {consequence}"
        elif isinstance(value, list) and value:
            for index, element in enumerate(value):
                if reason := _part_reason(key, [element]):
                    yield Severity.ERROR, child(place, index), f"{reason}; {consequence}"
        elif reason := _part_reason(key, value):
            yield Severity.ERROR, place, f"{reason}; {consequence}"


def _part_reason(key: str, value: object) -> str:
    """Why the parser refuses a rule with this alone, or an empty string."""
    _, ignored, _ = parse_rules([{"proxies": [], key: value}])
    return ignored[0].reason.partition(": ")[2] if ignored else ""


def _unknown_proxies(rules: Sequence[object], parsed: PvdDocument) -> Iterator[Finding]:
    """Of unusable rules, too: who corrects them should not come back for this."""
    known = {proxy.identifier for proxy in parsed.proxies}
    for number, rule in enumerate(rules):
        names = rule.get("proxies") if isinstance(rule, dict) else None
        for index, name in enumerate(names if isinstance(names, list) else ()):
            if isinstance(name, str) and name not in known:
                message = f"no usable proxy has the identifier {quoted(name)}"
                if name.upper() == "DIRECT":
                    message += "; to exclude destinations write an empty array"
                yield Severity.WARNING, f"/proxy-match/{number}/proxies/{index}", message
    for usable in parsed.rules:
        if usable.proxies and known.isdisjoint(usable.proxies):
            yield Severity.WARNING, usable.pointer, "this rule can never decide: none of its proxies is known"


def _shadowed(parsed: PvdDocument) -> Iterator[Finding]:
    """Rules all of whose destinations an earlier rule takes, for everything that their proxies could carry."""
    index = RuleIndex(parsed.rules)
    kinds = [_kinds(rule, parsed) for rule in parsed.rules]
    for number, rule in enumerate(parsed.rules):
        # A rule that covers this one matches this one's first destination: few do, however many rules there are.
        sample = index.matching(
            rule.domains[0].name if rule.domains else None,
            [rule.subnets[0].network_address] if rule.subnets else [],
            rule.ports[0].low if rule.ports else None,
        )
        for earlier in members(sample & (1 << number) - 1):
            if kinds[number] and kinds[number] <= kinds[earlier] and _covers(parsed.rules[earlier], rule):
                pointer = parsed.rules[earlier].pointer
                yield Severity.WARNING, rule.pointer, f"this rule can never decide: {pointer} takes all it could match"
                break


def _kinds(rule: ProxyRule, parsed: PvdDocument) -> frozenset[FlowKind]:
    if not rule.proxies:
        return _EVERY_KIND
    proxies = [proxy for proxy in parsed.proxies if proxy.identifier in rule.proxies]
    return frozenset(kind for kind in FlowKind if any(carries(proxy, kind) for proxy in proxies))


def _covers(earlier: ProxyRule, later: ProxyRule) -> bool:
    """Whether everything that `later` matches is matched by `earlier`."""
    return (
        _covers_domains(earlier.domains, later.domains)
        and _covers_subnets(earlier.subnets, later.subnets)
        and (
            earlier.ports is None
            or (
                later.ports is not None
                and all(any(wide.low <= p.low and p.high <= wide.high for wide in earlier.ports) for p in later.ports)
            )
        )
    )


def _covers_domains(wide: Sequence[DomainPattern] | None, narrow: Sequence[DomainPattern] | None) -> bool:
    if wide is None or narrow is None:
        return wide is None
    return all(
        any(covers_name(pattern, name.name) and (pattern.is_wildcard or not name.is_wildcard) for pattern in wide)
        for name in narrow
    )


def _covers_subnets(wide: Sequence[IpNetwork] | None, narrow: Sequence[IpNetwork] | None) -> bool:
    if wide is None or narrow is None:
        return wide is None
    return all(
        any(
            net.version == inner.version and net.prefixlen <= inner.prefixlen and inner.network_address in net
            for net in wide
        )
        for inner in narrow
    )
