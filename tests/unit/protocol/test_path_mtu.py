"""The path MTU machine against imaginary paths, on imaginary time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque_client.protocol.path_mtu import (
    BASE,
    CONFIRM_INTERVAL_S,
    FIRST_RAISE_S,
    GRAIN,
    MIN_WAIT_S,
    RAISE_S,
    RTTS_TO_WAIT,
    TRIES,
    PathMtu,
)

RTT_S = 0.02


class Path:
    """Drives a machine as its owner would, over a path that answers by a rule."""

    def __init__(self, size: int, ceiling: int, arrives: Callable[[int, int], bool]) -> None:
        self.now = 100.0
        self.machine = PathMtu(size, ceiling, self.now)
        self.arrives = arrives
        self.probes: list[int] = []

    def run(self, for_s: float) -> None:
        deadline = self.now + for_s
        while True:
            while (size := self.machine.probe_due(self.now)) is not None:
                self.probes.append(size)
                self.machine.probe_sent(self.now, RTT_S)
                if self.arrives(size, len(self.probes)):
                    self.now += RTT_S
                    self.machine.acknowledged(size, self.now)
            timeout = self.machine.next_timeout()
            if timeout is None or timeout > deadline:
                self.now = max(self.now, deadline)
                return
            self.now = max(self.now, timeout)
            self.machine.handle_timeout(self.now)


def carrying(mtu: int) -> Callable[[int, int], bool]:
    return lambda size, _: size <= mtu


class TestDown:
    def test_ordinary_loss_costs_one_probe_a_second(self) -> None:
        path = Path(1472, 1472, carrying(1472))
        for _ in range(50):
            path.machine.suspect(path.now)
            path.run(CONFIRM_INTERVAL_S / 10)
        assert 4 <= len(path.probes) <= 6
        assert set(path.probes) == {1472}
        assert path.machine.size == 1472
        assert path.machine.black_holes == 0

    def test_a_black_hole(self) -> None:
        path = Path(1472, 1472, carrying(1372))
        path.machine.suspect(path.now)
        path.run(5)
        assert path.machine.size == 1372
        assert path.machine.black_holes == 1
        assert path.probes[: TRIES + 1] == [1472] * TRIES + [BASE]

    def test_it_takes_about_a_second(self) -> None:
        path = Path(1472, 1472, carrying(1372))
        path.machine.suspect(path.now)
        started = path.now
        while path.machine.is_searching:
            path.run(0.01)
        assert path.now - started < 3

    def test_a_dead_path_is_not_a_narrow_one(self) -> None:
        path = Path(1472, 1472, lambda size, count: False)
        path.machine.suspect(path.now)
        path.run(5)
        assert path.machine.size == 1472
        assert set(path.probes) == {1472, BASE}

    def test_a_lost_probe_is_repeated(self) -> None:
        path = Path(1472, 1472, lambda size, count: count == TRIES)
        path.machine.suspect(path.now)
        path.run(5)
        assert path.probes == [1472] * TRIES
        assert path.machine.size == 1472

    def test_an_acknowledgement_may_be_late(self) -> None:
        machine = PathMtu(1472, 1472, 0.0)
        machine.suspect(0.0)
        for _ in range(TRIES):
            now = machine.next_timeout() or 0.0
            assert machine.probe_due(now) == 1472
            machine.probe_sent(now, RTT_S)
        machine.handle_timeout(machine.next_timeout() or 0.0)
        assert machine.probe_due(10.0) == BASE
        machine.acknowledged(1472, 10.0)
        assert machine.size == 1472
        assert not machine.is_searching

    def test_slow_paths_are_waited_for(self) -> None:
        machine = PathMtu(1472, 1472, 0.0)
        machine.suspect(0.0)
        machine.probe_sent(0.0, 0.6)
        assert machine.next_timeout() == pytest.approx(RTTS_TO_WAIT * 0.6)
        assert machine.probe_due(1.7) is None
        machine.probe_sent(0.0, None)
        assert machine.next_timeout() == pytest.approx(MIN_WAIT_S)


class TestIcmp:
    def test_at_once(self) -> None:
        path = Path(1472, 1472, carrying(1372))
        path.machine.lower(1372, path.now)
        assert path.machine.size == 1372
        path.run(5)
        assert path.probes == []

    def test_never_up_and_never_below_what_quic_needs(self) -> None:
        machine = PathMtu(1350, 1472, 0.0)
        machine.lower(1472, 0.0)
        assert machine.size == 1350
        machine.lower(500, 0.0)
        assert machine.size == BASE

    def test_it_ends_a_search(self) -> None:
        machine = PathMtu(1472, 1472, 0.0)
        machine.suspect(0.0)
        machine.lower(1400, 0.0)
        machine.acknowledged(1472, 0.1)
        assert (machine.size, machine.is_searching) == (1400, False)


class TestUp:
    def test_after_the_start(self) -> None:
        path = Path(1350, 1472, carrying(1372))
        path.run(FIRST_RAISE_S + 5)
        assert path.machine.size == 1372
        assert path.probes[:TRIES] == [1472] * TRIES
        assert path.machine.black_holes == 0

    def test_nothing_to_gain_nothing_sent(self) -> None:
        path = Path(1472, 1472, carrying(1472))
        path.run(10 * RAISE_S)
        assert path.probes == []
        assert path.machine.next_timeout() is None

    def test_again_every_ten_minutes(self) -> None:
        mtu = 1372
        path = Path(1472, 1472, lambda size, _: size <= mtu)
        path.machine.lower(mtu, path.now)
        path.run(RAISE_S + 5)
        assert path.machine.size == 1372
        mtu = 1472
        path.run(RAISE_S + 5)
        assert path.machine.size == 1472
        assert path.probes[-1] == 1472

    def test_a_new_ceiling(self) -> None:
        path = Path(1350, 1350, carrying(1472))
        path.machine.set_ceiling(1452)
        path.run(FIRST_RAISE_S + 1)
        assert path.machine.size == 1452
        path.machine.set_ceiling(1000)
        path.run(10 * RAISE_S)
        assert path.machine.size == 1452, "a ceiling does not press"


def test_giving_up_leaves_everything_as_it_is() -> None:
    machine = PathMtu(1472, 1472, 0.0)
    machine.suspect(0.0)
    machine.give_up(0.0)
    assert (machine.size, machine.is_searching, machine.probe_due(5.0)) == (1472, False, None)
    machine.suspect(CONFIRM_INTERVAL_S)
    assert machine.is_searching


@given(st.integers(BASE, 1472), st.integers(BASE, 1472), st.integers(BASE, 1600))
def test_it_finds_every_mtu(size: int, ceiling: int, mtu: int) -> None:
    path = Path(size, ceiling, carrying(mtu))
    path.machine.suspect(path.now)
    path.run(RAISE_S + 10)
    best = min(mtu, max(size, ceiling))
    assert best - GRAIN < path.machine.size <= best
    assert all(probe <= max(size, ceiling) for probe in path.probes)
    assert len(path.probes) <= 60


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("suspect"), st.none()),
            st.tuples(st.just("lower"), st.integers(0, 70000)),
            st.tuples(st.just("ceiling"), st.integers(0, 70000)),
            st.tuples(st.just("acknowledged"), st.integers(0, 70000)),
            st.tuples(st.just("run"), st.floats(0, 700)),
            st.tuples(st.just("give_up"), st.none()),
        ),
        max_size=30,
    ),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_whatever_happens_it_stays_sane(inputs: list[tuple[str, float]], chance: object) -> None:
    path = Path(1350, 1472, lambda size, _: chance.random() < 0.5)  # type: ignore[attr-defined]
    machine, largest = path.machine, 1472
    for name, value in inputs:
        if name == "run":
            path.run(value)
        elif name == "suspect":
            machine.suspect(path.now)
        elif name == "give_up":
            machine.give_up(path.now)
        elif name == "ceiling":
            largest = max(largest, int(value))
            machine.set_ceiling(int(value))
        elif name == "lower":
            machine.lower(int(value), path.now)
        elif (sent := int(value)) in path.probes:
            machine.acknowledged(sent, path.now)
        assert BASE <= machine.size <= largest
        timeout = machine.next_timeout()
        assert timeout is None or not machine.is_searching or timeout <= path.now + 1
