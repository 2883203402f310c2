"""One CONNECT-IP client of the test proxy: what it is assigned, what is advertised to it, and when."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from masque_client.http.stream import SessionStream
from masque_client.protocol.dns_capsules import AssignedDns
from masque_client.protocol.ip_capsules import AssignedAddress, IpAddressRange, RequestedAddress
from masque_client.protocol.ip_session import AddressesRequested, ConnectIpSession, IpEvent
from masque_client.protocol.scope import IpAddress, IpPrefix, IpScope
from masque_client.protocol.session import SessionClosed, SessionOpened, SessionState
from masque_client.testing.address_pool import AddressPool
from masque_client.testing.ip_router import IpRouter
from masque_client.testing.misbehave import Misbehaviour
from masque_client.testing.udp_target import TargetPolicy, TargetRefused

IpTunnel = SessionStream[IpEvent]


async def routes_in_scope(scope: IpScope, routes: Sequence[IpPrefix], policy: TargetPolicy) -> list[IpAddressRange]:
    """What to advertise to a client that asked for `scope`: the part of `routes` inside it (RFC 9484 §4.6).

    Raises:
        TargetRefused: the scope's name does not resolve, or nothing in the scope is routed here.
    """
    if scope.target is None:
        wanted: list[IpPrefix] = list(routes)
    elif isinstance(scope.target, str):
        addresses = [ipaddress.ip_network(address) for address in await policy.resolve(scope.target)]
        wanted = [address for address in addresses if any(_contains(route, address) for route in routes)]
    else:
        target = scope.target
        wanted = [target for route in routes if _contains(route, target)]
        wanted += [route for route in routes if _contains(target, route) and route != target]
    if not wanted and routes:
        raise TargetRefused("nothing in this scope is routed here", status=502, error="destination_ip_unroutable")
    return merge_routes(wanted, scope.protocol or 0)


def merge_routes(prefixes: Iterable[IpPrefix], protocol: int = 0) -> list[IpAddressRange]:
    """Prefixes as a ROUTE_ADVERTISEMENT wants them: overlaps removed, in order (RFC 9484 §4.7.3)."""
    prefixes = list(prefixes)
    v4 = [prefix for prefix in prefixes if isinstance(prefix, ipaddress.IPv4Network)]
    v6 = [prefix for prefix in prefixes if isinstance(prefix, ipaddress.IPv6Network)]
    merged: list[IpPrefix] = [*ipaddress.collapse_addresses(v4), *ipaddress.collapse_addresses(v6)]
    return sorted((IpAddressRange.from_prefix(prefix, protocol) for prefix in merged), key=lambda route: route.sort_key)


@dataclass(frozen=True, slots=True)
class ClientNames:
    """What clients are told of names (draft-ietf-masque-connect-ip-dns): nothing unless something is in it."""

    dns: tuple[AssignedDns, ...] = ()
    pref64: tuple[ipaddress.IPv6Network, ...] = ()


NO_NAMES: Final = ClientNames()


class IpClient:
    """Assigns and advertises on one tunnel, from `start` to `close`.

    Args:
        pools: by IP version; a family without a pool is refused.
        names: what the client is told of DNS and NAT64 once it has routes.
    """

    def __init__(
        self,
        session: ConnectIpSession,
        pools: Mapping[int, AddressPool],
        router: IpRouter,
        misbehaviour: Misbehaviour,
        names: ClientNames = NO_NAMES,
    ) -> None:
        self._session = session
        self._pools = {version: pool for version, pool in pools.items() if version != misbehaviour.refuse_family}
        self._router = router
        self._misbehaviour = misbehaviour
        self._names = names
        self._lent: dict[int, IpAddress] = {}
        self._early: list[AddressesRequested] = []
        self._timers: list[asyncio.TimerHandle] = []
        self._tunnel: IpTunnel | None = None

    def start(self, tunnel: IpTunnel, routes: Sequence[IpAddressRange]) -> None:
        """The request was accepted: assign and advertise, as far as `misbehaviour` lets us (RFC 9484 §8.1)."""
        self._tunnel = tunnel
        if self._misbehaviour.assign == "unprompted":
            self._soon(self._assign_unprompted)
        for event in self._early:
            self.on_event(event)
        if not self._misbehaviour.no_routes:
            self._soon(lambda: self._advertise(routes))
        if self._misbehaviour.withdraw_after_s is not None:
            self._later(self._misbehaviour.withdraw_after_s, lambda: self._assign([]))

    def close(self) -> None:
        """The tunnel is gone: its addresses return to the pools."""
        for timer in self._timers:
            timer.cancel()
        if self._tunnel is not None:
            self._router.detach(self._tunnel)
        for version, address in self._lent.items():
            self._pools[version].give_back(address)
        self._lent.clear()

    def on_event(self, event: IpEvent | SessionOpened | SessionClosed) -> None:
        """Answer requests. What a client assigns or advertises to us is ignored: no site-to-site here."""
        if not isinstance(event, AddressesRequested) or self._misbehaviour.assign == "never":
            return
        if self._misbehaviour.dies_of_requests and self._tunnel is not None:
            self._tunnel.close()
            return
        if self._tunnel is None:
            self._early.append(event)
        else:
            self._soon(lambda: self._answer(event.requests))

    def _soon(self, action: Callable[[], None]) -> None:
        if self._misbehaviour.assign_delay_s:
            self._later(self._misbehaviour.assign_delay_s, action)
        else:
            action()

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(delay_s, action))

    def _assign_unprompted(self) -> None:
        for version, pool in self._pools.items():
            self._lend(version, pool.prefix)
        self._assign([AssignedAddress(0, ipaddress.ip_network(address)) for address in self._lent.values()])

    def _answer(self, requests: Sequence[RequestedAddress]) -> None:
        """Every entry gets the client's one address of its family, or a refusal (RFC 9484 §4.7.2)."""
        answers = []
        for request in requests:
            address = self._lend(request.prefix.version, request.prefix)
            granted = None if address is None else AssignedAddress(request.request_id, ipaddress.ip_network(address))
            answers.append(granted or request.reject())
        answered = {request.prefix.version for request in requests}
        others = [address for version, address in self._lent.items() if version not in answered]
        self._assign([*answers, *(AssignedAddress(0, ipaddress.ip_network(address)) for address in others)])

    def _lend(self, version: int, wanted: IpPrefix) -> IpAddress | None:
        """The client's address of this family; the one it wants, if that is free: it may be its old one."""
        pool = self._pools.get(version)
        if pool is not None and version in self._lent:
            self._lent[version] = pool.exchange(self._lent[version], wanted)
        elif pool is not None and (address := pool.lend(wanted)) is not None:
            self._lent[version] = address
        return self._lent.get(version)

    def _assign(self, addresses: Sequence[AssignedAddress]) -> None:
        if self._tunnel is not None and self._session.state is SessionState.OPEN:
            self._session.assign_addresses(addresses)
            self._router.attach((address.packed for address in self._lent.values()), self._tunnel)
            self._tunnel.pump()

    def _advertise(self, routes: Sequence[IpAddressRange]) -> None:
        if self._tunnel is not None and self._session.state is SessionState.OPEN:
            self._session.advertise_routes(routes)
            if self._names.dns:
                self._session.assign_dns(self._names.dns)
            if self._names.pref64:
                self._session.assign_pref64(self._names.pref64)
            self._tunnel.pump()


def _contains(outer: IpPrefix, inner: IpPrefix) -> bool:
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]
