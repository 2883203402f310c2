"""The bars that the figures must reach, and the ratios that say whether they do. Pure."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.bench.summary import Measurement, Spread, compare

Rounds = Mapping[str, Mapping[int, Measurement]]
"""Key of a row → number of a round → what was measured."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One requirement: how `row` relates to `peer` in `metric`, the median over the rounds.

    Attributes:
        required: `at_least` it, or else at most.
        is_difference: row − peer; else row / peer.
        stretch: what would be better still.
    """

    name: str
    row: str
    peer: str
    metric: str
    required: float
    at_least: bool = True
    is_difference: bool = False
    stretch: float | None = None

    def measure(self, rounds: Rounds) -> Spread | None:
        """The relation, None when a row is missing."""
        relation: Callable[[float, float], float] = operator.sub if self.is_difference else operator.truediv
        return compare(rounds.get(self.row, {}), rounds.get(self.peer, {}), self.metric, relation)

    def judge(self, rounds: Rounds) -> dict[str, Any]:
        """For JSON; `ok` is None when nothing was measured."""
        spread = self.measure(rounds)
        relation = operator.ge if self.at_least else operator.le
        return {
            "name": self.name,
            "row": self.row,
            "peer": self.peer,
            "metric": self.metric,
            "required": f"{'≥' if self.at_least else '≤'} {self.required:g}{' ms' if self.is_difference else ' ×'}",
            "stretch": self.stretch,
            "measured": spread.to_dict() if spread else None,
            "ok": relation(spread.median, self.required) if spread else None,
        }


def _both_directions(name: str, row: str, peer: str, required: float, stretch: float | None = None) -> list[Bar]:
    return [
        Bar(f"{name}, TCP {way}", row, peer, f"tcp1_{way}_gbit_s", required, stretch=stretch) for way in ("up", "down")
    ]


def all_bars() -> list[Bar]:
    """What the project has promised, best configuration of ours unless an engine is named."""
    client_cpu = [
        Bar(
            f"client CPU per GB against the same Go proxy, {way}",
            *("go/qh3", "pair/connect-ip-go", f"client_cpu_s_per_gb_{way}", 0.4),
            at_least=False,
        )
        for way in ("up", "down")
    ]
    rtt = [
        Bar(
            f"added rtt p99, idle, {where}",
            *(row, "bare", "rtt_idle_p99_ms", 0.5),
            at_least=False,
            is_difference=True,
        )
        for where, row in (("against the Go proxy", "go/qh3"), ("both ends ours", "pair/qh3"))
    ]
    forwarder = [
        Bar(
            f"CONNECT-UDP forwarder over masque-go's client, {proxy}, {size} bytes",
            *(f"{group}/qh3", f"{group}/masque-go", f"udp{size}_pps", 1.5),
        )
        for group, proxy in (("udp-go", "masque-go's proxy"), ("udp-ours", "our proxy"))
        for size in (64, 1200)
    ]
    return [
        *_both_directions("qh3 pair over the connect-ip-go pair", "pair/qh3", "pair/connect-ip-go", 5.0),
        *_both_directions("qh3 pair over the wireguard-go pair", "pair/qh3", "pair/wireguard-go", 0.7, stretch=1.0),
        *_both_directions("aioquic pair over the connect-ip-go pair", "pair/aioquic", "pair/connect-ip-go", 1.0),
        *_both_directions("client against the same Go proxy", "go/qh3", "pair/connect-ip-go", 1.0),
        *client_cpu,
        *rtt,
        *forwarder,
    ]
