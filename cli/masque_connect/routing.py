"""What `udp` and `socks` share: options and set-up of a router that sends each destination where the rules say."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from masque_client.engine.interface import EngineStatistics
from masque_client.errors import MasqueError
from masque_client.http.connector import ConnectOptions, ProxyConnection
from masque_client.netio.clock import Clock
from masque_client.pvd.changes import DocumentChanged
from masque_client.pvd.proxies import ProxyProtocol, PvdProxy
from masque_client.tunnel.failover import Failover
from masque_client.tunnel.following import following
from masque_client.tunnel.proxies import ProxyChoice, document_source, udp_proxies
from masque_client.tunnel.proxy_pool import ProxyPool
from masque_client.tunnel.route_policy import Unmatched
from masque_client.tunnel.router import Router
from masque_connect import options as shared
from masque_connect.render import remark

FLOW_REMARK_INTERVAL_S = 5.0
"""Of the flows that end badly, one is reported this often; the others are counted."""
PROXY_REMARK_INTERVAL_S = 30.0
"""A proxy that keeps failing is mentioned this often."""
_NOTHING = EngineStatistics(None, 0, 0, 0, 0, 0, 0, 0, 0)


def add_failover(parser: argparse.ArgumentParser) -> None:
    """--failover."""
    shared.add_choice(
        parser,
        "--failover",
        default=Failover.UNAVAILABLE,
        text="try the next proxy when one is unavailable (default), or also when its certificate does not verify or it "
        "refuses our credentials",
    )


def add_routing(parser: argparse.ArgumentParser) -> None:
    """--unmatched and --failover; `up` has them, too."""
    shared.add_choice(
        parser,
        "--unmatched",
        default=Unmatched.BLOCK,
        text="destinations that the proxies' rules exclude or do not cover: refuse them (default: block), or send "
        "them directly, through no proxy",
    )
    add_failover(parser)


@dataclass(frozen=True, slots=True)
class Routing:
    """A router at work."""

    choice: ProxyChoice
    router: Router

    @property
    def has_alternatives(self) -> bool:
        """Whether there is more than one proxy, so that the end of one is not the end of all."""
        return len({proxy.text for proxy in self.choice.candidates}) > 1

    def connection_to(self, proxy: PvdProxy | None) -> ProxyConnection | None:
        """The connection to a proxy, if there is one now."""
        return None if proxy is None else self.router.pool.existing(proxy.authority)

    def statistics(self) -> EngineStatistics:
        """Of the first connection, for the live line."""
        connection = next(iter(self.router.pool.connections.values()), None)
        return _NOTHING if connection is None else connection.http.statistics()


class FlowRemarks:
    """Says that a flow ended badly, though not of each."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._silent_until = 0.0
        self._unsaid = 0

    def add(self, error: MasqueError) -> None:
        """A flow ended with this error."""
        if self._clock.now() < self._silent_until:
            self._unsaid += 1
            return
        others = f"; {self._unsaid} others before it" if self._unsaid else ""
        remark(f"a flow ended: {error} ({error.hint}){others}")
        self._silent_until, self._unsaid = self._clock.now() + FLOW_REMARK_INTERVAL_S, 0


class _ProxyRemarks:
    """Says that a proxy failed, though not each time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._silent_until: dict[str, float] = {}

    def add(self, proxy: PvdProxy, error: MasqueError) -> None:
        now = self._clock.now()
        if now >= self._silent_until.get(proxy.text, now):
            remark(f"{proxy.authority}: {error}")
            self._silent_until[proxy.text] = now + PROXY_REMARK_INTERVAL_S


@asynccontextmanager
async def open_routing(options: argparse.Namespace, clock: Clock) -> AsyncIterator[Routing]:
    """A router for `options.proxy`; its connections are closed at the end of the block. Nothing is connected yet.

    Raises:
        MasqueError: no proxy is known.
    """
    tls, authenticator = shared.tls_configuration(options), shared.authenticator(options)
    routing: Routing | None = None

    def on_change(change: DocumentChanged, choice: ProxyChoice | None) -> None:
        remark(str(change))
        if routing is not None:
            routing.router.replace(choice)

    async with AsyncExitStack() as stack:
        if (source := document_source(options.proxy)) is None:
            choice = await udp_proxies(options.proxy, tls)
        else:
            choice = await stack.enter_async_context(
                following(source, ProxyProtocol.CONNECT_UDP, tls, clock, on_change)
            )
        dial = ConnectOptions(
            engine=options.engine,
            congestion_control=options.congestion_control,
            tls=tls,
            http=options.http,
            memory=shared.memory(tls),
            certificate_origin=authenticator.origin,
            grease=options.grease is not False,
        )
        pool = ProxyPool(dial, clock)
        stack.push_async_callback(pool.close)
        router = Router(
            choice,
            pool,
            clock,
            unmatched=options.unmatched,
            failover=options.failover,
            authenticator=authenticator,
            patience_s=options.timeout,
            grease=bool(options.grease),
            on_failure=_ProxyRemarks(clock).add if len(choice.candidates) > 1 else lambda proxy, error: None,
        )
        routing = Routing(choice, router)
        yield routing
