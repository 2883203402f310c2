"""What the harness calls a finding, and that the whole machinery tells of one."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzz import harness
from tests.fuzz.harness import Harness, Report

ROOT = Path(__file__).parents[2]


def fragile(data: bytes) -> None:
    if data == b"one":
        raise ValueError("there")
    if data == b"two":
        raise ValueError("elsewhere")
    if data == b"three":
        raise BaseException("a panic in Rust")


def run(tmp_path: Path, fuzz_one: harness.FuzzOne, *inputs: bytes) -> Report:
    reports: list[Report] = []
    execute = Harness("target", fuzz_one, tmp_path, runs=len(inputs), finish=reports.append)
    for data in inputs:
        execute(data)
    (report,) = reports
    return report


def test_findings_are_told_apart_by_their_place_and_kept(tmp_path: Path) -> None:
    report = run(tmp_path, fragile, b"one", b"fine", b"two", b"one", b"three")
    assert report.executions == 5
    assert len(report.findings) == 3
    assert {path.read_bytes() for path in tmp_path.glob("*.bin")} == {b"one", b"two", b"three"}
    assert any("a panic in Rust" in path.read_text() for path in tmp_path.glob("*.txt"))


def test_a_slow_input_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 0.9, 10.0, 11.1])
    monkeypatch.setattr("tests.fuzz.harness.time.process_time", lambda: next(seconds))
    report = run(tmp_path, lambda data: None, b"quick", b"slow")
    assert [path.read_bytes() for path in tmp_path.glob("*.bin")] == [b"slow"]
    assert len(report.findings) == 1


def test_a_target_with_state_is_kept_with_its_history(tmp_path: Path) -> None:
    class Stateful:
        history = b""

        def __call__(self, data: bytes) -> None:
            self.history += data
            fragile(data)

    run(tmp_path, Stateful(), b"before ", b"one")
    assert [path.read_bytes() for path in tmp_path.glob("*.bin")] == [b"before one"]


KEEPING = """
import sys
from pathlib import Path
from tests.fuzz import harness

harness.WARM_UP_RUNS = 2
kept = []
inputs = [b"", b"", *[b"keep"] * 8]
execute = harness.Harness(
    "target",
    lambda data: kept.append(bytearray(len(data) << 18)),
    Path(sys.argv[1]),
    runs=len(inputs),
    finish=lambda report: print(report.baseline_bytes, report.growth_bytes),
)
for data in inputs:
    execute(data)
"""


def test_memory_is_measured_from_the_warm_up_on(tmp_path: Path) -> None:
    """In a process of its own: in this one memory comes and goes with what other tests have left."""
    ended = subprocess.run(
        [sys.executable, "-c", KEEPING, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    baseline, growth = map(int, ended.stdout.split())
    assert baseline > 0
    assert 4 << 20 < growth < 32 << 20, "8 MiB were kept after the warm-up"


@pytest.mark.skipif(find_spec("atheris") is None, reason="NEEDS atheris: pip install -e '.[fuzz]'; no fuzzing here")
def test_a_short_run_prints_its_table(tmp_path: Path) -> None:
    arguments = ["--runs", "300", "--target", "quic-headers", "--target", "capsules", "--state", str(tmp_path)]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    header, *rows = ended.stdout.splitlines()
    assert header.split() == ["target", "executions", "exec/s", "findings", "RSS", "growth"]
    assert [row.split()[:2] for row in rows] == [["quic-headers", "300"], ["capsules", "300"]]
