"""Where time comes from: monotonic seconds, handed in as a value so that tests can own it.

Nothing below `netio` reads a clock. Whoever drives an engine holds one `Clock` and passes `now` downward.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds since an arbitrary moment; never goes back, unrelated to the time of day."""

    def now(self) -> float:
        """The present, in seconds."""
        ...


class MonotonicClock:
    """The machine's own: CLOCK_MONOTONIC, the clock that asyncio's event loop uses, so the two can be compared.

    It stands still while the machine sleeps. Noticing a suspend is the network monitor's job.
    """

    now = staticmethod(time.monotonic)
    """The present, in seconds."""


class VirtualClock:
    """A clock that moves when it is told to. For tests and simulations."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def now(self) -> float:
        """The present, in seconds."""
        return self._now

    def advance(self, seconds: float) -> float:
        """Move forward and return the new present. A negative step is refused: the clock is monotonic."""
        if seconds < 0:
            raise ValueError("a monotonic clock cannot go back")
        self._now += seconds
        return self._now
