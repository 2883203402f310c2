"""How fast packets leave: a token bucket (RFC 9002 §7.7), sized for timers that are late.

The loop that owns us sleeps in whole milliseconds, so a bucket of a few packets would cap throughput at a few packets
per millisecond. The bucket therefore holds what the rate brings in `BURST_S`, and at least `BURST_PACKETS` packets, the
initial window that RFC 9002 §7.7 allows at once.
"""

from __future__ import annotations

import math

BURST_S = 0.002
BURST_PACKETS = 10
RATE_FACTOR = 1.25
"""Above one window per round trip, so that the window and not the pacer decides (RFC 9002 §7.7 names this value)."""


class Pacer:
    """Bytes that may leave now. Unlimited before the first round-trip sample."""

    def __init__(self, packet_size: int) -> None:
        self._packet_size = packet_size
        self._rate: float | None = None
        self._burst = 0.0
        self._tokens = 0.0
        self._filled_at = 0.0

    def update(self, congestion_window: int, rtt_s: float | None, now: float) -> None:
        """Take the controller's current numbers and refill."""
        if not rtt_s:
            return
        rate = RATE_FACTOR * congestion_window / rtt_s
        burst = max(rate * BURST_S, BURST_PACKETS * self._packet_size)
        if self._rate is None:
            self._tokens = burst
        elif now > self._filled_at:
            self._tokens += (now - self._filled_at) * rate
        self._tokens = min(self._tokens, burst)
        self._rate, self._burst, self._filled_at = rate, burst, now

    @property
    def tokens(self) -> float:
        """Bytes that may leave now: while any are left a packet may leave, and overdraw."""
        return math.inf if self._rate is None else self._tokens

    def spend(self, sent_bytes: int) -> None:
        """Account for bytes that left."""
        self._tokens -= sent_bytes

    def next_send_time(self) -> float | None:
        """When half a burst may leave again (a timer per batch, not per packet), or None when a packet may now."""
        if self._rate is None or self._tokens > 0:
            return None
        return self._filled_at + (self._burst / 2 - self._tokens) / self._rate
