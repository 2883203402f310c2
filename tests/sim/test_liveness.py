"""Liveness over rough links, with real engines on a virtual clock: no false alarm, and a quick true one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from masque_client.engine.interface import Address, ConnectionClosed, Engine, ReceivedBuffer
from masque_client.http.liveness import KEEP_ALIVE_S, PATIENCE_S, QUIET_S, Liveness, Verdict
from tests.sim.link import Conditions, Pair
from tests.unit.engine.conftest import MakePair, open_tunnel, settle


class Watched:
    """The client's engine, with the calls to `Liveness` that `HttpConnection` makes."""

    def __init__(self, engine: Engine, now: float) -> None:
        self.engine = engine
        self.liveness = Liveness(now)
        self.died_at: float | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def receive_datagrams(self, batch: Sequence[ReceivedBuffer], now: float) -> None:
        self.liveness.received(now)
        self.engine.receive_datagrams(batch, now)

    def datagrams_to_send(self, now: float) -> Iterable[tuple[bytes, Address]]:
        output = self.engine.datagrams_to_send(now)
        if output:
            self.liveness.sent(now)
        return output

    def next_timeout(self) -> float | None:
        own = None if self.died_at is not None else self.liveness.next_timeout()
        return min((timeout for timeout in (self.engine.next_timeout(), own) if timeout is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        deadline = self.engine.next_timeout()
        if deadline is not None and deadline <= now:
            self.engine.handle_timeout(now)
        if self.died_at is not None:
            return
        statistics = self.engine.statistics()
        is_owed = statistics.bytes_in_flight > 0
        match self.liveness.handle_timeout(now, rtt_s=statistics.rtt_s, is_owed=is_owed):
            case Verdict.PING:
                self.engine.ping()
            case Verdict.DEAD:
                self.died_at = now


def watch(pair: Pair) -> Watched:
    watched = Watched(pair.client.engine, pair.now)
    pair.client.engine = watched  # type: ignore[assignment]
    return watched


@pytest.fixture
def pair(make_pair: MakePair) -> Pair:
    pair = settle(make_pair(conditions=Conditions(delay_s=0.3), seed=11))
    pair.keeps_packets = False
    return pair


ROUGH = {"loss": 0.3, "jitter_s": 0.05}


def worsen(pair: Pair, loss: float, jitter_s: float = 0.0) -> None:
    pair.conditions.loss, pair.conditions.jitter_s = loss, jitter_s


def test_no_false_alarm_while_idle_at_thirty_percent_loss(pair: Pair) -> None:
    """Half an hour of keep-alives, 600 ms there and back, half of which are lost one way or the other."""
    watched = watch(pair)
    worsen(pair, **ROUGH)
    pair.run(for_s=1800)
    assert watched.died_at is None and not pair.client.of_type(ConnectionClosed)
    assert watched.liveness.pings < 2 * 1800 / KEEP_ALIVE_S


@pytest.mark.parametrize("interval_s", [0.2, 5.0])
def test_no_false_alarm_while_sending_at_thirty_percent_loss(pair: Pair, interval_s: float) -> None:
    stream_id = open_tunnel(pair)
    watched = watch(pair)
    worsen(pair, **ROUGH)
    started = pair.now
    while pair.now < started + 300:
        pair.client.engine.send_datagrams(stream_id, [bytes(100)], pair.now)
        pair.run(for_s=interval_s)
    assert watched.died_at is None and not pair.client.of_type(ConnectionClosed)


def test_a_clean_idle_link_costs_the_keep_alive_alone(pair: Pair) -> None:
    watched = watch(pair)
    pair.run(for_s=600)
    assert watched.liveness.pings <= 600 / KEEP_ALIVE_S


@pytest.mark.parametrize("interval_s", [0.02, 0.2])
def test_a_path_that_dies_under_traffic_is_found_in_eight_seconds(pair: Pair, interval_s: float) -> None:
    stream_id = open_tunnel(pair)
    watched = watch(pair)
    pair.run(for_s=5)
    worsen(pair, 1.0)
    broke_at = pair.now
    while watched.died_at is None and pair.now < broke_at + 20:
        pair.client.engine.send_datagrams(stream_id, [bytes(1000)], pair.now)
        pair.run(for_s=interval_s)
    assert watched.died_at is not None
    assert QUIET_S + PATIENCE_S <= watched.died_at - broke_at + 0.6 < 10


def test_an_outage_of_five_seconds_is_survived(pair: Pair) -> None:
    stream_id = open_tunnel(pair)
    watched = watch(pair)
    for _ in range(10):
        for loss, steps in ((1.0, 25), (0.0, 50)):
            worsen(pair, loss)
            for _ in range(steps):
                pair.client.engine.send_datagrams(stream_id, [bytes(1000)], pair.now)
                pair.run(for_s=0.2)
    assert watched.died_at is None
