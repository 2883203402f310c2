"""UDP flows to targets, opened when somebody sends and closed when nobody does any more.

A `FlowTable` belongs to one local socket. Its keys are whatever tells two flows apart there: the local peer of a port
forward, the destination of a SOCKS association. Each flow has a path of its own (`paths.UdpPath`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from masque_client.engine.interface import Address
from masque_client.errors import MasqueError, ProxyRefused
from masque_client.netio.clock import Clock
from masque_client.sockets.paths import UdpDialer, UdpPath

logger = logging.getLogger(__name__)

MAX_EARLY_DATAGRAMS = 8
"""Datagrams of a new flow kept until its path is open; more are dropped and counted."""
FLOW_IDLE_TIMEOUT_S = 120.0
"""A flow without traffic in either direction is closed after this (digest U-20, RFC 9298 §3.1: at least 2 minutes)."""
REOPEN_INTERVAL_S = 1.0
"""A flow is opened at most this often: a chatty program must not hammer a proxy that says no."""
MAX_RETRY_AFTER_S = 60.0
"""A proxy that asks for a longer pause (Retry-After, RFC 9110 §10.2.3) is asked again after this one all the same."""
MAX_FLOWS = 1024
"""Flows at once in one table; each costs a request stream and the proxy a socket."""

KeyT = TypeVar("KeyT", bound=Hashable)


@dataclass(slots=True)
class FlowStatistics:
    """What the flows of one table carried, in UDP payloads and bytes. Outbound is local program → target."""

    datagrams_out: int = 0
    bytes_out: int = 0
    datagrams_in: int = 0
    bytes_in: int = 0
    drops: Counter[str] = field(default_factory=Counter)


class FlowTable(Generic[KeyT]):
    """The flows of one local socket.

    Args:
        dialer: opens their paths.
        deliver: called with what a flow's target sent; returns how many the local program's socket took.
        on_error: told why a flow ended; the others go on. `errors.concerns_whole_proxy` says if they are worth it.
        statistics: counted into; its own when None.
    """

    def __init__(
        self,
        dialer: UdpDialer,
        deliver: Callable[[KeyT, list[bytes]], int],
        clock: Clock,
        *,
        on_error: Callable[[MasqueError], None] = lambda error: None,
        max_flows: int = MAX_FLOWS,
        idle_timeout_s: float = FLOW_IDLE_TIMEOUT_S,
        statistics: FlowStatistics | None = None,
    ) -> None:
        self.dialer = dialer
        self.clock = clock
        self.flows: dict[KeyT, _Flow[KeyT]] = {}
        self.statistics = statistics or FlowStatistics()
        self._deliver = deliver
        self._on_error = on_error
        self._max_flows = max_flows
        self._idle_timeout_s = idle_timeout_s
        self._loop = asyncio.get_running_loop()
        self._sweeper = self._loop.call_later(idle_timeout_s / 8, self._close_idle)

    def send(self, key: KeyT, target: Address, payloads: list[bytes]) -> None:
        """Local program → target, over the flow of `key`, which is opened when it does not exist."""
        flow = self.flows.get(key)
        if flow is None:
            if len(self.flows) >= self._max_flows:
                self.statistics.drops["too-many-flows"] += len(payloads)
                return
            flow = self.flows[key] = _Flow(self, key, target)
        flow.send(payloads)

    async def close(self) -> None:
        """End every flow. Idempotent."""
        self._sweeper.cancel()
        tasks = [flow.task for flow in list(self.flows.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def deliver(self, key: KeyT, payloads: list[bytes]) -> None:
        """Target → local program; what its socket cannot take now is dropped and counted."""
        taken = self._deliver(key, payloads)
        statistics = self.statistics
        statistics.drops["local-buffer-full"] += len(payloads) - taken
        statistics.datagrams_in += taken
        statistics.bytes_in += sum(map(len, payloads[:taken]))

    def flow_failed(self, flow: _Flow[KeyT], error: MasqueError) -> None:
        """A flow ended with an error; a later datagram opens a new one."""
        logger.info("flow to %s:%d ended: %s", *flow.target, error)
        self.statistics.drops["flow-failed"] += len(flow.early)
        self._on_error(error)

    def _close_idle(self) -> None:
        horizon = self.clock.now() - self._idle_timeout_s
        for flow in [flow for flow in self.flows.values() if flow.last_used < horizon]:
            flow.task.cancel()
        self._sweeper = self._loop.call_later(self._idle_timeout_s / 8, self._close_idle)


class _Flow(Generic[KeyT]):
    """One flow: its path, and what was sent before the path was open.

    An ended flow keeps its place until the next one may be opened; what comes meanwhile is dropped and counted.
    """

    def __init__(self, table: FlowTable[KeyT], key: KeyT, target: Address) -> None:
        self.table = table
        self.key = key
        self.target = target
        self.last_used = table.clock.now()
        self.early: list[bytes] = []
        self.has_ended = False
        self.path: UdpPath | None = None
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        reopen_at = loop.time() + REOPEN_INTERVAL_S
        try:
            pause_s = await self._carry()
            self.has_ended = True
            await asyncio.sleep(max(reopen_at - loop.time(), pause_s))
        finally:
            self.table.flows.pop(self.key, None)

    async def _carry(self) -> float:
        """From opening the path to its end; returns for how many seconds the proxy asks to be left alone."""
        try:
            self.path = await self.table.dialer.open_udp(*self.target, self.deliver)
            early, self.early = self.early, []
            self.send(early)
            if (error := await self.path.wait_closed()) is not None:
                raise error
        except MasqueError as error:
            self.table.flow_failed(self, error)
            if isinstance(error, ProxyRefused):
                return min(error.retry_after_s or 0.0, MAX_RETRY_AFTER_S)
        finally:
            if self.path is not None:
                self.path.close()
        return 0.0

    def send(self, payloads: list[bytes]) -> None:
        """Local program → target."""
        statistics = self.table.statistics
        self.last_used = self.table.clock.now()
        if self.has_ended:
            statistics.drops["reopening"] += len(payloads)
        elif self.path is not None and (limit := self.path.max_payload):
            fitting = [payload for payload in payloads if len(payload) <= limit]
            taken = self.path.send(fitting)
            statistics.drops["too-large"] += len(payloads) - len(fitting)
            statistics.drops["queue-full"] += len(fitting) - taken
            statistics.datagrams_out += taken
            statistics.bytes_out += sum(map(len, fitting[:taken]))
        else:
            room = MAX_EARLY_DATAGRAMS - len(self.early)
            self.early.extend(payloads[:room])
            statistics.drops["before-response"] += max(0, len(payloads) - room)

    def deliver(self, payloads: list[bytes]) -> None:
        """Target → local program."""
        self.last_used = self.table.clock.now()
        self.table.deliver(self.key, payloads)
