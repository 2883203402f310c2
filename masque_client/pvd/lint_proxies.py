"""Problems of the array `proxies`: entries that clients ignore, and entries that they hardly use as meant."""

from __future__ import annotations

from collections.abc import Iterator

from masque_client.pvd.json_positions import JsonPositions
from masque_client.pvd.model import PvdDocument
from masque_client.pvd.policy import ParsePolicy
from masque_client.pvd.problems import Finding, Severity
from masque_client.pvd.proxies import MAX_PROXIES, UNDERSTOOD_KEYS, ProxyProtocol, PvdProxy, parse_proxies
from masque_client.pvd.values import JsonObject, child, quoted, type_name

_POLICY = ParsePolicy(reached_over_tls=False)
_GOOD_PAIR = {"protocol": "https-connect", "proxy": "repaired.invalid:443"}
_CONSEQUENCE = "clients ignore this proxy"


def lint_proxies(document: JsonObject, parsed: PvdDocument, positions: JsonPositions) -> Iterator[Finding]:
    """Everything about `proxies`; that it is no array, or too long, is `lint`'s business."""
    entries = document.get("proxies")
    if not isinstance(entries, list) or len(entries) > MAX_PROXIES:
        return
    for index, entry in enumerate(entries):
        yield from _entry_problems(entry, child("/proxies", index))
    named = {identifier for rule in parsed.rules for identifier in rule.proxies}
    for proxy in parsed.proxies:
        yield from _use_problems(proxy, parsed, named)
        yield from _identifier_problems(proxy, positions)


def _entry_problems(entry: object, pointer: str) -> Iterator[Finding]:
    """Find, repair, look again: the parser itself stops at an entry's first mistake."""
    if not isinstance(entry, dict):
        yield Severity.ERROR, pointer, f"must be an object, not {type_name(entry)}; {_CONSEQUENCE}"
        return
    entry = dict(entry)
    for key, good in _GOOD_PAIR.items():
        if key not in entry:
            yield Severity.ERROR, pointer, f"the key {key} is missing; {_CONSEQUENCE}"
            entry = {**entry, **_GOOD_PAIR} if key == "protocol" else {**entry, key: good, "protocol": "https-connect"}
    yield from _not_ours(entry, pointer)
    while True:
        _, ignored = parse_proxies([entry], _POLICY)
        whole = next((part for part in ignored if part.pointer == "/proxies/0"), None)
        if whole is None:
            break
        inner, _, reason = whole.reason.partition(": ")
        yield Severity.ERROR, pointer + inner, f"{reason}; {_CONSEQUENCE}"
        _repair(entry, inner.split("/")[1])
    for part in ignored:
        severity, consequence = Severity.ERROR, "; clients ignore the key"
        if part.reason.startswith("proprietary to"):
            severity, consequence = Severity.NOTE, ", so other clients ignore it"
        elif part.reason == "not a known key":
            severity, consequence = Severity.WARNING, ": a typing error?"
        yield severity, pointer + part.pointer.removeprefix("/proxies/0"), part.reason + consequence


def _not_ours(entry: JsonObject, pointer: str) -> Iterator[Finding]:
    """What is no mistake, but more than we, or any client of the present drafts, understand."""
    protocol = entry["protocol"]
    if isinstance(protocol, str) and protocol not in list(ProxyProtocol):
        message = f"{quoted(protocol)} is not a registered protocol; clients that do not know it ignore this proxy"
        yield Severity.WARNING, child(pointer, "protocol"), message
        entry.update(_GOOD_PAIR)
    mandatory = entry.get("mandatory")
    if not isinstance(mandatory, list):
        return
    foreign = [key for key in mandatory if isinstance(key, str) and key in entry and key not in UNDERSTOOD_KEYS]
    for key in foreign:
        place = child(child(pointer, "mandatory"), mandatory.index(key))
        yield Severity.WARNING, place, f"clients that do not understand {quoted(key)} ignore this proxy, as wished"
    entry["mandatory"] = [key for key in mandatory if key not in foreign]


def _repair(entry: JsonObject, key: str) -> None:
    if key in _GOOD_PAIR:
        entry.update(_GOOD_PAIR)
        return
    del entry[key]
    if isinstance(entry.get("mandatory"), list):
        entry["mandatory"] = [name for name in entry["mandatory"] if name != key]


def _use_problems(proxy: PvdProxy, parsed: PvdDocument, named: set[str]) -> Iterator[Finding]:
    if proxy.protocol.is_cleartext:
        message = "nothing protects the way to this proxy; clients that fetched the document over TLS ignore it"
        yield Severity.WARNING, child(proxy.pointer, "protocol"), message
    if proxy.authority.host != parsed.identifier:
        message = (
            f"on another host than {parsed.identifier}: clients may ask before they use it, and send no credentials"
        )
        yield Severity.NOTE, child(proxy.pointer, "proxy"), message
    if proxy.identifier is None and parsed.rules:
        message = "has no identifier, so it takes every destination that no rule decides about"
        yield Severity.NOTE, proxy.pointer, message
    if proxy.identifier is not None and proxy.identifier not in named:
        message = "no usable rule names this identifier, so the proxy is never used"
        yield Severity.WARNING, child(proxy.pointer, "identifier"), message


def _identifier_problems(proxy: PvdProxy, positions: JsonPositions) -> Iterator[Finding]:
    place = child(proxy.pointer, "identifier")
    if "\\" in positions.raw_strings.get(place, ""):
        message = "identifiers should not need escapes: clients compare them character by character"
        yield Severity.WARNING, place, message
