"""Find the highest rate a path carries without loss, in few trials. Pure: rates out, results of trials in.

    search = RateSearch(20_000)
    while (rate := search.next_rate()) is not None:
        search.record(send_for_a_while(rate))
    best = search.best

Grow while all arrives, then halve the gap between the best that arrived and the least that did not, geometrically.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_LOSS = 0.005
"""A path with no more than this lost has carried a rate: a preempted process on a shared core is not a full path."""
SENDER_FELL_BEHIND = 0.9
"""A sender that managed less than this fraction of the rate is itself the limit; a higher rate would show nothing."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One attempt. `offered` is the rate asked for, packets/s; `sent` and `received` are packets in `seconds`."""

    offered: float
    sent: int
    received: int
    seconds: float

    @property
    def rate(self) -> float:
        """Packets/s that really left the sender."""
        return self.sent / self.seconds

    @property
    def loss(self) -> float:
        """The fraction that did not arrive."""
        return 1 - self.received / self.sent if self.sent else 1.0

    @property
    def is_carried(self) -> bool:
        """Whether the path carried it."""
        return self.loss <= MAX_LOSS


class RateSearch:
    """See the module.

    Args:
        start: packets/s of the first trial: what another run found, if there was one.
        growth: factor from trial to trial while all arrives; small when `start` is a good guess.
        tolerance: end when the answer is known to this fraction.
        max_trials: end then in any case.
    """

    def __init__(self, start: float, *, growth: float = 2.0, tolerance: float = 0.06, max_trials: int = 9) -> None:
        self.best: Trial | None = None
        """The fastest trial that was carried; None when none was."""
        self.is_sender_limited = False
        self._growth = growth
        self._tolerance = tolerance
        self._left = max_trials
        self._next = start
        self._too_much = math.inf

    def next_rate(self) -> float | None:
        """The rate to try now; None when the search is over."""
        return self._next if self._left > 0 and not self.is_sender_limited and not self._is_known() else None

    def record(self, trial: Trial) -> None:
        """The result for the last `next_rate`."""
        self._left -= 1
        if trial.is_carried:
            if self.best is None or trial.rate > self.best.rate:
                self.best = trial
            self.is_sender_limited = trial.rate < trial.offered * SENDER_FELL_BEHIND
        else:
            self._too_much = min(self._too_much, trial.rate)
        self._next = self._choose(trial)

    def _choose(self, trial: Trial) -> float:
        if self.best is None:  # what did arrive is a good guess, within reason: an overloaded path may carry little
            arrived = trial.received / trial.seconds
            return min(max(arrived, self._too_much * 0.3), self._too_much * 0.7)
        if math.isinf(self._too_much):
            return self.best.rate * self._growth
        return math.sqrt(self.best.rate * self._too_much)

    def _is_known(self) -> bool:
        return self.best is not None and self._too_much < self.best.rate * (1 + self._tolerance)
