"""Where each destination of a local program goes: through which proxy, directly, or nowhere.

The document's rules decide what its proxies are for (`pvd.match`). What they leave over, because a rule excludes it or
no rule covers it, is the user's decision: `Unmatched`. A server never makes traffic go around the proxies.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from masque_client.engine.interface import Headers
from masque_client.errors import ConnectError, DestinationBlocked, MasqueError, NameResolutionError
from masque_client.http.authentication import Authenticator
from masque_client.http.connector import ProxyConnection
from masque_client.netio.clock import Clock
from masque_client.protocol.uri_template import UdpTemplate
from masque_client.pvd.match import Flow, FlowKind, Matcher, Selection, Step, Verdict
from masque_client.pvd.proxies import ProxyProtocol, PvdProxy
from masque_client.sockets.paths import DirectPath, OnPayloads, ProxyPath, UdpPath, resolve
from masque_client.tunnel.failover import Failover, use_first
from masque_client.tunnel.patience import patiently
from masque_client.tunnel.proxies import ProxyChoice
from masque_client.tunnel.proxy_pool import ProxyPool
from masque_client.tunnel.route_policy import Unmatched

logger = logging.getLogger(__name__)

TCP_CONNECT_TIMEOUT_S = 10.0


class Way(StrEnum):
    """Where a destination goes."""

    PROXY = "proxy"
    DIRECT = "direct"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer for one destination.

    Attributes:
        way: see there.
        proxies: for `PROXY`, the candidates, best first; the members of a group stand together.
        reason: one clause for a person.
        selection: what the rules alone say.
    """

    flow: Flow
    way: Way
    proxies: tuple[PvdProxy, ...]
    reason: str
    selection: Selection


class _OnlyConnectUdp:
    """The local policy of a program that speaks no other protocol."""

    def wants_proxy(self, flow: Flow) -> bool:
        """Always."""
        return True

    def allows(self, proxy: PvdProxy, flow: Flow) -> bool:
        """Whether we can use it at all."""
        return proxy.protocol is ProxyProtocol.CONNECT_UDP


class Router:
    """Decides, and opens what it decided: the `UdpDialer` and `TcpDialer` of the local listeners.

    Args:
        choice: proxies and rules; `replace` swaps them for new flows when a document was refreshed.
        pool: connections to proxies; the caller closes it.
        unmatched: for what the rules leave over.
        failover: after which failures the next candidate is tried.
        authenticator: the user's fields and credentials.
        patience_s: how long a new flow waits for a proxy that says when to come back.
        grease: see `SessionStream`.
        on_failure: told of each proxy that did not do, also when another one then does.
    """

    def __init__(
        self,
        choice: ProxyChoice,
        pool: ProxyPool,
        clock: Clock,
        *,
        unmatched: Unmatched = Unmatched.BLOCK,
        failover: Failover = Failover.UNAVAILABLE,
        authenticator: Authenticator | None = None,
        patience_s: float = 0.0,
        grease: bool = False,
        on_failure: Callable[[PvdProxy, MasqueError], None] = lambda proxy, error: None,
    ) -> None:
        self.pool = pool
        self._clock = clock
        self._unmatched = unmatched
        self._failover = failover
        self._authenticator = authenticator or Authenticator()
        self._patience_s = patience_s
        self._grease = grease
        self._on_failure = on_failure
        self.replace(choice)

    def replace(self, choice: ProxyChoice | None) -> None:
        """Use these proxies and rules from now on; open flows stay where they are.

        Args:
            choice: None when the document has ended. Its rules are gone then, and nothing has a way, whatever
                `unmatched` says: what they would have sent through a proxy must not go directly instead.
        """
        self._ours = choice.matcher(_OnlyConnectUdp()) if choice is not None else None
        self._anybodys = choice.matcher() if choice is not None else None

    # --- deciding ---------------------------------------------------------------------------------------------------

    def decide(self, kind: FlowKind, host: str, port: int) -> Decision:
        """Where a destination goes. Names are not looked up: `subnets` rules only see IP literals.

        A destination that the rules give to proxies of a protocol that is not spoken here is blocked, whatever
        `unmatched` says: the document wants it proxied.

        Raises:
            ConfigurationError: the host is neither a name nor an address.
        """
        flow = Flow(kind, host, port=port)
        if self._ours is None or self._anybodys is None:
            reason = "the PvD document has expired and no other one could be fetched"
            return Decision(flow, Way.BLOCKED, (), reason, Selection(Verdict.NO_MATCH))
        selection, steps = self._ours.explain(flow) if logger.isEnabledFor(logging.DEBUG) else (None, ())
        selection = selection or self._ours.select(flow)
        decision = self._judge(flow, selection, self._anybodys)
        _log(decision, steps)
        return decision

    def _judge(self, flow: Flow, selection: Selection, anybodys: Matcher) -> Decision:
        if selection.verdict is Verdict.PROXY:
            proxies = tuple(proxy for group in selection.groups for proxy in group)
            return Decision(flow, Way.PROXY, proxies, _why(selection), selection)
        if selection.verdict is Verdict.NO_MATCH:
            by_anyone = anybodys.select(flow)
            if by_anyone.verdict is Verdict.PROXY:
                names = dict.fromkeys(proxy.protocol for group in by_anyone.groups for proxy in group)
                reason = f"{_why(by_anyone)} wants it carried by {' or '.join(names)}, which is not possible here"
                return Decision(flow, Way.BLOCKED, (), reason, by_anyone)
        way = Way.DIRECT if self._unmatched is Unmatched.DIRECT else Way.BLOCKED
        return Decision(flow, way, (), _why(selection), selection)

    # --- opening ----------------------------------------------------------------------------------------------------

    async def open_udp(self, host: str, port: int, on_payloads: OnPayloads) -> UdpPath:
        """See `sockets.paths.UdpDialer`. A proxy that fails is followed by the next candidate."""
        decision = self.decide(FlowKind.UDP, host, port)
        if decision.way is Way.BLOCKED:
            raise blocked(decision)
        if decision.way is Way.DIRECT:
            return await DirectPath.open(host, port, on_payloads)

        async def request(proxy: PvdProxy, connection: ProxyConnection) -> UdpPath:
            template = proxy.proxy
            assert isinstance(template, UdpTemplate)

            async def send(fields: Headers) -> UdpPath:
                return await ProxyPath.open(
                    connection.http,
                    template,
                    host,
                    port,
                    clock=self._clock,
                    on_payloads=on_payloads,
                    extra_headers=fields,
                    grease=self._grease,
                )

            return await self._authenticator.request((proxy.authority.host, proxy.authority.port), send)

        async def attempt() -> UdpPath:
            return await use_first(
                self._in_order(decision.selection),
                self._reach,
                request,
                policy=self._failover,
                on_failure=self._on_failure,
            )

        return await patiently(attempt, self._patience_s)

    async def warm(self, decision: Decision) -> PvdProxy:
        """Connect now to the proxy that a `PROXY` decision leads to, and say which it is.

        Raises:
            MasqueError: none can be had.
        """

        async def use(proxy: PvdProxy, connection: ProxyConnection) -> PvdProxy:
            return proxy

        return await use_first(
            self._in_order(decision.selection), self._reach, use, policy=self._failover, on_failure=self._on_failure
        )

    async def open_tcp(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A direct connection, where the rules and the user leave the destination to one. We proxy no TCP.

        Raises:
            DestinationBlocked: they do not.
            NameResolutionError, ConnectError: it cannot be had.
        """
        decision = self.decide(FlowKind.TCP, host, port)
        if decision.way is not Way.DIRECT:
            raise blocked(decision)
        failure: MasqueError = NameResolutionError(f"{host} has no address")
        for address in await resolve(host, port, socket.SOCK_STREAM):
            try:
                async with asyncio.timeout(TCP_CONNECT_TIMEOUT_S):
                    return await asyncio.open_connection(address, port)
            except OSError as error:  # TimeoutError is one
                failure = ConnectError(f"{address} port {port} cannot be reached: {error.strerror or 'timed out'}")
        raise failure

    async def _reach(self, proxy: PvdProxy) -> ProxyConnection:
        return await self.pool.connection(proxy.authority)

    def _in_order(self, selection: Selection) -> list[PvdProxy]:
        """Groups in order, in each the member that is connected first (PROXY-CONFIG §4.2); the troubled ones last."""
        ranked = [
            (self.pool.is_troubled(proxy.authority), number, self.pool.existing(proxy.authority) is None, proxy)
            for number, group in enumerate(selection.groups)
            for proxy in group
        ]
        return [proxy for *_, proxy in sorted(ranked, key=lambda entry: entry[:3])]


def blocked(decision: Decision) -> DestinationBlocked:
    """What to raise for a destination that has no way."""
    return DestinationBlocked(f"{decision.flow} is blocked: {decision.reason}")


def _why(selection: Selection) -> str:
    if selection.rule is not None:
        excludes = " excludes it" if selection.verdict is Verdict.EXCLUDED else ""
        return f"rule {selection.rule.index + 1}{excludes}"
    return "a proxy for all destinations" if selection.verdict is Verdict.PROXY else "no rule covers it"


def _log(decision: Decision, steps: tuple[Step, ...]) -> None:
    logger.debug("%s: %s, %s", decision.flow, decision.way, decision.reason)
    for step in steps:
        logger.debug("  %s: %s", step.rule.pointer if step.rule else "otherwise", step.reason)
