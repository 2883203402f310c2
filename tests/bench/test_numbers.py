"""Medians, ratios, percentiles, the search for a rate, and iperf3's JSON: what the figures rest on."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.bench.iperf import IperfFailed, TcpResult, client_command, parse_result
from tests.bench.rate_search import RateSearch, Trial
from tests.bench.summary import Spread, compare, percentile, summarize


def test_a_summary_has_what_any_run_measured() -> None:
    summary = summarize([{"a": 3.0}, {"a": 1.0, "b": 7.0}, {"a": 2.0}])
    assert summary == {"a": Spread(2.0, 1.0, 3.0), "b": Spread(7.0, 7.0, 7.0)}


def test_a_ratio_is_made_within_a_round() -> None:
    mine = {1: {"x": 10.0}, 2: {"x": 100.0}, 3: {"x": 30.0}}
    theirs = {1: {"x": 5.0}, 2: {"x": 50.0}, 4: {"x": 1.0}}
    # The ratio of the medians would be 30 / 5 = 6.
    assert compare(mine, theirs, "x") == Spread(2.0, 2.0, 2.0)


def test_nothing_to_compare() -> None:
    assert compare({1: {"x": 1.0}}, {2: {"x": 1.0}}, "x") is None
    assert compare({1: {"x": 1.0}}, {1: {"x": 0.0}}, "x") is None
    assert compare({1: {"x": 1.0}}, {1: {"y": 1.0}}, "x") is None


def test_json_does_not_pretend_precision() -> None:
    assert Spread(1.23456, 0.0, 98765.4).to_dict() == {"median": 1.235, "min": 0.0, "max": 98770.0}


@pytest.mark.parametrize(("fraction", "expected"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.0, 1.0)])
def test_percentiles_are_values_that_occurred(fraction: float, expected: float) -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], fraction) == expected


def test_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


def search(start: float, path: Callable[[float], Trial], **options: float) -> tuple[RateSearch, int]:
    """Run a search to its end over a path."""
    rates = RateSearch(start, **options)  # type: ignore[arg-type]
    trials = 0
    while (rate := rates.next_rate()) is not None:
        rates.record(path(rate))
        trials += 1
    return rates, trials


def carrying(capacity: float) -> Callable[[float], Trial]:
    """A path that delivers all up to its capacity, and no more than that above."""
    return lambda rate: Trial(rate, round(rate), round(min(rate, capacity)), 1.0)


@pytest.mark.parametrize("capacity", [1_500.0, 19_000.0, 21_000.0, 250_000.0])
def test_the_search_finds_the_capacity(capacity: float) -> None:
    found, trials = search(20_000.0, carrying(capacity), max_trials=12)
    assert found.best is not None
    assert capacity * 0.9 < found.best.rate <= capacity * 1.01
    assert trials <= 12


def test_a_good_guess_is_quick() -> None:
    _, trials = search(100_000.0, carrying(104_000.0), growth=1.15)
    assert trials <= 4


def test_a_path_that_carries_little_when_it_is_flooded() -> None:
    def collapsing(rate: float) -> Trial:
        return Trial(rate, round(rate), round(rate) if rate < 3000 else 100, 1.0)

    found, _ = search(20_000.0, collapsing)
    assert found.best is not None
    assert 2_500 < found.best.rate < 3_000


def test_a_dead_path_ends_the_search_without_an_answer() -> None:
    found, trials = search(20_000.0, lambda rate: Trial(rate, round(rate), 0, 1.0), max_trials=5)
    assert (found.best, trials) == (None, 5)


def test_a_sender_at_its_limit_ends_the_search() -> None:
    found, _ = search(20_000.0, lambda rate: Trial(rate, min(round(rate), 130_000), min(round(rate), 130_000), 1.0))
    assert found.is_sender_limited
    assert found.best is not None
    assert found.best.rate == 130_000


def test_a_trial_without_a_packet_is_all_loss() -> None:
    assert Trial(1000.0, 0, 0, 1.0).loss == 1.0


def test_iperf_result_is_the_receivers() -> None:
    sent = {"bytes": 9, "seconds": 1.0, "retransmits": 3}
    sums = {"sum_sent": sent, "sum_received": {"bytes": 250_000_000, "seconds": 2.0}}
    assert parse_result(json.dumps({"end": sums})) == TcpResult(250_000_000, 2.0, 3)
    assert TcpResult(250_000_000, 2.0, 3).gbit_s == 1.0


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ('{"start": {}, "error": "unable to connect to server"}', "unable to connect"),
        ("", "no result"),
        ('{"end": {}}', "no result"),
        ("[]", "no result"),
        ('{"end": {"sum_sent": {"retransmits": 0}, "sum_received": {"bytes": 0, "seconds": 2.0}}}', "nothing"),
    ],
)
def test_iperf_without_a_result(output: str, words: str) -> None:
    with pytest.raises(IperfFailed, match=words):
        parse_result(output)


def test_iperf_command() -> None:
    up, down = (client_command("10.0.0.1", way, streams=4, seconds=3) for way in ("up", "down"))
    assert set(down) - set(up) == {"--reverse"}
    assert up[up.index("--time") + 1] == "3"
    assert up[up.index("--parallel") + 1] == "4"
