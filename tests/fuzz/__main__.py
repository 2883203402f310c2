"""`python -m tests.fuzz`: every target, one after another, each in a process of its own; then a table.

Exit status 1 when something was found or memory grew beyond the bound. See `scripts/fuzz`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from tests.fuzz.harness import MAX_GROWTH_BYTES, Report
from tests.fuzz.targets import CORPUS, TARGETS

DEFAULT_SECONDS = 20.0


def main() -> int:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Fuzz every place where a peer's bytes come in.")
    parser.add_argument("--seconds", type=float, help=f"for each target; {DEFAULT_SECONDS:g} unless --runs is given")
    parser.add_argument("--runs", type=int, default=0, help="executions of each target")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this one; repeatable")
    parser.add_argument("--state", type=Path, default=Path(".fuzz"), help="where inputs and findings are kept")
    arguments = parser.parse_args()
    seconds = arguments.seconds or (0.0 if arguments.runs else DEFAULT_SECONDS)
    findings: Path = arguments.state / "findings"
    print(f"{'target':20} {'executions':>12} {'exec/s':>8} {'findings':>9} {'RSS growth':>11}", flush=True)
    is_clean = True
    for name in arguments.target or TARGETS:
        report, trouble = run(name, arguments.state, seconds, arguments.runs)
        rate = report.executions / report.seconds if report.seconds else 0.0
        growth = f"{report.growth_bytes / 2**20:.1f} MiB"
        print(f"{name:20} {report.executions:12,} {rate:8,.0f} {len(report.findings):9} {growth:>11}", flush=True)
        if report.growth_bytes > MAX_GROWTH_BYTES:
            trouble = f"resident memory grew by more than {MAX_GROWTH_BYTES >> 20} MiB"
        if trouble:
            print(f"  {name}: {trouble}", flush=True)
        is_clean = is_clean and not trouble and not report.findings
    if not is_clean:
        print(f"error: see {findings.resolve()}: inputs (.bin), tracebacks (.txt) and logs", file=sys.stderr)
    return 0 if is_clean else 1


def run(name: str, state: Path, seconds: float, runs: int) -> tuple[Report, str]:
    """Fuzz one target; the report, and what is wrong besides findings, in words."""
    found, findings = state / "corpus" / name, state / "findings"
    log, report = findings / f"{name}.log", findings / f"{name}.json"
    for directory in (found, findings, CORPUS / name):
        directory.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    limits = ["--seconds", str(seconds), "--runs", str(runs), "--findings", str(findings), "--report", str(report)]
    command = [sys.executable, "-m", "tests.fuzz.worker", name, *limits, str(found), str(CORPUS / name)]
    with log.open("w") as output:
        status = subprocess.run(command, stdout=output, stderr=output, check=False).returncode
    if not report.exists():
        return Report(), f"the process ended with status {status}; its log is {log}"
    return Report(**json.loads(report.read_text())), ""


if __name__ == "__main__":
    sys.exit(main())
