"""A tunnel's end on this machine: the TUN device, what the host is configured to, and the road of the packets.

It outlives carriers. Whatever the proxy assigns or advertises later is applied as a difference, and so is what the
next carrier brings.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from masque_client.dataplane.forwarder import Forwarder, Traffic
from masque_client.errors import HostError, MasqueError
from masque_client.host.dns import DnsConfiguration, DnsTransport
from masque_client.host.interface import HostConfiguration, HostNetwork, OuterFlow
from masque_client.netio.clock import Clock
from masque_client.netio.tun import TunDevice
from masque_client.protocol.drops import DropReason
from masque_client.protocol.ip_session import AddressesAssigned, DnsAssigned, Pref64Assigned, RoutesAdvertised
from masque_client.protocol.mtu import MAX_TUNNEL_MTU
from masque_client.tunnel.carrier import Carrier, Event
from masque_client.tunnel.dns import ProxyOrigin, plan_dns
from masque_client.tunnel.options import TunnelOptions
from masque_client.tunnel.proxies import ProxyChoice
from masque_client.tunnel.route_policy import RoutePolicy
from masque_client.tunnel.wish import advertised_prefixes, host_addresses, wish

logger = logging.getLogger(__name__)

APPLY_INTERVAL_S = 0.1
"""How far apart, at least, changes that the proxy announces are applied: it must not set the pace of the kernel."""


class LocalEnd:
    """Use in this order: `open`, `configure`, `start`; then `pause` and `follow` for each later carrier.

    Whoever calls `open` calls `close` at last, whoever calls `configure` calls `restore` before it.

    Args:
        host: the machine's network.
        open_device: makes the TUN device.
        on_change: called after every applied change, and when the proxy assigns other DNS.
        on_failure: called when this machine refuses what the proxy announced.

    Attributes:
        configuration: what is applied; None before the first `configure`.
        route_policy: what the proxy's rules made of its routes.
        dns: what the proxy assigned.
    """

    def __init__(
        self,
        options: TunnelOptions,
        host: HostNetwork,
        clock: Clock,
        *,
        on_change: Callable[[], None],
        on_failure: Callable[[MasqueError], None],
        open_device: Callable[[str], TunDevice] = TunDevice.open,
    ) -> None:
        self.configuration: HostConfiguration | None = None
        self.route_policy = RoutePolicy(())
        self.dns = DnsConfiguration()
        self._options = options
        self._host = host
        self._clock = clock
        self._on_change = on_change
        self._on_failure = on_failure
        self._open_device = open_device
        self._loop = asyncio.get_running_loop()
        self._applied_at = -APPLY_INTERVAL_S
        self._due: asyncio.TimerHandle | None = None
        self._drops_before: Counter[DropReason] = Counter()
        self._interface_id = secrets.randbits(64)
        self._carrier: Carrier
        self._tun: TunDevice
        self._forwarder: Forwarder

    @property
    def device(self) -> str:
        """The TUN device's name."""
        return self._tun.name

    @property
    def offload(self) -> str:
        """See `TunDevice.offload_kind`."""
        return self._tun.offload_kind

    @property
    def traffic(self) -> Traffic:
        """What went through since `open`."""
        return self._forwarder.traffic

    @property
    def drops(self) -> dict[str, int]:
        """Packets that were not delivered, by reason, on this carrier and those before it."""
        return {str(reason): count for reason, count in (self._drops_before + self._carrier.session.drops).items()}

    def choose(self, choice: ProxyChoice) -> None:
        """From the next carrier on, these rules count."""
        self._options = replace(self._options, proxies=choice)

    def open(self) -> None:
        """Make the TUN device.

        Raises:
            PrivilegeError, HostError: this machine does not let us.
        """
        for leftover in self._host.clean_up():
            logger.warning("removed what a dead run had left: %s", leftover)
        self._tun = self._open_device(self._options.interface)
        self._forwarder = Forwarder(self._tun, self._clock)

    def configure(self, carrier: Carrier) -> None:
        """Make the host as `carrier`, which has addresses, asks for; from now on it follows this carrier's news.

        Raises:
            HostError: the system refused.
            PvdError: the proxy's rules allow nothing, see `tunnel.wish`.
        """
        self._take(carrier)
        self._apply()

    def follow(self, carrier: Carrier) -> None:
        """Change over to another carrier while the tunnel is up: configure, and let packets through."""
        self._take(carrier)
        self.reconfigure()
        self.start()

    def start(self) -> None:
        """Let packets through."""
        self._carrier.stream.on_payloads = self._forwarder.deliver
        self._forwarder.start(self._carrier.stream)

    def pause(self) -> None:
        """No packets any more until `start`. Idempotent."""
        self._forwarder.stop()

    def drain(self) -> None:
        """The carrier is lost: until `follow`, packets are dropped and counted. None of them must be sent late."""
        self._forwarder.stop()
        self._carrier.session.close()
        self._forwarder.start(self._carrier.stream)
        assert self.configuration is not None
        proxy = self._carrier.connection.address
        try:
            # Where reverse paths are filtered strictly, its answers would be dropped before they reach a new socket.
            self._host.apply(
                replace(self.configuration, outer_flows=(OuterFlow("udp", None, proxy), OuterFlow("tcp", None, proxy)))
            )
        except MasqueError as error:
            logger.warning("the proxy may not be heard on a new connection: %s", error)

    def restore(self) -> None:
        """Undo what `configure` did to the host. Nothing is applied after it."""
        if self._due is not None:
            self._due.cancel()
        self._host.restore()

    def close(self) -> None:
        """Let go of the TUN device."""
        self._tun.close()

    def reconfigure(self) -> None:
        """Apply what has changed."""
        try:
            self._apply()
        except MasqueError as error:
            logger.error("cannot apply what the proxy announced: %s", error)
            self._on_failure(error)
        else:
            self._on_change()

    def _take(self, carrier: Carrier) -> None:
        if self.configuration is not None:
            self._drops_before += self._carrier.session.drops
        self._carrier = carrier
        carrier.on_event = lambda event: self._on_event(carrier, event)
        carrier.on_writable = self._forwarder.resume

    def _on_event(self, carrier: Carrier, event: Event) -> None:
        if carrier is not self._carrier or self.configuration is None:
            return
        match event:
            case AddressesAssigned() | RoutesAdvertised():
                self._reconfigure_soon()
            case DnsAssigned() | Pref64Assigned():
                if self._update_dns(self.configuration):
                    self._on_change()

    def _reconfigure_soon(self) -> None:
        """Once for all that comes within this turn of the loop, or within the interval."""
        if self._due is None:
            when = max(self._loop.time(), self._applied_at + APPLY_INTERVAL_S)
            self._due = self._loop.call_at(when, self._reconfigure_now)

    def _reconfigure_now(self) -> None:
        self._due = None
        if self._carrier.stream.is_open:
            self.reconfigure()

    def _apply(self) -> None:
        carrier, session = self._carrier, self._carrier.session
        session.max_packet = mtu = min(carrier.stream.max_payload, MAX_TUNNEL_MTU)
        connection = carrier.connection
        outer = OuterFlow(connection.transport, connection.link.local_address, connection.address)
        addresses = host_addresses(session, self._interface_id)
        wanted, self.route_policy = wish(
            self._tun.name, mtu, addresses, advertised_prefixes(session), carrier.proxy, self._options, outer
        )
        if not wanted.addresses:
            raise HostError("the proxy withdrew every address", hint="try again later, or ask the proxy's operator")
        self._applied_at = self._loop.time()
        self._host.apply(wanted)
        self.configuration = wanted
        self._update_dns(wanted)

    def _update_dns(self, configuration: HostConfiguration) -> bool:
        """Work out what the proxy's DNS means beside the routes of `configuration`; says whether that is news."""
        before, carrier = self.dns, self._carrier
        transport = DnsTransport.HTTPS_3 if carrier.connection.transport == "udp" else DnsTransport.HTTPS_2
        document = self._options.proxies.document
        self.dns = plan_dns(
            carrier.session.dns,
            carrier.session.pref64,
            policy=self._options.dns_from_proxy,
            routes=configuration.routes,
            proxy=ProxyOrigin(carrier.template.host.lower(), carrier.template.port, transport),
            zones=() if document is None else document.dns_zones,
        )
        return self.dns != before
