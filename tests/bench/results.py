"""All that one invocation found, and the JSON document that table, chart and README are made from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.bench.bars import all_bars
from tests.bench.measure import Run
from tests.bench.rows import BARE, Group, Row
from tests.bench.summary import Measurement, compare, summarize

SCHEMA_VERSION = 1
PEERS = {
    Group.PAIR: ("pair/connect-ip-go", "pair/wireguard-go"),
    Group.GO_PROXY: ("pair/connect-ip-go",),
    Group.UDP_GO_PROXY: ("udp-go/masque-go",),
    Group.UDP_OUR_PROXY: ("udp-ours/masque-go",),
}
"""Whom the rows of a group are compared with."""
_COMPARED = ("tcp1", "tcp4", "udp", "client_cpu", "connect", "client_peak")


@dataclass(slots=True)
class Results:
    """Grows run by run; `document` is what it all says."""

    rows: Sequence[Row]
    absent: dict[str, str] = field(default_factory=dict)
    """Key of a row → why it is not measured."""
    numbers: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict)
    failures: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of_documents(cls, rows: Sequence[Row], documents: Iterable[dict[str, Any]]) -> Results:
        """What invocations found before: a group that a later one measured replaces the earlier one's.

        Whole groups, because only rows of the same rounds may be compared. The bare path stays the first one's.
        """
        results = cls(rows)
        for document in documents:
            is_first = not results.numbers
            measured = {row["group"] for row in document["rows"] if row["runs"]}
            for row in document["rows"]:
                if row["group"] not in measured or (row["key"] == BARE and not is_first):
                    continue
                runs: list[dict[str, float]] = row["runs"]
                results.numbers[row["key"]] = {
                    int(run["round"]): {name: value for name, value in run.items() if name != "round"} for run in runs
                }
                results.failures[row["key"]] = list(row["failures"])
                if row["absent"]:
                    results.absent[row["key"]] = row["absent"]
        return results

    def add(self, row: Row, round_number: int, run: Run) -> None:
        """One row of one round."""
        self.numbers.setdefault(row.key, {})[round_number] = run.numbers
        self.failures.setdefault(row.key, []).extend(f"round {round_number}: {text}" for text in run.failures)

    def guess(self, row: Row) -> dict[str, float]:
        """The medians so far: where the next round may start searching."""
        summary = summarize(list(self.numbers.get(row.key, {}).values()))
        return {key: spread.median for key, spread in summary.items()}

    def document(self, **about: Any) -> dict[str, Any]:
        """The whole, for JSON; `about` says when, where and how it was measured."""
        self._add_rtt_beyond_bare()
        return {
            "schema_version": SCHEMA_VERSION,
            **about,
            "rows": [self._row(row) for row in self.rows],
            "ratios": list(self._ratios()),
            "bars": [bar.judge(self.numbers) for bar in all_bars()],
        }

    def _row(self, row: Row) -> dict[str, Any]:
        runs = self.numbers.get(row.key, {})
        return {
            "key": row.key,
            "group": str(row.group),
            "label": row.label,
            "absent": self.absent.get(row.key),
            "failures": self.failures.get(row.key, []),
            "summary": {key: spread.to_dict() for key, spread in summarize(list(runs.values())).items()},
            "runs": [{"round": number, **numbers} for number, numbers in sorted(runs.items())],
        }

    def _add_rtt_beyond_bare(self) -> None:
        for key, runs in self.numbers.items():
            for number, numbers in runs.items():
                bare: Measurement = self.numbers.get(BARE, {}).get(number, {})
                if key != BARE:
                    numbers |= {
                        f"added_{name}": numbers[name] - bare[name]
                        for name in list(numbers)
                        if name.startswith("rtt_") and name in bare
                    }

    def _ratios(self) -> Iterable[dict[str, Any]]:
        for row in self.rows:
            mine = self.numbers.get(row.key, {})
            metrics = dict.fromkeys(name for run in mine.values() for name in run if name.startswith(_COMPARED))
            for peer in PEERS.get(row.group, ()):
                for metric in metrics if peer != row.key else ():
                    if spread := compare(mine, self.numbers.get(peer, {}), metric):
                        yield {"row": row.key, "peer": peer, "metric": metric, **spread.to_dict()}
