"""Interrupt moderation, as network cards and their drivers do it: under a stream of single datagrams, look less often.

A wake-up costs the same for one datagram as for forty. A peer that sends them in trains fills our batches by itself.
One that sends every datagram alone, thousands a second, would have us spend most of the time on waking up: there a
short rest after each wake-up lets a handful gather. Nobody rests who has little to do, nor who has much: a ping now and
then is answered at once, and a busy connection has batches anyway.
"""

from __future__ import annotations

from typing import Final

SMALL_BATCH: Final = 8
"""Datagrams moved in one wake-up, either way, from which on it was worth its cost."""

GAP_S: Final = 0.0002
"""A wake-up that comes this soon after the last one ended continues a stream."""

PATIENCE: Final = 32
"""So many small wake-ups in a row make a stream: a question and its answer do not."""

REST_S: Final = 0.0003


class Moderation:
    """Decides after each wake-up how long to rest.

    Attributes:
        ended_at: when the last wake-up, and the rest after it, were over: for the caller to say.
    """

    def __init__(self) -> None:
        self.ended_at = float("-inf")
        self._moved = 0
        self._streak = 0

    def rest_after(self, started_at: float, moved: int) -> float:
        """Seconds to rest, nearly always 0, after a wake-up; then set `ended_at`.

        Args:
            started_at: when the wake-up came.
            moved: datagrams received and sent so far, ever.
        """
        is_small = moved - self._moved < SMALL_BATCH
        self._moved = moved
        self._streak = self._streak + 1 if is_small and started_at - self.ended_at < GAP_S else 0
        return REST_S if self._streak >= PATIENCE else 0.0
