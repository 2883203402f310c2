"""A CONNECT-IP tunnel from nothing to forwarding, and back to nothing.

    async with ConnectIpTunnel(options, host, clock) as tunnel:     # everything below, or an error and no trace
        error = await tunnel.wait_closed()

Order of building: TUN device → connection → session → addresses and routes → host network → probe → forwarder. The
device comes first, so that a missing privilege or a bad name is said at once, before the proxy is troubled.
Taking down is the same list backwards, whatever was reached. What the proxy assigns or advertises later is applied
as a difference. This object configures; packets travel in `dataplane.forwarder`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from types import TracebackType
from typing import Self

from masque_client.dataplane.forwarder import Forwarder, Traffic
from masque_client.engine.interface import EngineStatistics, Headers
from masque_client.errors import HostError, MasqueError, ProxyRefused, TimedOut
from masque_client.host.dns import DnsConfiguration, DnsTransport
from masque_client.host.interface import DEFAULT_FWMARK, HostConfiguration, HostNetwork, OuterFlow
from masque_client.http.connector import ConnectOptions, HttpVersion, ProxyConnection, connect
from masque_client.http.liveness import LivenessStatistics
from masque_client.http.stream import SessionStream
from masque_client.netio.clock import Clock
from masque_client.netio.tun import TunDevice
from masque_client.protocol.connect import ip_request_headers
from masque_client.protocol.ip_capsules import ANY_IPV4, ANY_IPV6, RequestedAddress
from masque_client.protocol.ip_session import (
    AddressesAssigned,
    AddressesRequested,
    ConnectIpSession,
    DnsAssigned,
    IpEvent,
    Pref64Assigned,
    RoutesAdvertised,
)
from masque_client.protocol.mtu import MAX_TUNNEL_MTU, MIN_IPV6_MTU, IpVersion, link_mtu_for
from masque_client.protocol.session import Role, SessionClosed, SessionOpened
from masque_client.protocol.uri_template import IpTemplate
from masque_client.pvd.proxies import PvdProxy
from masque_client.tunnel.dns import ProxyOrigin, plan_dns
from masque_client.tunnel.failover import use_first
from masque_client.tunnel.options import AddressRequestMode, TunnelOptions
from masque_client.tunnel.patience import patiently
from masque_client.tunnel.probe import probe
from masque_client.tunnel.route_policy import RoutePolicy
from masque_client.tunnel.upgrade import leave_departing, leave_narrow_path, return_to_http3
from masque_client.tunnel.wish import advertised_prefixes, host_addresses, wish

logger = logging.getLogger(__name__)

UNPROMPTED_ASSIGNMENT_S = 0.5
"""How long to wait for an ADDRESS_ASSIGN nobody asked for (digest I-30)."""
ASSIGNMENT_TIMEOUT_S = 10.0
"""No usable address this long after the 2xx: the tunnel fails (digest I-30)."""
CLAIM_ATTEMPTS = 15
CLAIM_INTERVAL_S = 0.2
"""On a move to another connection: how often, and how far apart, the tunnel's addresses are asked for."""
ROUTES_TIMEOUT_S = 1.0
"""How long to wait for the first ROUTE_ADVERTISEMENT once addresses are there; it may also come later, or never."""


@dataclass(frozen=True, slots=True)
class TunnelStatus:
    """What is true now.

    Attributes:
        fallback_reason: why it is HTTP/2 though HTTP/3 was wanted; None when it was not.
        excluded: what the proxy advertises but its rules keep out of the tunnel; direct or blocked as the user decided.
        unsupported_rules: rules that routes cannot express and that are not honoured, in words.
        mtu: of the device.
        path_mtu: outer IP packet that the path to the proxy is known to carry; None over HTTP/2, which does not care.
        dns: what the proxy assigned, as it should be applied to this machine. It is not applied.
        probe_rtt_s: None when no probe came back: then nothing proves that packets flow.
        drops: packets of this session that were not delivered, by reason.
        violations: rules that proxies broke, by clause, since the tunnel was wanted: also those of failed attempts.
    """

    proxy: str
    proxy_address: str
    engine: str
    http_version: int
    fallback_reason: str | None
    interface: str
    addresses: tuple[str, ...]
    routes: tuple[str, ...]
    excluded: tuple[str, ...]
    unsupported_rules: tuple[str, ...]
    dns: DnsConfiguration
    mtu: int
    path_mtu: int | None
    probe_rtt_s: float | None
    traffic: Traffic
    connection: EngineStatistics
    liveness: LivenessStatistics
    drops: dict[str, int]
    violations: dict[str, int]


class ConnectIpTunnel:
    """One tunnel; enter it once.

    Args:
        host: the machine's network; `restore` is called on the way out.
        on_change: called after every applied change of addresses, routes or MTU, and when the proxy assigns other DNS.
        on_proxy_failure: told of each proxy that did not do, also when another one then does.

    Raises (from `async with`):
        MasqueError: of the step that failed; by then everything before it has been undone.
    """

    def __init__(
        self,
        options: TunnelOptions,
        host: HostNetwork,
        clock: Clock,
        *,
        on_change: Callable[[], None] = lambda: None,
        on_proxy_failure: Callable[[PvdProxy, MasqueError], None] = lambda proxy, error: None,
    ) -> None:
        self._options = options
        self._dial = ConnectOptions(
            engine=options.engine,
            tls=options.tls,
            mark=DEFAULT_FWMARK,
            http=options.http,
            min_packet=MIN_IPV6_MTU,
            memory=options.memory,
            certificate_origin=options.authenticator.origin,
        )
        self._host = host
        self._clock = clock
        self._on_change = on_change
        self._on_proxy_failure = on_proxy_failure
        self._stack = AsyncExitStack()
        self._session = ConnectIpSession(Role.CLIENT)
        self._news = asyncio.Event()
        self._is_answered = False
        self._interface_id = secrets.randbits(64)
        self._failed: asyncio.Future[MasqueError] = asyncio.get_running_loop().create_future()
        self._configuration: HostConfiguration | None = None
        self._dns = DnsConfiguration()
        self._probe_rtt_s: float | None = None
        self._is_up = False
        self._moving = asyncio.Lock()
        self._mover: asyncio.Task[None] | None = None
        self._route_policy = RoutePolicy(())
        self._proxy: PvdProxy
        self._template: IpTemplate
        self._connection: ProxyConnection
        self._stream: SessionStream[IpEvent]
        self._tun: TunDevice
        self._forwarder: Forwarder

    async def __aenter__(self) -> Self:
        self._stack.callback(self._host.close)
        try:
            self._open_device()
            await self._connect()
            await self._wait_addresses()
            self._configure_host()
            await self._start_forwarding()
        except BaseException:
            await self._stack.aclose()
            raise
        self._is_up = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def wait_closed(self) -> MasqueError | None:
        """Wait until the tunnel ends by itself; None when the proxy closed it in order, else what broke it."""
        while True:
            stream = self._stream
            closed = asyncio.ensure_future(stream.wait_closed())
            either: list[asyncio.Future[MasqueError | None] | asyncio.Future[MasqueError]] = [closed, self._failed]
            try:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                async with self._moving:
                    if self._failed.done():
                        return self._failed.result()
                    if stream is self._stream:
                        return closed.result()
            finally:
                closed.cancel()

    def status(self) -> TunnelStatus:
        """A snapshot. Only while the tunnel is entered."""
        assert self._configuration is not None
        return TunnelStatus(
            proxy=self._template.authority,
            proxy_address=self._connection.address[0],
            engine=self._connection.http.engine.name,
            http_version=self._connection.http_version,
            fallback_reason=self._connection.fallback_reason,
            interface=self._tun.name,
            addresses=tuple(map(str, self._configuration.addresses)),
            routes=tuple(map(str, self._configuration.routes)),
            excluded=tuple(map(str, self._route_policy.excluded)),
            unsupported_rules=tuple(map(str, self._route_policy.unsupported)),
            dns=self._dns,
            mtu=self._configuration.mtu,
            path_mtu=self._path_mtu(),
            probe_rtt_s=self._probe_rtt_s,
            traffic=self._forwarder.traffic,
            connection=self._connection.http.statistics(),
            liveness=self._connection.http.liveness(),
            drops={str(reason): count for reason, count in self._session.drops.items() if count},
            violations=dict(self._dial.violations),
        )

    def _path_mtu(self) -> int | None:
        version: IpVersion = 6 if ":" in self._connection.address[0] else 4
        udp_payload = self._connection.http.statistics().max_udp_payload
        return link_mtu_for(udp_payload, version) if udp_payload else None

    # --- building ---------------------------------------------------------------------------------------------------

    def _open_device(self) -> None:
        for leftover in self._host.clean_up():
            logger.warning("removed what a dead run had left: %s", leftover)
        self._tun = TunDevice.open(self._options.interface)
        self._stack.callback(self._tun.close)

    async def _connect(self) -> None:
        options = self._options

        async def reach(proxy: PvdProxy) -> ProxyConnection:
            return await connect(proxy.authority.host, proxy.authority.port, self._dial, self._clock)

        async def attempt() -> tuple[PvdProxy, ProxyConnection]:
            return await use_first(
                options.proxies.candidates,
                reach,
                self._open_session,
                release=ProxyConnection.close,
                policy=options.failover,
                on_failure=self._on_proxy_failure,
            )

        self._proxy, self._connection = await patiently(attempt, options.patience_s)
        self._stack.callback(lambda: self._connection.close())
        self._stack.callback(lambda: self._stream.close())

    async def _open_session(self, proxy: PvdProxy, connection: ProxyConnection) -> tuple[PvdProxy, ProxyConnection]:
        """Ask this proxy for the tunnel; a session that another one refused is not used again."""
        assert isinstance(proxy.proxy, IpTemplate)
        self._template = proxy.proxy

        async def send(fields: Headers) -> None:
            self._session, self._stream = self._make_session()
            await self._stream.open(connection.http, ip_request_headers(self._template.expand(), fields))

        await self._options.authenticator.request((self._template.host, self._template.port), send)
        return proxy, connection

    def _make_session(self) -> tuple[ConnectIpSession, SessionStream[IpEvent]]:
        session = ConnectIpSession(Role.CLIENT)

        def on_event(event: IpEvent | SessionOpened | SessionClosed) -> None:
            if session is self._session:
                self._on_event(event)
            self._news.set()

        return session, SessionStream(
            session,
            on_payloads=self._discard,
            on_event=on_event,
            on_writable=self._on_writable,
            grease=self._options.grease,
        )

    async def _wait_addresses(self) -> None:
        """Until every family the proxy will give us is there (digest I-30)."""
        mode = self._options.address_request
        try:
            async with asyncio.timeout(ASSIGNMENT_TIMEOUT_S):
                if mode is not AddressRequestMode.IMMEDIATE:
                    await self._wait_for(
                        self._has_address, None if mode is AddressRequestMode.NEVER else UNPROMPTED_ASSIGNMENT_S
                    )
                if not self._has_address():
                    self._session.request_addresses([RequestedAddress(1, ANY_IPV4), RequestedAddress(2, ANY_IPV6)])
                    self._stream.pump()
                    await self._wait_for(lambda: self._is_answered)
        except TimeoutError:
            raise TimedOut(
                f"{self._template.host} opened the tunnel but assigned no address within {ASSIGNMENT_TIMEOUT_S:g} s",
                hint="the proxy's address pool may be exhausted; ask its operator",
            ) from None
        if not self._has_address():
            raise ProxyRefused(
                f"{self._template.host} opened the tunnel but refused to assign an address",
                hint="the proxy's address pool may be exhausted; try again later or ask its operator",
            )
        await self._wait_for(lambda: bool(self._session.routes), ROUTES_TIMEOUT_S)

    def _has_address(self) -> bool:
        return bool(host_addresses(self._session, self._interface_id))

    async def _wait_for(self, condition: Callable[[], bool], timeout_s: float | None = None) -> None:
        """Until `condition` holds or `timeout_s` has passed; raises when the session ends first."""
        closed = asyncio.ensure_future(self._stream.wait_closed())
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
                        raise closed.result() or ProxyRefused(f"{self._template.host} closed the tunnel at once")
        except TimeoutError:
            if timeout_s is None:
                raise
        finally:
            closed.cancel()

    def _configure_host(self) -> None:
        self._stack.callback(self._host.restore)
        self._apply()

    async def _start_forwarding(self) -> None:
        self._probe_rtt_s = await probe(self._stream, self._session, self._clock)
        self._forwarder = Forwarder(self._tun, self._clock)
        self._stream.on_payloads = self._forwarder.deliver
        self._stack.callback(self._forwarder.stop)
        self._forwarder.start(self._stream)
        self._attend(self._connection)
        if self._stream.max_payload < self._session.max_packet:
            self._on_packet_size()  # the path has changed while nobody listened
        self._stack.callback(self._stop_moving)
        if self._connection.fallback_reason is not None:
            self._mover = asyncio.create_task(self._return_to_http3())

    def _attend(self, connection: ProxyConnection) -> None:
        """Hear what changes about the connection that carries the tunnel."""
        connection.http.on_packet_size.append(self._on_packet_size)
        connection.http.on_going_away.append(self._on_going_away)

    async def _leave_departing(self) -> None:
        await leave_departing(self._template.host, self._template.port, self._dial, self._clock, self._move)
        if self._connection.fallback_reason is not None:
            await self._return_to_http3()

    async def _return_to_http3(self) -> None:
        await return_to_http3(self._template.host, self._template.port, self._dial, self._clock, self._move)

    async def _leave_narrow_path(self) -> None:
        """The device keeps its addresses meanwhile; what does not fit is answered by the session."""
        self._session.max_packet = self._stream.max_payload
        if await leave_narrow_path(self._template.host, self._template.port, self._dial, self._clock, self._move):
            await self._return_to_http3()
        else:
            self._reconfigure()

    def _stop_moving(self) -> None:
        if self._mover is not None:
            self._mover.cancel()

    # --- moving to another connection -------------------------------------------------------------------------------

    async def _move(self, connection: ProxyConnection) -> None:
        """Take the tunnel over to `connection`, with the addresses it has, so that flows inside survive.

        The new session is open before the old one goes; what is lost in between is a round trip's packets. A proxy
        that gives out other addresses gets the device re-addressed.

        Raises:
            MasqueError: the new session did not come about. The tunnel is as before, `connection` is closed.
        """

        async def send(fields: Headers) -> tuple[ConnectIpSession, SessionStream[IpEvent]]:
            session, stream = self._make_session()
            await stream.open(connection.http, ip_request_headers(self._template.expand(), fields))
            return session, stream

        try:
            session, stream = await self._options.authenticator.request(
                (self._template.host, self._template.port), send
            )
        except BaseException:
            connection.close()
            raise
        async with self._moving:
            wanted = [entry.prefix for entry in self._session.assigned]
            self._forwarder.stop()
            self._stream.close()
            try:
                await self._claim(session, stream, wanted)
            except BaseException:
                connection.close()
                raise
            old, self._connection, self._stream, self._session = self._connection, connection, stream, session
            old.close(f"moved to HTTP/{connection.http_version}")
            logger.info("the tunnel moved to HTTP/%d", connection.http_version)
            self._reconfigure()
            stream.on_payloads = self._forwarder.deliver
            self._attend(connection)
            self._forwarder.start(stream)

    async def _claim(
        self, session: ConnectIpSession, stream: SessionStream[IpEvent], wanted: list[IPv4Network | IPv6Network]
    ) -> None:
        """Ask for `wanted` until the new session has it: the proxy may not yet know that the old one is gone."""

        def is_complete() -> bool:
            return bool(session.routes) and {entry.prefix for entry in session.assigned}.issuperset(wanted)

        for _ in range(CLAIM_ATTEMPTS):
            first = session.next_request_id
            session.request_addresses(RequestedAddress(first + n, prefix) for n, prefix in enumerate(wanted))
            stream.pump()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLAIM_INTERVAL_S):
                    while not is_complete():
                        self._news.clear()
                        await self._news.wait()
            if is_complete() or stream.is_closed:
                return
        logger.warning("the proxy did not give the tunnel's addresses to its new connection")

    # --- news while it runs -----------------------------------------------------------------------------------------

    def _on_event(self, event: IpEvent | SessionOpened | SessionClosed) -> None:
        match event:
            case AddressesAssigned() | RoutesAdvertised():
                self._is_answered |= isinstance(event, AddressesAssigned)
                if self._configuration is not None:
                    self._reconfigure()
            case DnsAssigned() | Pref64Assigned():
                if self._configuration is not None and self._update_dns(self._configuration):
                    self._tell()
            case AddressesRequested():
                self._session.reject_addresses(event.requests)  # not a site-to-site tunnel (digest I-29)
                self._stream.pump()

    def _on_going_away(self) -> None:
        """The proxy will close the connection: have another one before it does."""
        if self._moving.locked():
            return  # on the way already
        self._stop_moving()
        self._mover = asyncio.create_task(self._leave_departing())

    def _on_packet_size(self) -> None:
        """The path carries larger or smaller packets than before: so does the tunnel."""
        if self._configuration is None or not self._stream.is_open:
            return
        if self._dial.http is not HttpVersion.AUTO or self._stream.max_payload >= MIN_IPV6_MTU:
            self._reconfigure()
        elif self._mover is None or self._mover.done():
            self._mover = asyncio.create_task(self._leave_narrow_path())

    def _reconfigure(self) -> None:
        try:
            self._apply()
        except MasqueError as error:
            logger.error("cannot apply what the proxy announced: %s", error)
            if not self._failed.done():
                self._failed.set_result(error)
        else:
            self._tell()

    def _tell(self) -> None:
        """Before the tunnel is up whoever enters it learns everything from the first `status`."""
        if self._is_up:
            self._on_change()

    def _apply(self) -> None:
        mtu = min(self._stream.max_payload, MAX_TUNNEL_MTU)
        self._session.max_packet = mtu
        outer = OuterFlow(self._connection.transport, self._connection.link.local_address, self._connection.address)
        addresses = host_addresses(self._session, self._interface_id)
        wanted, self._route_policy = wish(
            self._tun.name, mtu, addresses, advertised_prefixes(self._session), self._proxy, self._options, outer
        )
        if not wanted.addresses:
            raise HostError("the proxy withdrew every address", hint="try again later, or ask the proxy's operator")
        self._host.apply(wanted)
        self._configuration = wanted
        self._update_dns(wanted)

    def _update_dns(self, configuration: HostConfiguration) -> bool:
        """Work out what the proxy's DNS means beside the routes of `configuration`; says whether that is news."""
        before = self._dns
        transport = DnsTransport.HTTPS_3 if self._connection.transport == "udp" else DnsTransport.HTTPS_2
        document = self._options.proxies.document
        self._dns = plan_dns(
            self._session.dns,
            self._session.pref64,
            policy=self._options.dns_from_proxy,
            routes=configuration.routes,
            proxy=ProxyOrigin(self._template.host.lower(), self._template.port, transport),
            zones=() if document is None else document.dns_zones,
        )
        return self._dns != before

    def _on_writable(self) -> None:
        if self._is_up:
            self._forwarder.resume()

    @staticmethod
    def _discard(packets: list[bytes]) -> None:
        """Packets before the TUN device exists have nowhere to go."""
