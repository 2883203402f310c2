"""What many runs say: medians with their spread, and ratios to a peer of the same round. Pure.

A measurement is a flat dictionary of numbers; a key that a run could not measure is missing from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Measurement = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and the least and the greatest value it stands for."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """None without values."""
        numbers = sorted(values)
        return cls(median(numbers), numbers[0], numbers[-1]) if numbers else None

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return {"median": _short(self.median), "min": _short(self.low), "max": _short(self.high)}


def summarize(runs: Sequence[Measurement]) -> dict[str, Spread]:
    """Each key that at least one run measured, in the order of first appearance."""
    keys = dict.fromkeys(key for run in runs for key in run)
    return {key: spread for key in keys if (spread := Spread.of(run[key] for run in runs if key in run))}


def compare(
    mine: Mapping[int, Measurement],
    theirs: Mapping[int, Measurement],
    key: str,
    relation: Callable[[float, float], float] = lambda left, right: left / right,
) -> Spread | None:
    """Relate two rows round by round, by their ratio unless told otherwise; None when no round measured both.

    Within a round the machine was the same; between rounds it may have been faster or slower for everybody.

    Args:
        mine, theirs: measurements by the number of their round.
    """
    rounds = [
        (mine[number][key], theirs[number][key])
        for number in sorted(mine.keys() & theirs.keys())
        if key in mine[number] and theirs[number].get(key)
    ]
    return Spread.of(relation(left, right) for left, right in rounds)


def percentile(values: Sequence[float], fraction: float) -> float:
    """The smallest value that at least `fraction` of all are not above (nearest rank).

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("a percentile of nothing")
    ordered = sorted(values)
    rank = -(-len(ordered) * fraction // 1)
    return ordered[max(0, int(rank) - 1)]


def _short(value: float) -> float:
    """Four significant digits: more would pretend."""
    return float(f"{value:.4g}")
