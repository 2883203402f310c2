"""`python -m tests.bench`: measure all rows, round after round, and report. See `scripts/bench`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from masque_client.testing.netns import unavailable_reason
from masque_connect.demo.interrupts import Interrupts
from masque_connect.demo.world import World
from masque_connect.exit_codes import ExitCode
from masque_connect.interruption import Interrupted
from tests.bench import machine
from tests.bench.chart import draw
from tests.bench.measure import Effort, Run, measure
from tests.bench.report import markdown_report, replace_block, text_report
from tests.bench.results import Results
from tests.bench.rows import BARE, Row, all_rows
from tests.bench.stage import Stage

README = Path(__file__).parents[2] / "README.md"
DEFAULT_RUNS, QUICK_RUNS = 5, 1
QUICK = Effort(one_stream_s=1, pings=120, trial_s=0.3, max_trials=7)


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Our client and its peers in one set of network namespaces: throughput, lossless packet rates, "
        "round-trip times, CPU and memory. Needs root; peers are built by the Go tool chain at first use.",
    )
    parser.add_argument("--quick", action="store_true", help="one short run of everything, in less than 4 minutes")
    parser.add_argument("--runs", type=int, metavar="N", help=f"interleaved runs (default: {DEFAULT_RUNS})")
    parser.add_argument(
        "--rows", nargs="+", default=["*"], metavar="PATTERN", help="such as 'pair/*' go/qh3; the bare path always"
    )
    parser.add_argument("--list", action="store_true", help="the keys of all rows, and no measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole result there; - is stdout")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the chart of the main rows")
    parser.add_argument("--write-readme", action="store_true", help="replace the block between the README's marks")
    parser.add_argument(
        "--from",
        nargs="+",
        type=Path,
        dest="sources",
        metavar="FILE",
        help="measure nothing, report earlier --json files; a group of rows in a later file replaces an earlier one's",
    )
    parser.add_argument("--force", action="store_true", help="measure on a busy machine, too")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 when everything could be measured, 1 otherwise; bars that are missed are findings, not errors."""
    options = build_parser().parse_args(arguments)
    if options.list:
        print("\n".join(row.key for row in all_rows()))
        return 0
    if options.sources:
        document = combine([json.loads(source.read_text()) for source in options.sources])
    else:
        if reason := unavailable_reason() or (None if options.force else machine.busy_reason()):
            print(f"error: {reason}\nhint: root and a quiet machine; --force measures on a busy one", file=sys.stderr)
            return 1
        command = shlex.join(["scripts/bench", *(sys.argv[1:] if arguments is None else arguments)])
        try:
            document = run(options, command)
        except Interrupted:
            print("interrupted; everything has been taken down", file=sys.stderr)
            return int(ExitCode.INTERRUPTED)
    write(document, options)
    return 1 if any(row["failures"] for row in document["rows"]) else 0


def run(options: argparse.Namespace, command: str) -> dict[str, Any]:
    """Measure what the options say."""
    effort = QUICK if options.quick else Effort()
    runs: int = options.runs or (QUICK_RUNS if options.quick else DEFAULT_RUNS)
    rows = [row for row in all_rows() if row.key == BARE or any(fnmatchcase(row.key, p) for p in options.rows)]
    results = Results(rows)
    interrupts = Interrupts()
    with interrupts.active():
        ready = [row for row in rows if not _is_absent(row, results)]
        started = time.monotonic()
        with World(interrupts, through_relay=False) as world:
            stage = Stage(world)
            for number in range(1, runs + 1):
                # There and back: a machine that grows slower or faster during a round favours nobody in the end.
                for row in ready if number % 2 else reversed(ready):
                    results.add(row, number, _measure(stage, row, effort, results, f"{number}/{runs}"))
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
        "seconds": round(time.monotonic() - started),
        "machine": machine.describe(),
        "versions": machine.versions(),
        "settings": {"runs": runs, "quick": options.quick, "forced": options.force},
    }
    return results.document(**about)


def combine(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One document of several; what is not measured (date, machine) is the first one's."""
    if len(documents) == 1:
        return documents[0]
    first = documents[0]
    about = {key: first[key] for key in ("date", "seconds", "machine", "versions", "settings")}
    command = ", then ".join(document["command"] for document in documents)
    return Results.of_documents(all_rows(), documents).document(command=command, **about)


def _is_absent(row: Row, results: Results) -> bool:
    if reason := row.problem():
        results.absent[row.key] = reason
        _remark(f"{row.key}: absent: {reason}")
    return reason is not None


def _measure(stage: Stage, row: Row, effort: Effort, results: Results, progress: str) -> Run:
    started = time.monotonic()
    outcome = measure(stage, row, effort, results.guess(row))
    numbers = outcome.numbers
    found = [f"{way} {numbers[key]:.2f} Gbit/s" for way, key in _TCP if key in numbers]
    found += [f"{size} B {numbers[key] / 1000:.1f} k/s" for size, key in _UDP if key in numbers]
    _remark(f"{progress} {row.key:20} {', '.join(found)} ({time.monotonic() - started:.0f} s)")
    for failure in outcome.failures:
        _remark(f"    {failure}")
    return outcome


_TCP = (("down", "tcp1_down_gbit_s"), ("up", "tcp1_up_gbit_s"))
_UDP = ((64, "udp64_pps"), (1200, "udp1200_pps"))


def write(document: dict[str, Any], options: argparse.Namespace) -> None:
    """Into all the forms that were asked for."""
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    if str(options.json) == "-":
        sys.stdout.write(text)
    else:
        sys.stdout.write(text_report(document))
        if options.json:
            options.json.write_text(text)
    if options.svg:
        options.svg.write_text(draw(document))
    if options.write_readme:
        chart = options.svg.resolve().relative_to(README.parent).as_posix() if options.svg else None
        README.write_text(replace_block(README.read_text(), markdown_report(document, chart)))


def _remark(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
