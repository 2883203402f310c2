"""Commands are cancelled by signals and always finish their clean-up."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from masque_connect.running import run_until_signal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_and_the_clean_up_finishes(number: signal.Signals) -> None:
    undone: list[str] = []

    async def command() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            os.kill(os.getpid(), number)  # an impatient user
            await asyncio.to_thread(undone.append, "undone")

    with pytest.raises(KeyboardInterrupt):
        run_until_signal(command())
    assert undone == ["undone"]


def test_results_and_errors_pass_through() -> None:
    async def good() -> int:
        return 7

    async def bad() -> int:
        raise ValueError("x")

    assert run_until_signal(good()) == 7
    with pytest.raises(ValueError, match="x"):
        run_until_signal(bad())
