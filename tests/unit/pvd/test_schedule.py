"""When to fetch: spread over the second half of a lifetime, patient after failures, sparing on a network."""

from __future__ import annotations

import pytest

from masque_client.errors import ConnectError, MasqueError, PvdError, PvdUnavailable, TimedOut, TlsError
from masque_client.pvd.schedule import FetchBudget, RefreshSchedule, refresh_after_s, sequence_delay_s


def schedule(draw: float = 0.5) -> RefreshSchedule:
    return RefreshSchedule(lambda: draw)


@pytest.mark.parametrize(("draw", "seconds"), [(0.0, 500.0), (0.5, 750.0), (1.0, 1000.0)])
def test_refreshing_is_spread_over_the_second_half(draw: float, seconds: float) -> None:
    assert refresh_after_s(1000, draw) == seconds
    plan = schedule(draw)
    plan.accepted(10.0, remaining_s=1000)
    assert (plan.fetch_at, plan.expires_at) == (10 + seconds, 1010)


def test_the_lifetime_counts_from_reception_not_from_loading() -> None:
    plan = schedule(0.0)
    plan.accepted(0.0, remaining_s=600, age_s=400)
    assert (plan.fetch_at, plan.expires_at) == (100, 600)
    plan.accepted(0.0, remaining_s=400, age_s=600)
    assert (plan.fetch_at, plan.expires_at) == (0, 400)


@pytest.mark.parametrize(("fresh_for_s", "fetch_at"), [(None, 75_000), (1e6, 75_000), (3600, 3600), (0, 600)])
def test_max_age_brings_a_refresh_forward_and_prolongs_nothing(fresh_for_s: float | None, fetch_at: float) -> None:
    plan = schedule()
    plan.accepted(0.0, remaining_s=100_000, fresh_for_s=fresh_for_s)
    assert (plan.fetch_at, plan.expires_at) == (fetch_at, 100_000)


def test_transient_failures_back_off() -> None:
    plan = schedule()
    waits = []
    for _ in range(9):
        plan.failed(0.0, ConnectError("down"))
        waits.append(plan.fetch_at)
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    plan.accepted(0.0, remaining_s=10)
    plan.failed(0.0, TimedOut("slow"))
    assert plan.fetch_at == 60


@pytest.mark.parametrize(("draw", "wait"), [(0.0, 48), (1.0, 72)])
def test_backing_off_is_spread(draw: float, wait: float) -> None:
    plan = schedule(draw)
    plan.failed(0.0, ConnectError("down"))
    assert plan.fetch_at == pytest.approx(wait)


@pytest.mark.parametrize(("asked_s", "wait"), [(None, 60), (5.0, 60), (600.0, 600)])
def test_retry_after_counts_upward_only(asked_s: float | None, wait: float) -> None:
    plan = schedule()
    plan.failed(0.0, PvdUnavailable("later", status=503, retry_after_s=asked_s))
    assert plan.fetch_at == wait


@pytest.mark.parametrize("error", [PvdError("404"), TlsError("wrong name")])
def test_final_failures_end_the_attempts_until_something_changes(error: MasqueError) -> None:
    plan = schedule()
    plan.accepted(0.0, remaining_s=1000)
    plan.failed(750.0, error)
    assert (plan.fetch_at, plan.expires_at) == (None, 1000)
    plan.expire(1000.0)
    assert (plan.fetch_at, plan.expires_at) == (1030, None)  # one more attempt, spread
    plan.failed(1030.0, error)
    assert plan.next_timeout(is_fetching=False) is None
    plan.need(2000.0)
    assert plan.next_timeout(is_fetching=False) == 2000


@pytest.mark.parametrize(("delay", "longest_s"), [(0, 1.024), (1, 2.048), (5, 32.768), (10, 1048.576), (15, 33554.432)])
def test_the_delay_of_an_advertisement_is_a_range(delay: int, longest_s: float) -> None:
    assert sequence_delay_s(delay, 1.0) == longest_s
    assert sequence_delay_s(delay, 0.25) == longest_s / 4


def test_one_domain_is_asked_every_ten_seconds_at_most() -> None:
    budget = FetchBudget()
    assert budget.earliest("a.example", 100.0) == 100
    budget.requested("a.example", 100.0)
    assert budget.earliest("a.example", 103.0) == 110
    assert budget.earliest("b.example", 103.0) == 103


def test_a_network_bears_five_requests_in_ten_seconds() -> None:
    budget = FetchBudget()
    for second in range(5):
        assert budget.earliest(f"{second}.example", float(second)) == second
        budget.requested(f"{second}.example", float(second))
    assert budget.earliest("another.example", 5.0) == 10
    budget.requested("another.example", 10.0)
    assert budget.earliest("yet-another.example", 10.0) == 11


def test_after_ten_failures_a_network_is_left_alone() -> None:
    budget = FetchBudget()
    for number in range(10):
        assert budget.earliest("good.example", 1000.0) == 1000
        budget.failed(f"{number % 3}.example")
    assert budget.earliest("good.example", 1e9) is None
    budget.network_changed()
    assert budget.earliest("good.example", 1e9) == 1e9


def test_a_success_forgives_the_failures_of_that_domain_alone() -> None:
    budget = FetchBudget()
    for _ in range(9):
        budget.failed("bad.example")
    budget.failed("good.example")
    assert budget.earliest("good.example", 0.0) is None
    budget.succeeded("good.example")
    assert budget.earliest("good.example", 0.0) == 0
    budget.failed("bad.example")
    assert budget.earliest("good.example", 0.0) is None
