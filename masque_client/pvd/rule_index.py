"""Which rules match a destination, without trying one after the other.

A set of rules is an integer: bit i is the i-th rule. There is one set per domain name, network and port interval, so
that a destination costs a few dictionary look-ups and bitwise operations, whatever the number of rules.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from masque_client.pvd.names import IpAddress
from masque_client.pvd.rules import IpNetwork, ProxyRule

RuleSet = int
"""Bit i is set when the i-th rule is a member."""

_Key = TypeVar("_Key", str, int)


class RuleIndex:
    """Sets of rules by destination property. A rule without a property is in that property's `_any` set."""

    def __init__(self, rules: Sequence[ProxyRule]) -> None:
        self._any_host = rule_set(i for i, rule in enumerate(rules) if rule.domains is None)
        self._any_address = rule_set(i for i, rule in enumerate(rules) if rule.subnets is None)
        self._any_port = rule_set(i for i, rule in enumerate(rules) if rule.ports is None)
        self._exact: dict[str, RuleSet] = {}
        self._below: dict[str, RuleSet] = {}
        self._networks: dict[tuple[int, int], dict[int, RuleSet]] = {}
        for number, rule in enumerate(rules):
            self._add_domains(number, rule)
            for network in rule.subnets or ():
                version, host_bits = _family(network)
                alike = self._networks.setdefault((version, host_bits), {})
                _add(alike, int(network.network_address) >> host_bits, number)
        self._port_starts, self._port_sets = _port_intervals(rules)

    def matching(self, host: str | None, ips: Sequence[IpAddress], port: int | None) -> RuleSet:
        """Rules all of whose present properties match."""
        return self._by_host(host) & self._by_address(ips) & self._by_port(port)

    def mismatch(self, number: int, host: str | None, ips: Sequence[IpAddress], port: int | None) -> str:
        """Why a rule is not in `matching`, or an empty string."""
        if not self._by_host(host) >> number & 1:
            return "none of its domains" if host else "needs a host name"
        if not self._by_address(ips) >> number & 1:
            return "none of its subnets" if ips else "needs an address, and none is known"
        if not self._by_port(port) >> number & 1:
            return "needs a port" if port is None else "none of its ports"
        return ""

    def _add_domains(self, number: int, rule: ProxyRule) -> None:
        for pattern in rule.domains or ():
            _add(self._below if pattern.is_wildcard else self._exact, pattern.name, number)

    def _by_host(self, host: str | None) -> RuleSet:
        if host is None:
            return self._any_host
        found = self._any_host | self._exact.get(host, 0)
        return _union(found, (self._below.get(suffix, 0) for suffix in _suffixes(host)))

    def _by_address(self, ips: Sequence[IpAddress]) -> RuleSet:
        found = self._any_address
        for ip in ips:
            bits = int(ip)
            for (version, host_bits), networks in self._networks.items():
                if version == ip.version:
                    found |= networks.get(bits >> host_bits, 0)
        return found

    def _by_port(self, port: int | None) -> RuleSet:
        if port is None:
            return self._any_port
        return self._any_port | self._port_sets[bisect_right(self._port_starts, port) - 1]


def _suffixes(name: str) -> Iterator[str]:
    """The name and every name above it, by label."""
    while True:
        yield name
        _, dot, name = name.partition(".")
        if not dot:
            return


def _family(network: IpNetwork) -> tuple[int, int]:
    """IP version, and how many bits of an address are the host's: networks alike in both share a dictionary."""
    return network.version, network.max_prefixlen - network.prefixlen


def _port_intervals(rules: Sequence[ProxyRule]) -> tuple[list[int], list[RuleSet]]:
    """Cut the ports where any range begins or ends: the starts of the intervals, and the rules within each."""
    begins: dict[int, list[int]] = {0: []}
    ends: dict[int, list[int]] = {}
    for number, rule in enumerate(rules):
        for low, high in _disjoint(rule):
            begins.setdefault(low, []).append(number)
            ends.setdefault(high + 1, []).append(number)
    starts = sorted(begins.keys() | ends.keys())
    sets = []
    current = 0
    for start in starts:
        # A rule's ranges neither touch nor overlap, so each rule begins or ends here at most once, never both.
        current ^= rule_set(ends.get(start, ()))
        current ^= rule_set(begins.get(start, ()))
        sets.append(current)
    return starts, sets


def _disjoint(rule: ProxyRule) -> list[tuple[int, int]]:
    """The rule's port ranges in ascending order, touching and overlapping ones joined."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted((ports.low, ports.high) for ports in rule.ports or ()):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(joined[-1][1], high)
        else:
            joined.append((low, high))
    return joined


# --- sets of rule numbers, as integers --------------------------------------------------------------------------------


def rule_set(numbers: Iterable[int]) -> RuleSet:
    """The set with these rules in it."""
    return _union(0, (1 << number for number in numbers))


def _union(rules: RuleSet, more: Iterable[RuleSet]) -> RuleSet:
    for other in more:
        rules |= other
    return rules


def _add(sets: dict[_Key, RuleSet], key: _Key, number: int) -> None:
    sets[key] = sets.get(key, 0) | 1 << number


def members(rules: RuleSet) -> Iterator[int]:
    """Rule numbers in ascending order."""
    while rules:
        lowest = rules & -rules
        yield lowest.bit_length() - 1
        rules ^= lowest
