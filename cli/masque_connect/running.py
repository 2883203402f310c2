"""Running a command's coroutine so that SIGINT and SIGTERM undo what it did, at any moment."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from masque_connect.interruption import Interrupted

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_until_signal(main: Coroutine[Any, Any, T]) -> T:
    """Run `main`; on SIGINT or SIGTERM cancel it, let its `finally` blocks finish, then raise `Interrupted`.

    A second signal does not cut the clean-up short: leaving a host half configured is worse than a short wait.
    """
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        return asyncio.run(_guarded(main))
    finally:
        for number, handler in handlers.items():  # asyncio leaves the system's defaults behind
            signal.signal(number, handler)


async def _guarded(main: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = loop.create_task(main)
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            task.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, interrupt)
    try:
        return await task
    except asyncio.CancelledError:
        if interrupted:
            raise Interrupted from None
        raise
