"""What carries a tunnel for a while: one CONNECT-IP session on one connection to one proxy.

A carrier is opened, asked for addresses, and then adopted by the tunnel, which outlives it: on a move to another
connection the next carrier is complete before the old one goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from masque_client.errors import EmptyTunnel, MasqueError, RemoteProtocolError, TimedOut
from masque_client.http.connector import ProxyConnection
from masque_client.http.stream import SessionStream
from masque_client.protocol.ip_capsules import ANY_IPV4, ANY_IPV6, RequestedAddress
from masque_client.protocol.ip_session import AddressesAssigned, AddressesRequested, ConnectIpSession, IpEvent
from masque_client.protocol.mtu import IpVersion, link_mtu_for
from masque_client.protocol.scope import IpPrefix
from masque_client.protocol.session import Role, SessionClosed, SessionOpened
from masque_client.protocol.uri_template import IpTemplate
from masque_client.pvd.proxies import PvdProxy
from masque_client.tunnel.options import AddressRequestMode

logger = logging.getLogger(__name__)

UNPROMPTED_ASSIGNMENT_S = 0.5
"""How long to wait for an ADDRESS_ASSIGN nobody asked for (digest I-30)."""
ASSIGNMENT_TIMEOUT_S = 10.0
"""No usable address this long after the 2xx: the tunnel fails (digest I-30)."""
DIED_OF_ASKING_S = 2.0
"""A tunnel that ends within this time of our asking for addresses has ended because of it (digest I-30)."""
CLAIM_ATTEMPTS = 15
CLAIM_INTERVAL_S = 0.2
"""On another connection: how often, and how far apart, the tunnel's addresses are asked for."""
ROUTES_TIMEOUT_S = 1.0
"""How long to wait for the first ROUTE_ADVERTISEMENT once addresses are there; it may also come later, or never."""

Event = IpEvent | SessionOpened | SessionClosed


class Carrier:
    """See the module. Made by `tunnel.opener`.

    Attributes:
        template: of `proxy`.
        on_event: called with the session's events once a tunnel has adopted it.
        on_writable: likewise, when a full queue has room again.
    """

    def __init__(self, proxy: PvdProxy, connection: ProxyConnection, *, grease: bool) -> None:
        assert isinstance(proxy.proxy, IpTemplate)
        self.proxy = proxy
        self.template = proxy.proxy
        self.connection = connection
        self.session = ConnectIpSession(Role.CLIENT)
        self.stream: SessionStream[IpEvent] = SessionStream(
            self.session,
            on_payloads=_discard,
            on_event=self._on_event,
            on_writable=lambda: self.on_writable(),
            grease=grease,
        )
        self.on_event: Callable[[Event], None] = lambda event: None
        self.on_writable: Callable[[], None] = lambda: None
        self._news = asyncio.Event()
        self._is_answered = False
        self._asked_at: float | None = None

    @property
    def has_address(self) -> bool:
        """Whether the proxy has assigned one that a device can have."""
        return any(entry.host_address() is not None for entry in self.session.assigned)

    @property
    def has_asked(self) -> bool:
        """Whether the addresses were asked for; else the proxy gave them by itself."""
        return self._asked_at is not None

    @property
    def prefixes(self) -> list[IpPrefix]:
        """What the proxy has assigned."""
        return [entry.prefix for entry in self.session.assigned]

    def has_died_of_asking(self, error: MasqueError) -> bool:
        """Whether `error`, soon after we asked for addresses and before any were there, is the proxy's answer to it."""
        if self._asked_at is None or self.session.assigned or isinstance(error, RemoteProtocolError):
            return False
        return self.stream.is_closed and asyncio.get_running_loop().time() - self._asked_at <= DIED_OF_ASKING_S

    def path_mtu(self) -> int | None:
        """The outer IP packet that the path is known to carry, in bytes; None over HTTP/2."""
        version: IpVersion = 6 if ":" in self.connection.address[0] else 4
        udp_payload = self.connection.http.statistics().max_udp_payload
        return link_mtu_for(udp_payload, version) if udp_payload else None

    async def wait_addresses(self, mode: AddressRequestMode) -> None:
        """Until every family the proxy will give us is there (digest I-30).

        Raises:
            TimedOut: it gave none in time.
            EmptyTunnel: it refuses to give any, or closed the tunnel in order.
            MasqueError: the session ended.
        """
        try:
            async with asyncio.timeout(ASSIGNMENT_TIMEOUT_S):
                if mode is not AddressRequestMode.IMMEDIATE:
                    unprompted_s = None if mode is AddressRequestMode.NEVER else UNPROMPTED_ASSIGNMENT_S
                    await self._wait_for(lambda: self.has_address, unprompted_s)
                if not self.has_address:
                    self._request([ANY_IPV4, ANY_IPV6])
                    await self._wait_for(lambda: self._is_answered)
        except TimeoutError:
            raise TimedOut(
                f"{self.template.host} opened the tunnel but assigned no address within {ASSIGNMENT_TIMEOUT_S:g} s",
                hint="the proxy's address pool may be exhausted; ask its operator",
            ) from None
        if not self.has_address:
            raise EmptyTunnel(
                f"{self.template.host} opened the tunnel but refused to assign an address",
                hint="the proxy's address pool may be exhausted; try again later or ask its operator",
            )
        await self._wait_for(lambda: bool(self.session.routes), ROUTES_TIMEOUT_S)

    async def wait_unprompted(self) -> None:
        """A moment for addresses that the proxy gives without being asked.

        Raises:
            MasqueError: the session ended.
        """
        await self._wait_for(lambda: self.has_address, UNPROMPTED_ASSIGNMENT_S)

    async def claim(self, wanted: Sequence[IpPrefix], *, attempts: int = CLAIM_ATTEMPTS) -> None:
        """Ask for `wanted` until the session has it: the proxy may not yet know that the old session is gone.

        Look at `prefixes` for what came of it, and at `stream.is_closed`.
        """

        def is_complete() -> bool:
            return bool(self.session.routes) and set(self.prefixes).issuperset(wanted)

        for _ in range(attempts):
            if is_complete() or self.stream.is_closed:
                return
            self._request(wanted)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLAIM_INTERVAL_S):
                    while not is_complete():
                        self._news.clear()
                        await self._news.wait()
        if not is_complete():
            logger.warning("the proxy did not give the tunnel's addresses to its new connection")

    def close(self, reason: str = "") -> None:
        """End the session in order, then the connection. Idempotent."""
        self.stream.close()
        self.connection.close(reason)

    def _request(self, wanted: Sequence[IpPrefix]) -> None:
        self._asked_at = asyncio.get_running_loop().time()
        first = self.session.next_request_id
        self.session.request_addresses(RequestedAddress(first + n, prefix) for n, prefix in enumerate(wanted))
        self.stream.pump()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, AddressesAssigned):
            self._is_answered = True
        elif isinstance(event, AddressesRequested):
            self.session.reject_addresses(event.requests)  # not a site-to-site tunnel (digest I-29)
            self.stream.pump()
        self.on_event(event)
        self._news.set()

    async def _wait_for(self, condition: Callable[[], bool], timeout_s: float | None = None) -> None:
        """Until `condition` holds or `timeout_s` has passed; raises when the session ends first."""
        closed = asyncio.ensure_future(self.stream.wait_closed())
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._news.clear()
                    news = asyncio.ensure_future(self._news.wait())
                    try:
                        await asyncio.wait([news, closed], return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        news.cancel()
                    if closed.done():
                        raise closed.result() or EmptyTunnel(f"{self.template.host} closed the tunnel at once")
        except TimeoutError:
            if timeout_s is None:
                raise
        finally:
            closed.cancel()


def _discard(packets: list[bytes]) -> None:
    """Packets before a tunnel has adopted the carrier have nowhere to go."""
