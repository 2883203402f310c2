"""The clocks: one that runs, one that is moved."""

import time

import pytest

from masque_client.netio.clock import Clock, MonotonicClock, VirtualClock


def test_the_machines_clock_is_the_event_loops() -> None:
    clock: Clock = MonotonicClock()
    before = time.monotonic()
    assert before <= clock.now() <= time.monotonic()


def test_a_virtual_clock_moves_only_when_told() -> None:
    clock = VirtualClock(start=10.0)
    assert clock.now() == clock.now() == 10.0
    assert clock.advance(0.25) == 10.25
    assert clock.now() == 10.25


def test_a_virtual_clock_never_goes_back() -> None:
    clock = VirtualClock()
    with pytest.raises(ValueError, match="monotonic"):
        clock.advance(-1.0)
