"""The time between a tunnel's loss and its return, on a clock that jumps."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from masque_client.errors import AuthenticationRefused, ConnectError, ConnectionLost, MasqueError
from masque_client.tunnel.reconnect import STABLE_S, Outage
from masque_client.tunnel.recovery import Recovery, Regained
from tests.unit.pvd.virtual_time import VirtualTimeLoop, virtually

BACK = cast(Regained, object())
LOST = ConnectionLost("gone")


class Story:
    """A recovery without chance, whose attempts end with `outcomes`, in order, each after a second."""

    def __init__(self, *outcomes: MasqueError | Regained, give_up_after_s: float | None = None) -> None:
        self.outcomes = list(outcomes)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        self.loop = loop
        self.recovery = Recovery(loop, give_up_after_s=give_up_after_s, on_change=self._see, chance=lambda: 0.0)
        self.seen: list[Outage | None] = []
        self.attempts: list[tuple[int, float]] = []

    async def recover(self, error: MasqueError = LOST) -> Regained:
        return await self.recovery.recover(error, self._attempt)

    async def _attempt(self, number: int) -> Regained:
        self.attempts.append((number, round(self.loop.time(), 3)))
        await asyncio.sleep(1)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, MasqueError):
            raise outcome
        return outcome

    def _see(self) -> None:
        self.seen.append(self.recovery.outage)


@virtually
async def test_it_is_tried_until_it_works() -> None:
    refused = ConnectError("nobody there")
    story = Story(refused, refused, BACK)
    assert await story.recover() is BACK
    assert story.attempts == [(1, 0.1), (2, 1.3), (3, 2.7)]
    assert story.seen == [Outage("gone", 1, 0.0), Outage("nobody there", 2, 0.0), Outage("nobody there", 3, 0.0)]
    assert story.recovery.outage is None
    assert story.recovery.count == 1
    assert story.recovery.last_s == pytest.approx(3.7)


@virtually
async def test_a_reason_that_does_not_pass_ends_it() -> None:
    refused = AuthenticationRefused("who are you", status=401)
    story = Story(ConnectError("nobody there"), refused)
    with pytest.raises(AuthenticationRefused):
        await story.recover()
    assert len(story.attempts) == 2
    with pytest.raises(AuthenticationRefused):
        await story.recover(refused)
    assert len(story.attempts) == 2, "lost for such a reason, it is not tried at all"


@virtually
async def test_patience_is_of_the_users() -> None:
    story = Story(*[ConnectError("nobody there")] * 9, give_up_after_s=10)
    with pytest.raises(ConnectError, match="nobody there"):
        await story.recover()
    assert story.loop.time() <= 10
    at_once = Story(give_up_after_s=0)
    with pytest.raises(ConnectionLost, match="gone"):
        await at_once.recover()
    assert at_once.seen == [], "nobody is told of an outage that was none"


@virtually
async def test_a_tunnel_that_never_lasts_is_tried_ever_more_rarely() -> None:
    story = Story(BACK, BACK, BACK, BACK)
    for _ in range(3):
        await story.recover()
    assert [number for number, _ in story.attempts] == [1, 2, 3]
    await asyncio.sleep(STABLE_S)
    await story.recover()
    assert story.attempts[-1][0] == 1
    assert story.recovery.count == 4
