"""The difference between two states, as an ordered list of single changes.

The order keeps traffic flowing and never lets it out: what is new is in place before what is old goes. The device is
made ready, addresses and routes come before the rules that send traffic to them, and rules go before their routes.
An IPv4 address goes last of all, because the kernel drops a device's routes with its last address.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from masque_client.host.interface import MIN_IPV6_MTU, Interface
from masque_client.host.state import HostState, Ipv6Settings, Link, Route, Rule, RuleKind


@dataclass(frozen=True, slots=True)
class SetMtu:
    """The device's MTU, in bytes."""

    mtu: int

    def __str__(self) -> str:
        return f"set the MTU to {self.mtu}"


@dataclass(frozen=True, slots=True)
class SetUp:
    """The device up or down."""

    up: bool

    def __str__(self) -> str:
        return f"set the link {'up' if self.up else 'down'}"


@dataclass(frozen=True, slots=True)
class SetIpv6:
    """The device's IPv6 sysctls. Where /proc/sys is read-only (containers) we go on without."""

    settings: Ipv6Settings

    def __str__(self) -> str:
        return f"set IPv6 {self.settings}"


@dataclass(frozen=True, slots=True)
class Entry:
    """Add or remove one address, route or rule."""

    verb: Literal["add", "remove"]
    item: Interface | Route | Rule

    def __str__(self) -> str:
        match self.item:
            case Route():
                return f"{self.verb} route {self.item}"
            case Rule():
                return f"{self.verb} rule {self.item}"
            case _:
                return f"{self.verb} address {self.item}"


Change = SetMtu | SetUp | SetIpv6 | Entry

T = TypeVar("T")


def plan(current: HostState, desired: HostState) -> list[Change]:
    """The changes that lead from `current` to `desired`, in the order to make them; empty when they are equal."""
    return list(_changes(current, desired))


def _changes(current: HostState, desired: HostState) -> Iterator[Change]:
    goes_down = desired.link is not None and not desired.link.up
    if not goes_down:
        yield from _link_changes(current.link, desired.link)
    for address in _sorted(desired.addresses - current.addresses):
        yield Entry("add", address)
    for route in _sorted(desired.routes - current.routes):
        yield Entry("add", route)
    for rule in _rules_in_order(desired.rules - current.rules):
        yield Entry("add", rule)
    for rule in reversed(_rules_in_order(current.rules - desired.rules)):
        yield Entry("remove", rule)
    for route in _sorted(current.routes - desired.routes):
        yield Entry("remove", route)
    for address in _sorted(current.addresses - desired.addresses):
        yield Entry("remove", address)
    if goes_down:
        yield from _link_changes(current.link, desired.link)


def _link_changes(current: Link | None, desired: Link | None) -> Iterator[Change]:
    if current is None or desired is None:
        return
    if current.up and not desired.up:
        yield SetUp(False)
    if current.mtu != desired.mtu:
        yield SetMtu(desired.mtu)
    if _ipv6_differs(current, desired) and desired.ipv6 is not None:
        yield SetIpv6(desired.ipv6)
    if desired.up and not current.up:
        yield SetUp(True)


def _ipv6_differs(current: Link, desired: Link) -> bool:
    """Under 1280 the kernel keeps no IPv6 on a device, which is as good as switched off (RFC 8200 §5)."""
    if desired.mtu < MIN_IPV6_MTU:
        return False
    had_none = current.ipv6 is None or current.mtu < MIN_IPV6_MTU
    return had_none or current.ipv6 != desired.ipv6


def _sorted(items: frozenset[T]) -> list[T]:
    return sorted(items, key=str)


def _rules_in_order(rules: frozenset[Rule]) -> list[Rule]:
    """By priority, jump targets first, so that a jump never points nowhere while traffic already follows it."""
    return sorted(rules, key=lambda rule: (rule.kind is not RuleKind.AFTER, rule.priority, str(rule)))
