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
        if wanted is not None and wanted.prefixlen == wanted.max_prefixlen and self._is_free(wanted.network_address):
            self._lent.add(wanted.network_address)
            return wanted.network_address
        for address in self._candidates():
            if address not in self._lent:
                self._lent.add(address)
                return address
        return None

    def give_back(self, address: IpAddress) -> None:
        """The client is gone."""
        self._lent.remove(address)
        self._returned.append(address)

    def _candidates(self) -> Iterator[IpAddress]:
        yield from self._fresh
        while self._returned:
            yield self._returned.popleft()

    def _is_free(self, address: IpAddress) -> bool:
        special = (self.gateway, self.prefix.network_address, self.prefix.broadcast_address)
        return address in self.prefix and address not in special and address not in self._lent

    def _addresses(self) -> Iterator[IpAddress]:
        """Host addresses, lowest first; the ends of the prefix are left out where they have a meaning."""
        first, last = int(self.prefix.network_address), int(self.prefix.broadcast_address)
        if last - first < 3:
            raise ValueError(f"{self.prefix} is too small for a pool: it needs room for the proxy and one client")
        make = ipaddress.IPv4Address if self.prefix.version == 4 else ipaddress.IPv6Address
        return (make(number) for number in range(first + 1, last))
