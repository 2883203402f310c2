"""Drives the `Liveness` of one HTTP connection: one timer, PINGs, and the end of a connection that carries nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from masque_client.engine.interface import HttpEngine
from masque_client.http.liveness import PATIENCE_S, QUIET_S, TCP_PATIENCE_S, Liveness, LivenessStatistics, Verdict
from masque_client.netio.clock import Clock


class Watchdog:
    """Keeps a connection alive from its beginning to `close`, and watches the peer from `watch` on.

    Args:
        http_version: over 2 nobody can tell what TCP waits for; a PING too many costs nothing there.
        flush: sends what the engine has.
        on_dead: called once, with the seconds of silence, when the peer counts as gone. Calls `close`.
    """

    def __init__(
        self,
        engine: HttpEngine,
        clock: Clock,
        *,
        http_version: int,
        flush: Callable[[], None],
        on_dead: Callable[[float], None],
    ) -> None:
        self.liveness = Liveness(clock.now(), patience_s=TCP_PATIENCE_S if http_version == 2 else PATIENCE_S)
        self._engine = engine
        self._clock = clock
        self._is_over_tcp = http_version == 2
        self._flush = flush
        self._on_dead = on_dead
        self._is_watching = False
        self._loop = asyncio.get_running_loop()
        self._arm_timer()

    def watch(self) -> None:
        """From now on silence may end the connection. Not before the handshake, which has its own timeout."""
        self._is_watching = True

    def on_sent(self, now: float) -> None:
        """Something left. The hot path: only the first batch after one that arrived costs anything."""
        if self.liveness.is_waiting or not self._is_watching:
            return
        self.liveness.sent(now)
        if self._timer_at > now + QUIET_S:
            self._timer.cancel()
            self._arm_timer()

    def statistics(self) -> LivenessStatistics:
        """The numbers now."""
        return self.liveness.statistics(self._clock.now())

    def close(self) -> None:
        """Stop."""
        self._timer.cancel()

    def _on_timer(self) -> None:
        now, statistics = self._clock.now(), self._engine.statistics()
        is_owed = self._is_over_tcp or statistics.bytes_in_flight > 0
        verdict = self.liveness.handle_timeout(now, rtt_s=statistics.rtt_s, is_owed=is_owed)
        if verdict is Verdict.DEAD:
            self._on_dead(now - self.liveness.last_received_at)
            return
        if verdict is Verdict.PING:
            self._engine.ping()
            self._flush()
        self._arm_timer()

    def _arm_timer(self) -> None:
        self._timer_at = self.liveness.next_timeout()
        self._timer = self._loop.call_at(self._timer_at, self._on_timer)
