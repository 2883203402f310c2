"""The PvD object, parsed strictly into frozen values (RFC 8801 §4.3, PROXY-CONFIG §2 to §4).

How far a mistake reaches depends on where it is: a bad `identifier`, `expires` or `prefixes` discards the document
(`PvdError`); a bad list or too long a list discards the proxy configuration; anything else discards one entry, rule
or key. Whatever is discarded is recorded in `ignored`, so that a person can be told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Network

from masque_client.errors import ConfigurationError, PvdError
from masque_client.pvd.json_strict import parse_object
from masque_client.pvd.names import canonical_name
from masque_client.pvd.policy import DEFAULT_POLICY, ParsePolicy
from masque_client.pvd.proxies import PvdProxy, parse_proxies
from masque_client.pvd.rfc3339 import parse_date_time
from masque_client.pvd.rules import ProxyRule, parse_rules
from masque_client.pvd.split_dns import SplitDnsClaim, parse_split_dns_claims
from masque_client.pvd.values import BadValue, Ignored, JsonObject, at, child, quoted, string_list, type_name

MAX_LIFETIME = timedelta(days=30)

_KEYS = frozenset(
    {"identifier", "expires", "prefixes", "dnsZones", "noInternet", "splitDnsClaims", "proxies", "proxy-match"}
)
_VENDOR_KEY = re.compile(r"vendor-.+|urn:.+", re.DOTALL)
_IPV6_PREFIX = re.compile(r"[0-9A-Fa-f:.]+/(?:0|[1-9][0-9]{0,2})")


@dataclass(frozen=True, slots=True)
class PvdDocument:
    """A document that may be used until `usable_until`. Made by `parse_pvd`; `match.Matcher` evaluates its rules.

    Attributes:
        identifier: the provisioning domain's name, canonical; equals what was expected.
        expires: the server's word, in UTC.
        usable_until: when it must be thrown away: `expires`, but never more than MAX_LIFETIME after it was received.
        prefixes: IPv6 prefixes of a network's PvD; empty for a proxy's.
        dns_zones: zones reachable in this PvD; they are not proxy rules.
        no_internet: the network says it leads nowhere; None when it says nothing.
        split_dns_claims: RFC 9704 claims, shown to people and not acted on.
        proxies: usable entries in the order served.
        rules: usable rules in the order served, which is their priority.
        is_proxy_configuration_ignored: `proxies` or `proxy-match` was unusable as a whole, so both were dropped.
        ignored: each part that is not used, and why.
        warnings: parts that are used but look like mistakes.
    """

    identifier: str
    expires: datetime
    usable_until: datetime
    prefixes: tuple[IPv6Network, ...] = ()
    dns_zones: tuple[str, ...] = ()
    no_internet: bool | None = None
    split_dns_claims: tuple[SplitDnsClaim, ...] = ()
    proxies: tuple[PvdProxy, ...] = ()
    rules: tuple[ProxyRule, ...] = ()
    is_proxy_configuration_ignored: bool = False
    ignored: tuple[Ignored, ...] = ()
    warnings: tuple[str, ...] = ()


def parse_pvd(
    body: bytes,
    *,
    expected_identifier: str,
    now: datetime,
    from_ra_prefixes: Sequence[IPv6Network] | None = None,
    policy: ParsePolicy = DEFAULT_POLICY,
) -> PvdDocument:
    """Parse and validate a whole document.

    Args:
        body: the content as received, after content decoding.
        expected_identifier: the proxy's host name (PROXY-CONFIG §2), or the PvD ID of a router advertisement.
        now: an aware moment; the document must expire later.
        from_ra_prefixes: for a PvD learned from a router advertisement, the prefixes of its Prefix Information
            Options. None for a proxy's PvD, whose `prefixes` must be empty.
        policy: what a document may say on this machine.

    Raises:
        PvdError: the object must be ignored as a whole; the message starts with the JSON pointer.
    """
    document = parse_object(body)
    try:
        identifier = _parse_identifier(document, expected_identifier)
        expires = _parse_expires(document, now)
        prefixes = _parse_prefixes(document, from_ra_prefixes)
    except BadValue as error:
        raise PvdError(f"the PvD document is unusable: {error}") from error
    collected = _Collected()
    proxies, rules = _parse_proxy_configuration(document, policy, collected)
    return PvdDocument(
        identifier=identifier,
        expires=expires,
        usable_until=min(expires, now + MAX_LIFETIME),
        prefixes=prefixes,
        dns_zones=_parse_dns_zones(document, collected),
        no_internet=_parse_no_internet(document, collected),
        split_dns_claims=_parse_claims(document, collected),
        proxies=proxies,
        rules=rules,
        is_proxy_configuration_ignored=collected.is_proxy_configuration_ignored,
        ignored=(*collected.ignored, *_unknown_keys(document)),
        warnings=tuple(collected.warnings),
    )


class _Collected:
    """What parsing finds besides values."""

    def __init__(self) -> None:
        self.ignored: list[Ignored] = []
        self.warnings: list[str] = []
        self.is_proxy_configuration_ignored = False


# --- mandatory keys: a mistake discards the document (RFC 8801 §4.3) --------------------------------------------------


def _parse_identifier(document: JsonObject, expected: str) -> str:
    text = _required_string(document, "identifier")
    with at("/identifier"):
        identifier = canonical_name(text)
    try:
        wanted = canonical_name(expected)
    except ConfigurationError as error:
        raise PvdError(f"{quoted(expected)} {error}, so it has no PvD document") from error
    if identifier != wanted:
        raise BadValue("/identifier", f"names {quoted(text)}, but {quoted(expected)} was asked")
    return identifier


def _parse_expires(document: JsonObject, now: datetime) -> datetime:
    text = _required_string(document, "expires")
    with at("/expires"):
        expires = parse_date_time(text)
    if expires <= now:
        raise BadValue("/expires", f"the document expired at {expires.isoformat()}")
    return expires


def _parse_prefixes(document: JsonObject, from_ra: Sequence[IPv6Network] | None) -> tuple[IPv6Network, ...]:
    if "prefixes" not in document:
        raise BadValue("", "the key prefixes is missing")
    texts = string_list(document["prefixes"], "/prefixes")
    if from_ra is None:
        if texts:
            raise BadValue("/prefixes", "must be empty in a proxy's document (PROXY-CONFIG §2)")
        return ()
    prefixes = tuple(_parse_prefix(text, index) for index, text in enumerate(texts))
    for advertised in from_ra:
        if not any(advertised.subnet_of(prefix) for prefix in prefixes):
            raise BadValue("/prefixes", f"do not cover the advertised prefix {advertised} (RFC 8801 §4.4)")
    return prefixes


def _parse_prefix(text: str, index: int) -> IPv6Network:
    pointer = child("/prefixes", index)
    if not _IPV6_PREFIX.fullmatch(text):
        raise BadValue(pointer, "is not an IPv6 prefix")
    try:
        return IPv6Network(text, strict=False)
    except ValueError as error:
        raise BadValue(pointer, "is not an IPv6 prefix") from error


def _required_string(document: JsonObject, key: str) -> str:
    if key not in document:
        raise BadValue("", f"the key {key} is missing")
    value = document[key]
    if not isinstance(value, str):
        raise BadValue(child("", key), f"must be a string, not {type_name(value)}")
    return value


# --- the proxy configuration: both keys or neither --------------------------------------------------------------------


def _parse_proxy_configuration(
    document: JsonObject, policy: ParsePolicy, collected: _Collected
) -> tuple[tuple[PvdProxy, ...], tuple[ProxyRule, ...]]:
    try:
        proxies, ignored_proxies = parse_proxies(document.get("proxies", []), policy)
        rules, ignored_rules, warnings = parse_rules(document.get("proxy-match", []))
        if ignored_rules and policy.strict_rules:
            raise BadValue(ignored_rules[0].pointer, f"{ignored_rules[0].reason} (strict rules)")
    except BadValue as error:
        reason = f"{error.pointer}: {error.reason}"
        collected.ignored.extend(
            Ignored(child("", key), reason) for key in ("proxies", "proxy-match") if key in document
        )
        collected.is_proxy_configuration_ignored = True
        return (), ()
    collected.ignored.extend([*ignored_proxies, *ignored_rules])
    collected.warnings.extend(warnings)
    return proxies, rules


# --- optional keys: a mistake discards the key ------------------------------------------------------------------------


def _parse_dns_zones(document: JsonObject, collected: _Collected) -> tuple[str, ...]:
    try:
        zones = []
        for index, text in enumerate(string_list(document.get("dnsZones", []), "/dnsZones")):
            with at(child("/dnsZones", index)):
                zones.append(canonical_name(text))
        return tuple(zones)
    except BadValue as error:
        collected.ignored.append(error.as_ignored("/dnsZones"))
        return ()


def _parse_no_internet(document: JsonObject, collected: _Collected) -> bool | None:
    value = document.get("noInternet")
    if "noInternet" not in document or isinstance(value, bool):
        return value
    collected.ignored.append(Ignored("/noInternet", f"must be a boolean, not {type_name(value)}"))
    return None


def _parse_claims(document: JsonObject, collected: _Collected) -> tuple[SplitDnsClaim, ...]:
    try:
        return parse_split_dns_claims(document.get("splitDnsClaims", []))
    except BadValue as error:
        collected.ignored.append(error.as_ignored("/splitDnsClaims"))
        return ()


def _unknown_keys(document: JsonObject) -> list[Ignored]:
    """Private dictionaries are unremarkable (RFC 8801 §4.3); other keys may be typing errors worth showing."""
    return [
        Ignored(
            child("", key), "a private key must hold an object" if _VENDOR_KEY.fullmatch(key) else "not a known key"
        )
        for key, value in document.items()
        if key not in _KEYS and not (_VENDOR_KEY.fullmatch(key) and isinstance(value, dict))
    ]
