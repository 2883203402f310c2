"""The pool: one connection per proxy, one attempt at a time, and a memory of who does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from masque_client.engine.interface import ConnectionClosed
from masque_client.errors import ConnectError, ConnectionLost
from masque_client.http.connector import ConnectOptions, ProxyConnection
from masque_client.netio.clock import Clock, VirtualClock
from masque_client.pvd.names import HostPort
from masque_client.tunnel.failover import HEAD_START_S
from masque_client.tunnel.proxy_pool import DOWN_S, ProxyPool

TIMEOUT_S = 60.0
A, B = HostPort("a.example", 443), HostPort("b.example", 443)


class FakeHttp:
    """As much of an `HttpConnection` as the pool looks at."""

    def __init__(self, now: float) -> None:
        self.closed: ConnectionClosed | None = None
        self.going_away = False
        self.handlers: dict[int, object] = {}
        self.last_received_at = now


class FakeConnection:
    def __init__(self, now: float) -> None:
        self.http = FakeHttp(now)

    def is_closed(self) -> bool:
        return self.http.closed is not None

    def close(self, reason: str = "") -> None:
        self.http.closed = self.http.closed or ConnectionClosed(0x100, reason, True, None)


class Network:
    """Dials that wait for `answer`."""

    def __init__(self) -> None:
        self.clock = VirtualClock(1000.0)
        self.dials: list[HostPort] = []
        self.dialled = asyncio.Event()
        self._answers: dict[HostPort, asyncio.Future[FakeConnection]] = {}
        self.pool = ProxyPool(ConnectOptions(), self.clock, connect=self._connect)

    async def _connect(self, host: str, port: int, options: ConnectOptions, clock: Clock) -> ProxyConnection:
        origin = HostPort(host, port)
        self.dials.append(origin)
        self._answers[origin] = asyncio.get_running_loop().create_future()
        self.dialled.set()
        return cast(ProxyConnection, await self._answers[origin])

    async def ask(self, origin: HostPort) -> asyncio.Task[ProxyConnection]:
        """A caller whose dial is under way."""
        self.dialled.clear()
        task = asyncio.create_task(self.pool.connection(origin))
        await self.dialled.wait()
        return task

    def answer(self, origin: HostPort) -> FakeConnection:
        connection = FakeConnection(self.clock.now())
        self._answers[origin].set_result(connection)
        return connection

    def refuse(self, origin: HostPort) -> None:
        self._answers[origin].set_exception(ConnectError("nothing listens"))

    async def connected(self, origin: HostPort) -> FakeConnection:
        task = await self.ask(origin)
        connection = self.answer(origin)
        await task
        return connection


def run(scenario: Callable[[Network], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        network = Network()
        async with asyncio.timeout(TIMEOUT_S):
            await scenario(network)
            await network.pool.close()

    asyncio.run(main())


def test_callers_share_one_connection_for_each_proxy() -> None:
    async def scenario(network: Network) -> None:
        first = await network.ask(A)
        second = asyncio.create_task(network.pool.connection(A))
        connection = network.answer(A)
        assert await first is await second is await network.pool.connection(A)
        other = await network.connected(B)
        assert network.dials == [A, B]
        assert list(map(id, network.pool.connections.values())) == [id(connection), id(other)]
        await network.pool.close()
        assert connection.is_closed() and other.is_closed()

    run(scenario)


def test_a_caller_that_gives_up_leaves_the_attempt_to_the_others() -> None:
    async def scenario(network: Network) -> None:
        first = await network.ask(A)
        second = asyncio.create_task(network.pool.connection(A))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        network.answer(A)
        await second
        assert network.dials == [A]

    run(scenario)


def test_a_failure_is_everybodys_and_remembered_for_a_while() -> None:
    async def scenario(network: Network) -> None:
        first = await network.ask(A)
        second = asyncio.create_task(network.pool.connection(A))
        network.refuse(A)
        for caller in (first, second):
            with pytest.raises(ConnectError):
                await caller
        assert network.pool.is_troubled(A) and not network.pool.is_troubled(B)
        network.clock.advance(DOWN_S)
        assert not network.pool.is_troubled(A)
        await network.connected(A)
        assert not network.pool.is_troubled(A)

    run(scenario)


def test_an_attempt_that_takes_long_is_trouble_before_it_fails() -> None:
    async def scenario(network: Network) -> None:
        caller = await network.ask(A)
        assert not network.pool.is_troubled(A)
        network.clock.advance(HEAD_START_S)
        assert network.pool.is_troubled(A)
        network.answer(A)
        await caller
        assert not network.pool.is_troubled(A)

    run(scenario)


def test_an_ended_connection_is_replaced() -> None:
    async def scenario(network: Network) -> None:
        connection = await network.connected(A)
        connection.http.closed = ConnectionClosed(0x100, "", True, None)
        assert network.pool.existing(A) is None
        await network.connected(A)
        assert network.dials == [A, A]

    run(scenario)


def test_what_runs_on_a_connection_that_is_going_away_may_finish() -> None:
    async def scenario(network: Network) -> None:
        leaving = await network.connected(A)
        leaving.http.going_away = True
        leaving.http.handlers[0] = "a flow"
        fresh = await network.connected(A)
        assert network.pool.existing(A) is not None and not leaving.is_closed()
        leaving.http.handlers.clear()
        assert network.pool.existing(A) is not None and leaving.is_closed() and not fresh.is_closed()

    run(scenario)


def test_what_is_still_running_then_ends_with_the_pool() -> None:
    async def scenario(network: Network) -> None:
        leaving = await network.connected(A)
        leaving.http.going_away = True
        leaving.http.handlers[0] = "a flow"
        await network.connected(A)
        await network.pool.close()
        assert leaving.is_closed()

    run(scenario)


def test_a_proxy_whose_connection_broke_is_asked_last_and_one_that_closed_it_is_not() -> None:
    async def scenario(network: Network) -> None:
        broken, polite = await network.connected(A), await network.connected(B)
        broken.http.closed = ConnectionClosed(0, "silence", False, ConnectionLost("no packet for 8 s"))
        polite.close()
        assert network.pool.existing(A) is None and network.pool.existing(B) is None
        assert network.pool.is_troubled(A) and not network.pool.is_troubled(B)
        network.clock.advance(DOWN_S)
        assert not network.pool.is_troubled(A)

    run(scenario)


def test_closing_stops_attempts() -> None:
    async def scenario(network: Network) -> None:
        caller = await network.ask(A)
        await network.pool.close()
        with pytest.raises(asyncio.CancelledError):
            await caller

    run(scenario)
