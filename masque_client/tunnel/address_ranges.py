"""Arithmetic on sets of IP addresses: union, intersection, difference, and back to prefixes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network, summarize_address_range
from typing import Self

Network = IPv4Network | IPv6Network
Range = tuple[int, int]
"""First and last address, both included."""


@dataclass(frozen=True, slots=True)
class AddressRanges:
    """An immutable set of IPv4 and IPv6 addresses: in each family sorted ranges that neither touch nor overlap."""

    ipv4: tuple[Range, ...] = ()
    ipv6: tuple[Range, ...] = ()

    @classmethod
    def of(cls, networks: Iterable[Network]) -> Self:
        """The union of prefixes."""
        families: dict[int, list[Range]] = {4: [], 6: []}
        for network in networks:
            families[network.version].append((int(network[0]), int(network[-1])))
        return cls(_merged(families[4]), _merged(families[6]))

    def __bool__(self) -> bool:
        return bool(self.ipv4 or self.ipv6)

    def __or__(self, other: AddressRanges) -> AddressRanges:
        return AddressRanges(_merged([*self.ipv4, *other.ipv4]), _merged([*self.ipv6, *other.ipv6]))

    def __and__(self, other: AddressRanges) -> AddressRanges:
        return AddressRanges(_common(self.ipv4, other.ipv4), _common(self.ipv6, other.ipv6))

    def __sub__(self, other: AddressRanges) -> AddressRanges:
        return AddressRanges(
            _common(self.ipv4, _gaps(other.ipv4, 2**32 - 1)),
            _common(self.ipv6, _gaps(other.ipv6, 2**128 - 1)),
        )

    def prefixes(self) -> Iterator[Network]:
        """The fewest prefixes that cover exactly this set, IPv4 first, in ascending order."""
        for start, end in self.ipv4:
            yield from summarize_address_range(IPv4Address(start), IPv4Address(end))
        for start, end in self.ipv6:
            yield from summarize_address_range(IPv6Address(start), IPv6Address(end))


def _merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    merged: list[Range] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return tuple(merged)


def _common(ours: tuple[Range, ...], theirs: tuple[Range, ...]) -> tuple[Range, ...]:
    """Both lists walked once: whichever range ends first can meet nothing further."""
    common: list[Range] = []
    i = j = 0
    while i < len(ours) and j < len(theirs):
        start, end = max(ours[i][0], theirs[j][0]), min(ours[i][1], theirs[j][1])
        if start <= end:
            common.append((start, end))
        if ours[i][1] < theirs[j][1]:
            i += 1
        else:
            j += 1
    return tuple(common)


def _gaps(ranges: tuple[Range, ...], last: int) -> tuple[Range, ...]:
    """Everything from 0 to `last` that is in none of them."""
    starts = [0, *(end + 1 for _, end in ranges)]
    ends = [*(start - 1 for start, _ in ranges), last]
    return tuple((start, end) for start, end in zip(starts, ends, strict=True) if start <= end)


EVERYTHING = AddressRanges.of([ip_network("0.0.0.0/0"), ip_network("::/0")])
