"""The keeper over days of virtual time: what counts at which moment, and how often the host is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from masque_client.errors import ConnectError, PvdError, TlsError
from masque_client.pvd.cache import PvdCache
from masque_client.pvd.changes import Cause, DocumentChanged
from masque_client.pvd.fetch import Download, Fetched, FetchOptions, evaluate
from masque_client.pvd.keeper import PvdKeeper, Standing
from masque_client.pvd.model import PvdDocument
from masque_client.pvd.schedule import FetchBudget
from masque_client.pvd.source import PvdSource
from tests.unit.pvd.documents import HOST, NOW, TLS_PROXY, UDP_PROXY, document, parse
from tests.unit.pvd.virtual_time import VirtualTimeLoop, run_virtually

SOURCE = PvdSource.parse(HOST)
HOUR = 3600.0
ONE_HOUR = document(expires="2026-11-22T13:00:00Z", proxies=[UDP_PROXY])
TWO_HOURS = document(expires="2026-11-22T14:00:00Z", proxies=[TLS_PROXY])

Answer = bytes | Exception | Callable[[], Awaitable[bytes]]


async def hang() -> bytes:
    await asyncio.sleep(1000 * HOUR)
    raise AssertionError("nobody waits that long")


class World:
    """A host that gives `answers` in turn (the last one for ever), and a time of day that may be wrong or set."""

    def __init__(self, *answers: Answer, cache: PvdCache | None = None) -> None:
        self.answers: Sequence[Answer] = answers
        self.asked: list[float] = []
        self.validated: list[Download | None] = []
        self.heard: list[DocumentChanged] = []
        self.cache = cache or PvdCache(None)
        self.clock_error = timedelta()
        self.served_at: datetime | None = None
        self.options = FetchOptions(now=self.wall)

    def wall(self) -> datetime:
        return NOW + timedelta(seconds=self.now()) + self.clock_error

    def now(self) -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        return loop.now()

    async def fetch(self, source: PvdSource, *, previous: Download | None) -> Fetched:
        answer = self.answers[min(len(self.asked), len(self.answers) - 1)]
        self.asked.append(self.now())
        self.validated.append(previous)
        if isinstance(answer, Exception):
            raise answer
        body = answer if isinstance(answer, bytes) else await answer()
        served_at = self.wall() - self.clock_error
        download = Download(body, HOST, self.wall(), served_at, may_store=True)
        return Fetched(download, evaluate(download, source, self.options))

    def keeper(self, **arguments: Any) -> PvdKeeper:
        arguments = {"draw": lambda: 0.5, "on_change": self.heard.append, **arguments}
        return PvdKeeper(SOURCE, fetch=self.fetch, cache=self.cache, options=self.options, clock=self, **arguments)


def standing(keeper: PvdKeeper) -> Standing:
    return keeper.standing  # a call, so that mypy does not think it stays what it was


def current(keeper: PvdKeeper) -> PvdDocument | None:
    return keeper.document


def protocols(keeper: PvdKeeper) -> list[str]:
    assert keeper.document is not None
    return [str(proxy.protocol) for proxy in keeper.document.proxies]


@asynccontextmanager
async def running(keeper: PvdKeeper) -> AsyncIterator[PvdKeeper]:
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()


def test_a_document_is_fetched_and_refreshed_in_its_second_half() -> None:
    async def scenario() -> None:
        world = World(ONE_HOUR, TWO_HOURS)
        async with running(world.keeper()) as keeper:
            await keeper.decided()
            assert standing(keeper) is Standing.CURRENT
            assert protocols(keeper) == ["connect-udp"]
            await asyncio.sleep(0.76 * HOUR)
            assert protocols(keeper) == ["https-connect"]
        assert world.asked == [0, 0.75 * HOUR]
        assert world.validated[0] is None and world.validated[1] is not None

    run_virtually(scenario())


def test_a_change_of_proxies_is_reported_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        world = World(ONE_HOUR, TWO_HOURS)
        async with running(world.keeper()) as keeper:
            await asyncio.sleep(0.8 * HOUR)
            first, second = keeper.changes
        assert world.heard == [first, second]
        assert (first.old, first.cause, first.is_about_proxies) == (None, Cause.FETCHED, False)
        assert second.old == first.new and second.is_about_proxies
        assert [proxy.text for proxy in second.proxies_added] == ["proxy.example:443"]
        assert [proxy.text for proxy in second.proxies_removed] == [UDP_PROXY["proxy"]]

    run_virtually(scenario())
    (remark,) = [record.message for record in caplog.records]  # the first document is no news worth a warning
    assert "new: https-connect proxy.example:443; gone: connect-udp proxy.example:443" in remark


def test_the_same_document_again_is_no_change() -> None:
    async def scenario() -> None:
        world = World(TWO_HOURS)
        async with running(world.keeper()) as keeper:
            await asyncio.sleep(1.9 * HOUR)
            assert len(world.asked) > 1 and len(keeper.changes) == 1

    run_virtually(scenario())


def test_the_order_of_entries_is_no_news() -> None:
    one = document(proxies=[UDP_PROXY, TLS_PROXY])
    other = document(proxies=[TLS_PROXY, UDP_PROXY])
    old, new = parse(one), parse(other)
    assert old != new
    assert not DocumentChanged.between(old, new, Cause.FETCHED).is_about_proxies


# --- the end of a document --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("requires_document", "expected"), [(False, Standing.BASE), (True, Standing.BLOCKED)])
def test_at_its_end_a_document_disappears_even_if_the_refresh_hangs(
    requires_document: bool, expected: Standing
) -> None:
    async def scenario() -> None:
        world = World(ONE_HOUR, hang)
        async with running(world.keeper(requires_document=requires_document)) as keeper:
            await asyncio.sleep(HOUR - 1)
            assert standing(keeper) is Standing.CURRENT
            await asyncio.sleep(1)
            assert (current(keeper), standing(keeper)) == (None, expected)
            await asyncio.sleep(1)
            assert world.heard[-1].cause is Cause.EXPIRED and world.heard[-1].new is None
        assert world.asked == [0, 0.75 * HOUR]

    run_virtually(scenario())


def test_an_expired_document_is_not_given_out_before_anything_else_has_run() -> None:
    async def scenario() -> None:
        world = World(ONE_HOUR, hang)
        async with running(world.keeper()) as keeper:
            await keeper.decided()
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualTimeLoop)
            loop.jump(HOUR)  # no task has had a turn since
            assert current(keeper) is None

    run_virtually(scenario())


def test_a_sleeping_machine_notices_the_end_by_the_time_of_day() -> None:
    async def scenario() -> None:
        world = World(ONE_HOUR, ConnectError("no network yet"))
        async with running(world.keeper()) as keeper:
            await asyncio.sleep(60)
            world.clock_error = timedelta(hours=1)  # the monotonic clock stood still meanwhile
            assert current(keeper) is None
            await asyncio.sleep(61)
            assert world.heard[-1].cause is Cause.EXPIRED

    run_virtually(scenario())


def test_with_a_wrong_time_of_day_the_lifetime_runs_on_the_monotonic_clock() -> None:
    async def scenario() -> None:
        world = World(ONE_HOUR, ConnectError("down"))
        world.clock_error = timedelta(days=-10)
        async with running(world.keeper()) as keeper:
            await keeper.decided()
            assert "clock differs" in str(current(keeper))
            await asyncio.sleep(HOUR - 1)
            assert current(keeper) is not None
            await asyncio.sleep(2)
            assert current(keeper) is None

    run_virtually(scenario())


# --- failures ---------------------------------------------------------------------------------------------------------


def test_transient_failures_leave_the_document_alone_and_are_retried() -> None:
    async def scenario() -> None:
        world = World(ONE_HOUR, ConnectError("down"), ConnectError("down"), TWO_HOURS)
        async with running(world.keeper()) as keeper:
            await asyncio.sleep(0.75 * HOUR + 100)
            assert str(keeper.error) == "down" and standing(keeper) is Standing.CURRENT
            assert keeper.next_fetch_in_s == pytest.approx(80)
            await asyncio.sleep(100)
            assert not keeper.error
        assert world.asked == pytest.approx([0, 2700, 2760, 2880])

    run_virtually(scenario())


@pytest.mark.parametrize("error", [PvdError("404"), TlsError("wrong name")])
def test_final_failures_wait_for_the_user_or_another_network(error: Exception) -> None:
    async def scenario() -> None:
        world = World(error)
        async with running(world.keeper()) as keeper:
            await keeper.decided()
            assert (keeper.error, keeper.next_fetch_in_s) == (error, None)
            await asyncio.sleep(100 * HOUR)
            assert world.asked == [0]
            keeper.refresh()
            await asyncio.sleep(1)
            keeper.network_changed()
            await asyncio.sleep(60)
        assert world.asked == [0, 100 * HOUR, 100 * HOUR + 10]  # not sooner than 10 s after the one before

    run_virtually(scenario())


def test_after_ten_failures_the_network_is_left_alone() -> None:
    async def scenario() -> None:
        world = World(ConnectError("down"))
        async with running(world.keeper()) as keeper:
            await asyncio.sleep(100 * HOUR)
            assert len(world.asked) == 10
            keeper.network_changed()
            await asyncio.sleep(1)
            assert len(world.asked) == 11

    run_virtually(scenario())


def test_keepers_of_one_network_share_its_budget() -> None:
    async def scenario() -> None:
        world, budget = World(ONE_HOUR), FetchBudget()
        for number in range(5):
            budget.requested(f"{number}.example", 0.0)
        async with running(world.keeper(budget=budget)) as keeper:
            await keeper.decided()
        assert world.asked == [10]

    run_virtually(scenario())


def test_a_change_of_network_restarts_a_fetch_that_hangs() -> None:
    async def scenario() -> None:
        world = World(hang, ONE_HOUR)
        async with running(world.keeper()) as keeper:
            await asyncio.sleep(11)
            keeper.network_changed()
            await keeper.decided()
            assert current(keeper) is not None
        assert world.asked == [0, 11]

    run_virtually(scenario())


def test_a_fetch_that_fails_unexpectedly_is_not_hidden() -> None:
    async def scenario() -> None:
        with pytest.raises(ZeroDivisionError):
            await World(ZeroDivisionError()).keeper().run()

    run_virtually(scenario())


# --- the cache, and the network's own word ----------------------------------------------------------------------------


def test_a_start_without_a_network_uses_the_cache(tmp_path: Path) -> None:
    async def first_run() -> None:
        async with running(World(ONE_HOUR, cache=PvdCache(tmp_path)).keeper()) as keeper:
            await keeper.decided()

    async def second_run() -> None:
        world = World(ConnectError("offline"), cache=PvdCache(tmp_path))
        world.clock_error = timedelta(minutes=20)
        async with running(world.keeper()) as keeper:
            await keeper.decided()
            assert standing(keeper) is Standing.CURRENT and world.asked == []
            assert world.heard[0].cause is Cause.LOADED
            await asyncio.sleep(0.5 * HOUR)
            assert world.asked[0] == 0.75 * HOUR - 1200  # the refresh still counts from when it was received
            await asyncio.sleep(HOUR)
            assert standing(keeper) is Standing.BASE
        assert PvdCache(tmp_path).load(SOURCE, replace(world.options, now=lambda: NOW)) is None

    run_virtually(first_run())
    run_virtually(second_run())


def test_an_invalidated_document_goes_at_once_and_the_next_comes_after_the_delay() -> None:
    async def scenario() -> None:
        world = World(ONE_HOUR, TWO_HOURS)
        async with running(world.keeper()) as keeper:
            await asyncio.sleep(60)
            keeper.invalidate(delay_s=300.0)
            assert current(keeper) is None and world.heard[-1].cause is Cause.INVALIDATED
            await asyncio.sleep(299)
            assert current(keeper) is None
            await asyncio.sleep(2)
            assert current(keeper) is not None
        assert world.asked == [0, 360]
        assert world.validated == [None, None]

    run_virtually(scenario())
