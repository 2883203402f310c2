"""When to ask a silent peer, when to give it up, and that neither happens without need."""

from __future__ import annotations

import pytest

from masque_client.http.liveness import (
    KEEP_ALIVE_S,
    PATIENCE_RTTS,
    PATIENCE_S,
    PROBE_INTERVAL_S,
    QUIET_S,
    Liveness,
    Verdict,
)

START = 1000.0


class Watch:
    """A `Liveness` whose timeouts are handled on time."""

    def __init__(self, *, watches: bool = True, rtt_s: float | None = 0.05) -> None:
        self.liveness = Liveness(START)
        self._watches = watches
        self.now = START
        self.rtt_s = rtt_s
        self.is_owed = True
        self.said: list[tuple[float, Verdict]] = []

    def run(self, for_s: float) -> list[tuple[float, Verdict]]:
        """Let time pass; PINGs are sent. Returns what was said, and how many seconds after the start."""
        until, before = self.now + for_s, len(self.said)
        while (timeout := self.liveness.next_timeout()) <= until and (not self.said or not self.is_dead):
            self.now = max(self.now, timeout)
            verdict = self.liveness.handle_timeout(self.now, rtt_s=self.rtt_s, is_owed=self.is_owed)
            if verdict is not Verdict.NOTHING:
                self.said.append((round(self.now - START, 3), verdict))
                if self._watches:
                    self.liveness.sent(self.now)
        self.now = max(self.now, until)
        return self.said[before:]

    @property
    def is_dead(self) -> bool:
        return self.said[-1][1] is Verdict.DEAD


def test_idle_costs_the_keep_alive_alone() -> None:
    watch = Watch()
    for number in range(1, 100):
        assert watch.run(KEEP_ALIVE_S) == [(number * KEEP_ALIVE_S, Verdict.PING)]
        watch.liveness.received(watch.now)
    assert watch.liveness.statistics(watch.now).pings == 99


def test_silence_after_a_send_is_asked_about_and_then_believed() -> None:
    watch = Watch()
    watch.run(1.0)
    watch.liveness.sent(watch.now)
    said = watch.run(60)
    assert said[0] == (1 + QUIET_S, Verdict.PING)
    assert said[1] == (1 + QUIET_S + PROBE_INTERVAL_S, Verdict.PING)
    assert said[-1] == (1 + QUIET_S + PATIENCE_S, Verdict.DEAD)
    assert [verdict for _, verdict in said].count(Verdict.DEAD) == 1
    assert watch.liveness.statistics(watch.now).silent_s == pytest.approx(61)


def test_a_path_that_dies_under_an_idle_connection_is_found_by_the_keep_alive() -> None:
    assert Watch().run(60)[-1] == (KEEP_ALIVE_S + QUIET_S + PATIENCE_S, Verdict.DEAD)


def test_any_sign_of_life_ends_the_asking() -> None:
    watch = Watch()
    watch.liveness.sent(watch.now)
    assert len(watch.run(QUIET_S + PATIENCE_S - 0.1)) == 10
    watch.liveness.received(watch.now)
    assert watch.run(KEEP_ALIVE_S - 0.1) == []


def test_acknowledgements_need_no_answer() -> None:
    watch = Watch()
    watch.is_owed = False
    watch.liveness.sent(watch.now)
    assert watch.run(KEEP_ALIVE_S) == [(KEEP_ALIVE_S, Verdict.PING)]


def test_more_sends_do_not_put_it_off() -> None:
    watch = Watch()
    for _ in range(79):
        watch.liveness.sent(watch.now)
        watch.run(0.1)
    assert not watch.is_dead
    watch.run(0.2)
    assert watch.is_dead


def test_a_long_round_trip_gets_more_patience() -> None:
    watch = Watch(rtt_s=2.0)
    watch.liveness.sent(watch.now)
    assert watch.run(60)[-1] == (QUIET_S + 2.0 * PATIENCE_RTTS, Verdict.DEAD)


def test_a_process_that_was_stopped_does_not_blame_the_peer() -> None:
    watch = Watch()
    watch.liveness.sent(watch.now)
    watch.run(QUIET_S + 1)
    watch.now += 3600
    assert watch.run(PATIENCE_S / 2)[-1][1] is Verdict.PING
    watch.liveness.received(watch.now)
    assert watch.run(1) == []


def test_a_side_that_only_keeps_alive_never_gives_up() -> None:
    watch = Watch(watches=False)
    assert [verdict for _, verdict in watch.run(100)] == [Verdict.PING] * 10


def test_early_calls_are_harmless() -> None:
    liveness = Liveness(START)
    liveness.sent(START)
    for step in range(29):
        assert liveness.handle_timeout(START + step * 0.1, rtt_s=None, is_owed=True) is Verdict.NOTHING
