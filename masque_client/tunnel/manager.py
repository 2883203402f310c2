"""A CONNECT-IP tunnel from nothing to forwarding, and back to nothing.

    async with ConnectIpTunnel(options, host, clock) as tunnel:     # everything below, or an error and no trace
        error = await tunnel.wait_closed()

Order of building: TUN device → connection → session → addresses and routes → host network → probe → forwarder. The
device comes first, so that a missing privilege or a bad name is said at once, before the proxy is troubled.
Taking down is the same list backwards, whatever was reached. This object configures; packets travel in
`dataplane.forwarder`.

    nothing ──async with──▶ CONNECTED ──connection or session lost, may pass──▶ RECONNECTING
                                ▲────────a probe came back on a new one──────────────┘
    both end with `wait_closed`: for a reason that does not pass, or has lasted longer than the user wants
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self

from masque_client.errors import ConnectionLost, MasqueError
from masque_client.host.interface import HostNetwork
from masque_client.netio.clock import Clock
from masque_client.netio.tun import TunDevice
from masque_client.pvd.proxies import PvdProxy
from masque_client.tunnel.carrier import Carrier
from masque_client.tunnel.local_end import LocalEnd
from masque_client.tunnel.mover import Mover
from masque_client.tunnel.opener import Opener
from masque_client.tunnel.options import TunnelOptions
from masque_client.tunnel.patience import patiently
from masque_client.tunnel.probe import probe, probe_full_ipv6
from masque_client.tunnel.recovery import Recovery, Regained
from masque_client.tunnel.redial import Redial
from masque_client.tunnel.status import TunnelState, TunnelStatus

logger = logging.getLogger(__name__)

__all__ = ["ConnectIpTunnel", "TunnelStatus"]


class ConnectIpTunnel:
    """One tunnel; enter it once.

    Args:
        host: the machine's network; `restore` is called on the way out.
        on_change: called after every applied change of addresses, routes or MTU, when the proxy assigns other DNS, when
            the tunnel is lost, before each attempt to have it back, and when it is back.
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
        self._host = host
        self._clock = clock
        self._on_change = on_change
        self._on_proxy_failure = on_proxy_failure
        self._opener = Opener(options, clock)
        open_device = partial(TunDevice.open, offload=options.offload)
        self._local = LocalEnd(
            options, host, clock, on_change=self._tell, on_failure=self._fail, open_device=open_device
        )
        self._mover = Mover(self._opener, clock, self._local, current=lambda: self._carrier, adopt=self._adopt)
        self._recovery = Recovery(clock, give_up_after_s=options.give_up_after_s, on_change=self._tell)
        self._redial = Redial(options, self._opener, clock, on_failure=on_proxy_failure, on_choice=self._local.choose)
        self._stack = AsyncExitStack()
        self._failed: asyncio.Future[MasqueError] = asyncio.get_running_loop().create_future()
        self._probe_rtt_s: float | None = None
        self._full_ipv6: bool | None = None
        self._is_up = False
        self._life: asyncio.Task[MasqueError] | None = None
        self._carrier: Carrier

    async def __aenter__(self) -> Self:
        self._stack.callback(self._host.close)
        try:
            self._local.open()
            self._stack.callback(self._local.close)
            await self._connect()
            self._stack.callback(self._local.restore)
            self._local.configure(self._carrier)
            await self._start_forwarding()
        except BaseException:
            await self._stack.aclose()
            raise
        self._is_up = True
        self._life = asyncio.create_task(self._live())
        self._stack.push_async_callback(self._end_life)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def wait_closed(self) -> MasqueError:
        """Wait until the tunnel ends by itself, and say why."""
        assert self._life is not None
        await asyncio.wait([self._life, self._failed], return_when=asyncio.FIRST_COMPLETED)
        return self._failed.result() if self._failed.done() else self._life.result()

    def status(self) -> TunnelStatus:
        """A snapshot. Only while the tunnel is entered."""
        local, carrier = self._local, self._carrier
        configuration, connection = local.configuration, carrier.connection
        assert configuration is not None
        outage = self._recovery.outage
        return TunnelStatus(
            state=TunnelState.CONNECTED if outage is None else TunnelState.RECONNECTING,
            outage=outage,
            reconnects=self._recovery.count,
            down_s=self._recovery.last_s,
            proxy=carrier.template.authority,
            proxy_address=connection.address[0],
            engine=connection.http.engine.name,
            http_version=connection.http_version,
            fallback_reason=connection.fallback_reason,
            interface=local.device,
            offload=local.offload,
            addresses=tuple(map(str, configuration.addresses)),
            routes=tuple(map(str, configuration.routes)),
            excluded=tuple(map(str, local.route_policy.excluded)),
            unsupported_rules=tuple(map(str, local.route_policy.unsupported)),
            dns=local.dns,
            mtu=configuration.mtu,
            path_mtu=carrier.path_mtu(),
            probe_rtt_s=self._probe_rtt_s if outage is None else None,
            full_ipv6=self._full_ipv6,
            traffic=local.traffic,
            connection=connection.http.statistics(),
            liveness=connection.http.liveness(),
            drops=local.drops,
            violations=dict(self._opener.dial.violations),
        )

    async def _connect(self) -> None:
        def attempt() -> Coroutine[Any, Any, Carrier]:
            return self._opener.open_first_with_addresses(self._options.proxies.candidates, self._on_proxy_failure)

        self._carrier = await patiently(attempt, self._options.patience_s)
        self._stack.callback(lambda: self._carrier.close())

    async def _start_forwarding(self) -> None:
        carrier = self._carrier
        self._probe_rtt_s = await probe(carrier.stream, carrier.session, self._clock)
        if self._probe_rtt_s is not None:
            self._full_ipv6 = await probe_full_ipv6(carrier.stream, carrier.session, self._clock, self._probe_rtt_s)
        if self._full_ipv6 is False:
            logger.warning("IPv6 packets of 1280 bytes do not come back through the tunnel (RFC 9484 §7.2)")
        self._stack.callback(self._local.pause)
        self._local.start()
        self._mover.attend(carrier)
        if carrier.stream.max_payload < carrier.session.max_packet:
            self._mover.on_packet_size()  # the path has changed while nobody listened
        self._stack.callback(self._mover.stop)
        if carrier.connection.fallback_reason is not None:
            self._mover.return_to_http3()

    # --- while it is up ---------------------------------------------------------------------------------------------

    async def _live(self) -> MasqueError:
        """Have the tunnel back each time it is lost, until that does not work."""
        while True:
            error = await self._wait_lost()
            self._mover.stop()
            self._local.drain()
            lost = self._carrier
            lost.close()
            needs_proof = self._probe_rtt_s is not None

            async def attempt(number: int, lost: Carrier = lost, needs_proof: bool = needs_proof) -> Regained:
                return await self._redial.attempt(number, lost, needs_proof=needs_proof)

            try:
                regained = await self._recovery.recover(error, attempt)
            except MasqueError as final:
                return final
            self._probe_rtt_s = regained.probe_rtt_s
            self._adopt(regained.carrier)
            if regained.carrier.connection.fallback_reason is not None:
                self._mover.return_to_http3()

    async def _wait_lost(self) -> MasqueError:
        """Wait for the end of the carrier, of the one after a move that is."""
        while True:
            carrier = self._carrier
            error = await carrier.stream.wait_closed()
            async with self._mover.lock:
                if carrier is self._carrier:
                    return error or ConnectionLost("the proxy closed the tunnel")

    async def _end_life(self) -> None:
        assert self._life is not None
        self._life.cancel()
        self._redial.close()
        await asyncio.wait([self._life])

    def _adopt(self, carrier: Carrier) -> None:
        """Another carrier takes over."""
        self._carrier = carrier
        self._local.follow(carrier)
        self._mover.attend(carrier)

    def _fail(self, error: MasqueError) -> None:
        if not self._failed.done():
            self._failed.set_result(error)

    def _tell(self) -> None:
        """Before the tunnel is up whoever enters it learns everything from the first `status`."""
        if self._is_up:
            self._on_change()
