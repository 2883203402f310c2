"""`scripts/interop`: run the matrix and print it."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from tests.interop import report
from tests.interop.matrix import ENGINES, QUICK, run, scenarios
from tests.interop.model import Cell, Feature, Status

README = Path(__file__).parents[2] / "README.md"
TABLE_WIDTH = 160


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 when every cell is ok or explained, 1 when one fails, 2 for wrong options."""
    parser = argparse.ArgumentParser(
        prog="scripts/interop", description="Foreign MASQUE programs against ours, in network namespaces. Needs root."
    )
    parser.add_argument("--peer", action="append", default=[], metavar="NAME", help="only this one; repeatable")
    parser.add_argument("--engine", action="append", choices=ENGINES, help="only this one of ours")
    parser.add_argument(
        "--feature", action="append", type=_feature, metavar="NAME", help="only this column; repeatable"
    )
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the cells there as well; - for stdout")
    parser.add_argument("--write-readme", action="store_true", help="put the table into README.md")
    options = parser.parse_args(arguments)
    try:
        chosen = scenarios(options.peer, options.engine or ENGINES)
        if options.write_readme:
            report.replace_block(README.read_text(), "")
    except ValueError as error:
        parser.error(str(error))
    features = options.feature or (QUICK if options.quick else tuple(Feature))
    remarks = Console(stderr=True, highlight=False)
    cells: list[Cell] = []
    for scenario in chosen:
        for cell in run(scenario, features):
            cells.append(cell)
            remarks.print(f"{scenario} {cell.feature}: {cell.status} {cell.detail}", markup=False, soft_wrap=True)
            for line in cell.log:
                remarks.print(f"    {line}", markup=False, soft_wrap=True)
    peers = list({scenario.peer.name: scenario.peer for scenario in chosen}.values())
    today = datetime.now(UTC).date()
    _show(cells, Console(width=None if sys.stdout.isatty() else TABLE_WIDTH, file=_table_goes_to(options.json)))
    if options.json:
        text = json.dumps(report.to_json(cells, peers, today), indent=1) + "\n"
        sys.stdout.write(text) if str(options.json) == "-" else options.json.write_text(text)
    if options.write_readme:
        README.write_text(report.replace_block(README.read_text(), report.markdown(cells, peers, today)))
        remarks.print(f"{README.name} has the new table")
    return 1 if any(cell.status is Status.FAIL for cell in cells) else 0


def _show(cells: Sequence[Cell], console: Console) -> None:
    table, notes = report.terminal_table(cells)
    console.print(table)
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def _table_goes_to(json_file: Path | None):
    return sys.stderr if str(json_file) == "-" else sys.stdout


def _feature(text: str) -> Feature:
    return Feature(text.replace("-", " "))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # namespaces and processes end with the scenes
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
