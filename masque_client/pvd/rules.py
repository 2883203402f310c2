"""The array `proxy-match`: ordered rules saying which destinations use which proxies (PROXY-CONFIG §4.1).

One bad element makes the whole rule unusable: a rule with a part left out would match other destinations than its
author meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeVar

from masque_client.errors import ConfigurationError
from masque_client.pvd.names import canonical_name
from masque_client.pvd.values import BadValue, Ignored, JsonObject, at, child, string_list, type_name

MAX_RULES = 4096
MAX_LIST_ENTRIES = 8192
MAX_TOTAL_ENTRIES = 65_536

IpNetwork = IPv4Network | IPv6Network

RULE_KEYS = frozenset({"proxies", "domains", "subnets", "ports"})
_PORT_NUMBER = r"(0|[1-9][0-9]{0,4})"
_PORTS = re.compile(rf"{_PORT_NUMBER}(?:-{_PORT_NUMBER})?")
# Python also reads "/255.255.255.0" and zone ids; PROXY-CONFIG knows neither.
_SUBNET = re.compile(r"[0-9A-Fa-f:.]+(?:/(?:0|[1-9][0-9]{0,2}))?")
_MAPPED = IPv6Network("::ffff:0:0/96")

_Entry = TypeVar("_Entry")


@dataclass(frozen=True, slots=True)
class DomainPattern:
    """`name` alone, or with `is_wildcard` the name and everything below it (written `*.name`)."""

    name: str
    is_wildcard: bool

    @classmethod
    def parse(cls, text: str) -> DomainPattern:
        """Parse one element of `domains`; the asterisk may only be the whole first label."""
        is_wildcard = text.startswith("*.")
        return cls(canonical_name(text[2:] if is_wildcard else text), is_wildcard)

    def __str__(self) -> str:
        return f"*.{self.name}" if self.is_wildcard else self.name


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports `low` to `high`, both included."""

    low: int
    high: int

    @classmethod
    def parse(cls, text: str) -> PortRange:
        """Parse one element of `ports`: decimal, no leading zeros, `low` or `low-high`."""
        match = _PORTS.fullmatch(text)
        if match is None:
            raise ConfigurationError("is neither a port nor a range of ports")
        low = int(match[1])
        high = low if match[2] is None else int(match[2])
        if not low <= high <= 65_535:
            raise ConfigurationError("is not an ascending range of ports up to 65535")
        return cls(low, high)

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


@dataclass(frozen=True, slots=True)
class ProxyRule:
    """One rule. It matches where every property that is present matches; None means the property is absent.

    Attributes:
        proxies: identifiers in order of preference; empty excludes the destination from this PvD's proxies.
        index: place in the array as served, unusable rules counted; what a person is shown.
    """

    proxies: tuple[str, ...]
    domains: tuple[DomainPattern, ...] | None = None
    subnets: tuple[IpNetwork, ...] | None = None
    ports: tuple[PortRange, ...] | None = None
    index: int = 0

    @property
    def pointer(self) -> str:
        """Where the rule stands in the document."""
        return child("/proxy-match", self.index)


def parse_rules(value: object) -> tuple[tuple[ProxyRule, ...], tuple[Ignored, ...], tuple[str, ...]]:
    """The usable rules in order, those left out, and warnings about rules that are used but look wrong.

    Raises:
        BadValue: not an array, or beyond a limit: the proxy configuration is ignored as a whole then, because the
            first so many rules alone would lose exclusions (PROXY-CONFIG §6).
    """
    if not isinstance(value, list):
        raise BadValue("/proxy-match", f"must be an array, not {type_name(value)}")
    _check_limits(value)
    rules: list[ProxyRule] = []
    ignored: list[Ignored] = []
    warnings: list[str] = []
    for index, rule in enumerate(value):
        pointer = child("/proxy-match", index)
        try:
            parsed = _parse_rule(rule, index, pointer)
        except BadValue as error:
            ignored.append(error.as_ignored(pointer))
        else:
            rules.append(parsed)
            warnings.extend(_host_bits(rule, pointer))
    return tuple(rules), tuple(ignored), tuple(warnings)


def parse_subnet(text: str) -> IpNetwork:
    """Parse one element of `subnets`. Host bits are masked; IPv4-mapped networks become IPv4 networks."""
    if not _SUBNET.fullmatch(text):
        raise ConfigurationError("is neither an IP address nor a prefix")
    try:
        network = ip_network(text, strict=False)
    except ValueError as error:
        raise ConfigurationError("is neither an IP address nor a prefix") from error
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFF_FFFF, network.prefixlen - 96))
    return network


def _check_limits(rules: list[object]) -> None:
    if len(rules) > MAX_RULES:
        raise BadValue("/proxy-match", f"has {len(rules)} rules, more than {MAX_RULES}")
    total = 0
    for index, rule in enumerate(rules):
        for key, value in rule.items() if isinstance(rule, dict) else ():
            entries = len(value) if isinstance(value, list) else 0
            total += entries
            if entries > MAX_LIST_ENTRIES:
                pointer = child(child("/proxy-match", index), key)
                raise BadValue(pointer, f"has {entries} entries, more than {MAX_LIST_ENTRIES}")
    if total > MAX_TOTAL_ENTRIES:
        raise BadValue("/proxy-match", f"has {total} entries in all, more than {MAX_TOTAL_ENTRIES}")


def _parse_rule(rule: object, index: int, pointer: str) -> ProxyRule:
    if not isinstance(rule, dict):
        raise BadValue(pointer, f"must be an object, not {type_name(rule)}")
    for key in rule:
        if key not in RULE_KEYS:
            raise BadValue(child(pointer, key), "is not a known key")
    if "proxies" not in rule:
        raise BadValue(pointer, "the key proxies is missing")
    return ProxyRule(
        proxies=tuple(string_list(rule["proxies"], child(pointer, "proxies"))),
        domains=_parse_property(rule, "domains", pointer, DomainPattern.parse),
        subnets=_parse_property(rule, "subnets", pointer, parse_subnet),
        ports=_parse_property(rule, "ports", pointer, PortRange.parse),
        index=index,
    )


def _parse_property(
    rule: JsonObject, key: str, pointer: str, parse: Callable[[str], _Entry]
) -> tuple[_Entry, ...] | None:
    if key not in rule:
        return None
    place = child(pointer, key)
    texts = string_list(rule[key], place)
    if not texts:
        raise BadValue(place, "must not be empty")
    entries = []
    for index, text in enumerate(texts):
        with at(child(place, index)):
            entries.append(parse(text))
    return tuple(entries)


def _host_bits(rule: JsonObject, pointer: str) -> Iterator[str]:
    """For a rule that has been parsed: prefixes whose address is not the network's."""
    for index, text in enumerate(rule.get("subnets", [])):
        address, slash, _ = text.partition("/")
        if slash and ip_network(text, strict=False).network_address != ip_network(address).network_address:
            yield f"{child(child(pointer, 'subnets'), index)}: host bits are set and were cleared"
