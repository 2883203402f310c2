"""Addresses for the test proxy's clients: one /32 or /128 each, out of a pool. Pure."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Iterator

from masque_client.protocol.scope import IpAddress, IpPrefix


class AddressPool:
    """A prefix to lend single addresses from. The first host address is the proxy's own: `gateway`.

    Returned addresses go to the back of the queue, so that a client's address is not at once another's: what is still
    on its way to the old owner then finds nobody.
    """

    def __init__(self, prefix: IpPrefix) -> None:
        self.prefix = prefix
        fresh = self._addresses()
        self.gateway: IpAddress = next(fresh)
        self._fresh = fresh
        self._returned: deque[IpAddress] = deque()
        self._lent: set[IpAddress] = set()

    def lend(self, wanted: IpPrefix | None = None) -> IpAddress | None:
        """One address: `wanted` if that is a single free address of this pool, else any; None when all are lent."""
        address = self._specific(wanted) if wanted is not None else None
        if address is None:
            address = next((fresh for fresh in self._fresh if fresh not in self._lent), None)
        if address is None and self._returned:
            address = self._returned.popleft()
        if address is not None:
            self._lent.add(address)
        return address

    def exchange(self, current: IpAddress, wanted: IpPrefix) -> IpAddress:
        """`wanted` for `current` if `wanted` is a single free address of this pool, else `current` as before."""
        address = self._specific(wanted)
        if address is None:
            return current
        self._lent.add(address)
        self.give_back(current)
        return address

    def give_back(self, address: IpAddress) -> None:
        """The client is gone."""
        self._lent.remove(address)
        self._returned.append(address)

    def _specific(self, wanted: IpPrefix) -> IpAddress | None:
        address = wanted.network_address
        special = (self.gateway, self.prefix.network_address, self.prefix.broadcast_address)
        if wanted.prefixlen < wanted.max_prefixlen or address not in self.prefix or address in special:
            return None
        if address in self._returned:
            self._returned.remove(address)
        return None if address in self._lent else address

    def _addresses(self) -> Iterator[IpAddress]:
        """Host addresses, lowest first; the ends of the prefix are left out where they have a meaning."""
        first, last = int(self.prefix.network_address), int(self.prefix.broadcast_address)
        if last - first < 3:
            raise ValueError(f"{self.prefix} is too small for a pool: it needs room for the proxy and one client")
        make = ipaddress.IPv4Address if self.prefix.version == 4 else ipaddress.IPv6Address
        return (make(number) for number in range(first + 1, last))
