"""Whether the peer still hears us: when to send a PING, and when to stop believing (digest §3.3, Q-16).

    idle ──something sent──▶ waiting ──silence for `QUIET_S`──▶ probing ──silence for `PATIENCE_S` more──▶ dead
      ▲                         │                                  │
      └────anything received────┴──────────────────────────────────┘

QUIC's own idle timeout takes three times as long, and TCP's retransmissions minutes. The other side of a short patience
is a false alarm, so it is only lost by a peer that leaves many PINGs in a row unanswered: with 30 % loss in each
direction every second PING is, and still one silence in thousands lasts long enough.

Sans-IO. `sent` and `received` at every batch; `handle_timeout` when `next_timeout` has passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

KEEP_ALIVE_S = 10.0
"""A PING goes out when nothing was received for this long: a third of our idle timeout (digest Q-16)."""
QUIET_S = 3.0
"""Unanswered for this long, we ask."""
PROBE_INTERVAL_S = 0.5
PATIENCE_S = 5.0
"""Of asking, before the peer counts as gone; longer where the round trip is (`PATIENCE_RTTS`)."""
PATIENCE_RTTS = 6
TCP_PATIENCE_S = 15.0
"""Over TCP: a PING that is lost is sent again by the kernel, after ever longer pauses, and the next waits behind it."""


class Verdict(Enum):
    """What to do now."""

    NOTHING = "nothing"
    PING = "ping"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class LivenessStatistics:
    """For status displays. `silent_s`: seconds since the peer was last heard. `pings`: sent since the beginning."""

    silent_s: float
    pings: int


class Liveness:
    """One connection's. `now` is the caller's monotonic clock, in seconds.

    Args:
        patience_s: how long to ask before giving up.
    """

    def __init__(self, now: float, *, patience_s: float = PATIENCE_S) -> None:
        self.last_received_at = now
        self.is_waiting = False
        self.pings = 0
        self._patience_s = patience_s
        self._waiting_since = now
        self._probing_since: float | None = None
        self._last_ping_at = now
        self._unanswered = 0

    def received(self, now: float) -> None:
        """Something came from the peer. The hot path."""
        self.last_received_at = now
        self.is_waiting = False
        self._probing_since = None

    def sent(self, now: float) -> None:
        """Something went to the peer; only needed while `is_waiting` is False. `next_timeout` may be sooner now.

        Whoever never calls this only keeps the connection alive.
        """
        if not self.is_waiting:
            self.is_waiting = True
            self._waiting_since = now

    def next_timeout(self) -> float:
        """When to call `handle_timeout`."""
        if self._probing_since is not None:
            return self._last_ping_at + PROBE_INTERVAL_S
        keep_alive = max(self.last_received_at, self._last_ping_at) + KEEP_ALIVE_S
        return min(keep_alive, self._waiting_since + QUIET_S) if self.is_waiting else keep_alive

    def handle_timeout(self, now: float, *, rtt_s: float | None, is_owed: bool) -> Verdict:
        """Say what to do; calling early is harmless.

        Args:
            rtt_s: the round-trip time, if known.
            is_owed: whether the peer must answer what was sent. Acknowledgements alone it need not.
        """
        if now < self.next_timeout():
            return Verdict.NOTHING
        if self._probing_since is not None:
            return self._probe(now, rtt_s)
        if self.is_waiting and now >= self._waiting_since + QUIET_S:
            if not is_owed:
                self.is_waiting = False
                return Verdict.NOTHING
            self._probing_since, self._unanswered = now, 0
        return self._ping(now)

    def statistics(self, now: float) -> LivenessStatistics:
        """The numbers now."""
        return LivenessStatistics(now - self.last_received_at, self.pings)

    def _probe(self, now: float, rtt_s: float | None) -> Verdict:
        assert self._probing_since is not None
        patience_s = max(self._patience_s, PATIENCE_RTTS * (rtt_s or 0.0))
        # Counted, too: a process that was stopped must not take its own sleep for the peer's silence.
        if now >= self._probing_since + patience_s and self._unanswered >= patience_s / PROBE_INTERVAL_S - 1:
            return Verdict.DEAD
        return self._ping(now)

    def _ping(self, now: float) -> Verdict:
        self._last_ping_at = now
        self._unanswered += 1
        self.pings += 1
        return Verdict.PING
