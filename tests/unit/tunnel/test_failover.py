"""The race for a proxy: who is asked when, who wins, which failures stop it, and that losers are let go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from masque_client.errors import (
    AuthenticationRefused,
    ConfigurationError,
    ConnectError,
    MasqueError,
    NameResolutionError,
    PrivilegeError,
    ProxyRefused,
    RemoteProtocolError,
    TimedOut,
    TlsError,
)
from masque_client.tunnel import failover
from masque_client.tunnel.failover import Failover, use_first
from tests.unit.pvd.virtual_time import run_virtually

DEAD = ConnectError("dead")
UNTRUSTED = TlsError("untrusted")


class Race:
    """Candidates as names; each hangs until told its outcome, unless the outcome is known from the start."""

    def __init__(self, **outcomes: MasqueError | bool | None) -> None:
        """`True` is reached at once, an error fails at once, None hangs until `tell`."""
        self.names = list(outcomes)
        self.started: list[str] = []
        self.used: list[str] = []
        self.released: list[str] = []
        self.failed: list[tuple[str, MasqueError]] = []
        self.has_failure = asyncio.Event()
        self.cancelled: list[str] = []
        self.refusals: dict[str, MasqueError] = {}
        self._outcomes = {name: asyncio.get_running_loop().create_future() for name in outcomes}
        self._started = {name: asyncio.Event() for name in outcomes}
        for name, outcome in outcomes.items():
            if outcome is not None:
                self.tell(name, outcome)

    def tell(self, name: str, outcome: MasqueError | bool) -> None:
        self._outcomes[name].set_result(outcome)

    async def wait_started(self, name: str) -> None:
        await self._started[name].wait()

    async def run(self, policy: Failover = Failover.UNAVAILABLE) -> str:
        return await use_first(
            self.names,
            self._reach,
            self._use,
            release=self.released.append,
            policy=policy,
            on_failure=self._on_failure,
        )

    def _on_failure(self, name: str, error: MasqueError) -> None:
        self.failed.append((name, error))
        self.has_failure.set()

    async def _reach(self, name: str) -> str:
        self.started.append(name)
        self._started[name].set()
        try:
            outcome = await asyncio.shield(self._outcomes[name])
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        if isinstance(outcome, MasqueError):
            raise outcome
        return f"connection to {name}"

    async def _use(self, name: str, connection: str) -> str:
        assert connection == f"connection to {name}"
        self.used.append(name)
        if name in self.refusals:
            raise self.refusals[name]
        return f"tunnel through {name}"


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """On virtual time: a head start is over when nothing else is left to happen, on a busy machine, too."""
    run_virtually(scenario())


def test_the_first_that_answers_at_once_is_the_only_one_asked() -> None:
    async def scenario() -> None:
        race = Race(a=True, b=True)
        assert await race.run() == "tunnel through a"
        assert (race.started, race.failed, race.released) == (["a"], [], [])

    run(scenario)


def test_a_failure_starts_the_next_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "HEAD_START_S", 3600.0)

    async def scenario() -> None:
        race = Race(a=NameResolutionError("unknown"), b=DEAD, c=True)
        assert await race.run() == "tunnel through c"
        assert [name for name, _ in race.failed] == ["a", "b"]

    run(scenario)


def test_silence_costs_the_head_start_and_no_more() -> None:
    async def scenario() -> None:
        race = Race(a=None, b=True)
        started = asyncio.get_running_loop().time()
        assert await race.run() == "tunnel through b"
        assert asyncio.get_running_loop().time() - started == pytest.approx(failover.HEAD_START_S)
        assert race.cancelled == ["a"]

    run(scenario)


def test_a_slow_proxy_that_comes_first_after_all_wins() -> None:
    async def scenario() -> None:
        race = Race(slow=None, slower=None)
        result = asyncio.create_task(race.run())
        await race.wait_started("slower")
        race.tell("slow", True)
        assert await result == "tunnel through slow"
        assert race.cancelled == ["slower"]

    run(scenario)


def test_of_two_at_the_same_moment_the_better_one_wins_and_the_other_is_released() -> None:
    async def scenario() -> None:
        race = Race(better=None, worse=None)
        result = asyncio.create_task(race.run())
        await race.wait_started("worse")
        race.tell("worse", True)
        race.tell("better", True)
        assert await result == "tunnel through better"
        assert race.released == ["connection to worse"]

    run(scenario)


@pytest.mark.parametrize(
    "refusal",
    [
        ProxyRefused("busy", status=503),
        ProxyRefused("too many", status=429),
        ProxyRefused("not here", status=404),
        ProxyRefused("no extended CONNECT"),
        TimedOut("silent"),
        RemoteProtocolError("nonsense", clause="RFC 9297 §3.3"),
        DEAD,
    ],
)
def test_a_proxy_that_cannot_serve_is_released_and_the_next_one_tried(refusal: MasqueError) -> None:
    async def scenario() -> None:
        race = Race(a=True, b=True)
        race.refusals["a"] = refusal
        assert await race.run() == "tunnel through b"
        assert race.released == ["connection to a"]
        assert race.failed == [("a", refusal)]

    run(scenario)


@pytest.mark.parametrize(
    "answer",
    [
        UNTRUSTED,
        AuthenticationRefused("who are you", status=401),
        AuthenticationRefused("who are you", status=407),
        ProxyRefused("not you", status=403),
        PrivilegeError("no mark"),
        ConfigurationError("bad"),
    ],
)
def test_an_answer_stops_the_race(answer: MasqueError) -> None:
    async def scenario() -> None:
        race = Race(a=True, b=True)
        race.refusals["a"] = answer
        with pytest.raises(type(answer)) as caught:
            await race.run()
        assert caught.value is answer
        assert (race.started, race.released, race.failed) == (["a"], ["connection to a"], [("a", answer)])

    run(scenario)


@pytest.mark.parametrize("answer", [UNTRUSTED, AuthenticationRefused("who are you", status=401)])
def test_the_user_may_let_it_go_on_and_still_hears_of_the_answer(answer: MasqueError) -> None:
    async def scenario() -> None:
        race = Race(a=answer, b=True)
        assert await race.run(Failover.ANY) == "tunnel through b"
        assert race.failed == [("a", answer)]

    run(scenario)


@pytest.mark.parametrize("error", [PrivilegeError("no mark"), ProxyRefused("not you", status=403)])
def test_not_even_then_after_what_is_no_fault_of_the_proxy(error: MasqueError) -> None:
    assert not Failover.ANY.goes_on_after(error)


def test_after_an_answer_those_already_asked_may_still_win() -> None:
    async def scenario() -> None:
        race = Race(slow=None, untrusted=None, never=True)
        result = asyncio.create_task(race.run())
        await race.wait_started("untrusted")
        race.tell("untrusted", UNTRUSTED)
        await race.has_failure.wait()
        race.tell("slow", True)
        assert await result == "tunnel through slow"
        assert "never" not in race.started

    run(scenario)


def test_the_most_telling_of_all_failures_is_raised() -> None:
    async def scenario() -> None:
        refused = ProxyRefused("busy", status=503)
        race = Race(a=DEAD, b=refused, c=TimedOut("silent"), d=ProxyRefused("busy, too", status=503))
        with pytest.raises(ProxyRefused) as caught:
            await race.run()
        assert caught.value is refused
        assert len(race.failed) == 4

    run(scenario)


def test_cancelling_lets_go_of_everybody() -> None:
    async def scenario() -> None:
        race = Race(a=None, b=None)
        result = asyncio.create_task(race.run())
        await race.wait_started("b")
        result.cancel()
        with pytest.raises(asyncio.CancelledError):
            await result
        assert race.cancelled == ["a", "b"]

    run(scenario)


def test_cancelling_while_one_is_in_use_releases_it() -> None:
    async def scenario() -> None:
        released: list[str] = []
        in_use = asyncio.Event()

        async def reach(name: str) -> str:
            return name

        async def use(name: str, connection: str) -> None:
            in_use.set()
            await asyncio.Event().wait()

        result = asyncio.create_task(use_first(["a"], reach, use, release=released.append))
        await in_use.wait()
        result.cancel()
        with pytest.raises(asyncio.CancelledError):
            await result
        assert released == ["a"]

    run(scenario)
