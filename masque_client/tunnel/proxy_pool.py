"""One connection per proxy, shared by all that goes through it, and the memory of who did not answer lately."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from masque_client.errors import MasqueError
from masque_client.http.connector import ConnectOptions, ProxyConnection, connect
from masque_client.netio.clock import Clock
from masque_client.pvd.names import HostPort
from masque_client.tunnel.failover import HEAD_START_S

logger = logging.getLogger(__name__)

DOWN_S = 30.0
"""A proxy that could not be reached is asked last for this long."""


Connect = Callable[[str, int, ConnectOptions, Clock], Awaitable[ProxyConnection]]


class ProxyPool:
    """Connections by origin, made when first wanted. Call `close` from the loop.

    A connection that ended, or whose proxy is going away, is replaced at the next call.
    """

    def __init__(self, options: ConnectOptions, clock: Clock, *, connect: Connect = connect) -> None:
        self._options = options
        self._clock = clock
        self._connect = connect
        self._connections: dict[HostPort, ProxyConnection] = {}
        self._leaving: list[ProxyConnection] = []
        self._dials: dict[HostPort, tuple[asyncio.Task[ProxyConnection], float]] = {}
        self._down_until: dict[HostPort, float] = {}

    async def connection(self, origin: HostPort) -> ProxyConnection:
        """The connection to a proxy. Several callers share one attempt; when all give up, it goes on alone.

        Raises:
            MasqueError: as `http.connector.connect`.
        """
        if (existing := self.existing(origin)) is not None:
            return existing
        if origin not in self._dials:
            task = asyncio.get_running_loop().create_task(self._dial(origin))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # retrieved: all may have left
            self._dials[origin] = task, self._clock.now()
        return await asyncio.shield(self._dials[origin][0])

    def existing(self, origin: HostPort) -> ProxyConnection | None:
        """The connection that can take new requests now, if there is one."""
        self._release_leaving()
        connection = self._connections.get(origin)
        if connection is None or (connection.http.closed is None and not connection.http.going_away):
            return connection
        if connection.http.closed is None:
            self._leaving.append(connection)  # what runs on it may finish
        elif connection.http.closed.error is not None:
            self._down_until[origin] = self._clock.now() + DOWN_S  # it fell silent, say: ask others first
        del self._connections[origin]
        return None

    def is_troubled(self, origin: HostPort) -> bool:
        """Whether it failed to answer lately, or is failing to now: others should be asked before it."""
        if self.existing(origin) is not None:
            return False
        now = self._clock.now()
        if origin in self._dials:
            return now - self._dials[origin][1] >= HEAD_START_S
        return now < self._down_until.get(origin, now)

    @property
    def connections(self) -> dict[HostPort, ProxyConnection]:
        """Those that can take new requests."""
        return {origin: found for origin in list(self._connections) if (found := self.existing(origin)) is not None}

    async def close(self) -> None:
        """Close every connection and stop every attempt."""
        tasks = [task for task, _ in self._dials.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in [*self._connections.values(), *self._leaving]:
            connection.close()
        self._connections.clear()
        self._leaving.clear()

    def _release_leaving(self) -> None:
        """Let go of connections whose proxy is going away once nothing runs on them any more."""
        for connection in [leaving for leaving in self._leaving if not leaving.http.handlers]:
            connection.close("nothing runs here any more")
            self._leaving.remove(connection)

    async def _dial(self, origin: HostPort) -> ProxyConnection:
        try:
            connection = await self._connect(origin.host, origin.port, self._options, self._clock)
        except MasqueError as error:
            logger.info("%s: %s", origin, error)
            self._down_until[origin] = self._clock.now() + DOWN_S
            raise
        finally:
            del self._dials[origin]
        self._down_until.pop(origin, None)
        self._connections[origin] = connection
        return connection
