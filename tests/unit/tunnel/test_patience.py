"""Retry-After: waited for, but never longer than we said, and not for other refusals."""

from __future__ import annotations

import asyncio

import pytest

from masque_client.errors import MasqueError, ProxyRefused, TimedOut
from masque_client.tunnel.patience import SHORTEST_WAIT_S, patiently
from tests.unit.pvd.virtual_time import run_virtually


def busy(retry_after_s: float | None, status: int = 503) -> ProxyRefused:
    return ProxyRefused("busy", status=status, retry_after_s=retry_after_s)


def outcome(answers: list[MasqueError], patience_s: float = 15.0) -> tuple[float, MasqueError | None]:
    """How many seconds it took, rounded, and what it ended with."""

    async def attempt() -> None:
        if answers:
            raise answers.pop(0)

    async def main() -> tuple[float, MasqueError | None]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            await patiently(attempt, patience_s)
        except MasqueError as error:
            return round(loop.time() - started, 3), error
        return round(loop.time() - started, 3), None

    return run_virtually(main())


def test_it_waits_as_long_as_it_is_asked_to() -> None:
    assert outcome([busy(3), busy(4, 429)]) == (7, None)


def test_never_longer_than_we_said_and_not_in_vain() -> None:
    last = busy(11)
    assert outcome([busy(5), last]) == (5, last)
    at_once = busy(120)
    assert outcome([at_once]) == (0, at_once)
    assert outcome([at_once], patience_s=0) == (0, at_once)


def test_zero_seconds_is_no_leave_to_hammer() -> None:
    took, error = outcome([busy(0) for _ in range(1000)], patience_s=10)
    assert error is not None and abs(took - 10) <= SHORTEST_WAIT_S


@pytest.mark.parametrize("answer", [busy(None), busy(1, 500), busy(1, 403), TimedOut("no answer")])
def test_other_answers_are_passed_on(answer: MasqueError) -> None:
    assert outcome([answer]) == (0, answer)
