"""Sets of IP addresses as merged ranges: is this address inside, in a dozen comparisons however many ranges."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable

from masque_client.protocol.ip_capsules import ALL_PROTOCOLS, IpAddressRange
from masque_client.protocol.scope import IpPrefix

_WIDTH = {4: 4, 6: 16}
_ANY = -1


class AddressSet:
    """An immutable set of (address, protocol) pairs, built from prefixes (all protocols) and routes."""

    def __init__(self, prefixes: Iterable[IpPrefix] = (), routes: Iterable[IpAddressRange] = ()) -> None:
        intervals: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for route in (*map(IpAddressRange.from_prefix, prefixes), *routes):
            interval = int(route.start), int(route.end)
            intervals[_WIDTH[route.version], route.protocol].append(interval)
            intervals[_WIDTH[route.version], _ANY].append(interval)
        self._tables = {key: _merge(ranges) for key, ranges in intervals.items()}

    def covers(self, address: bytes, protocol: int | None) -> bool:
        """Whether a packed address is inside for `protocol`; None asks whether it is for any protocol at all."""
        number = int.from_bytes(address)
        if protocol is None:
            return self._contains((len(address), _ANY), number)
        return self._contains((len(address), ALL_PROTOCOLS), number) or self._contains((len(address), protocol), number)

    def _contains(self, key: tuple[int, int], number: int) -> bool:
        table = self._tables.get(key)
        if table is None:
            return False
        starts, ends = table
        index = bisect_right(starts, number) - 1
        return index >= 0 and number <= ends[index]


def _merge(intervals: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Sorted starts and ends of the same union without overlaps, for bisection."""
    starts: list[int] = []
    ends: list[int] = []
    for start, end in sorted(intervals):
        if ends and start <= ends[-1] + 1:
            ends[-1] = max(ends[-1], end)
        else:
            starts.append(start)
            ends.append(end)
    return starts, ends
