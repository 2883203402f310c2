"""One execution of a target, and what counts as a finding.

A finding is an exception that leaves the target (each lets pass what its room may raise: subclasses of `MasqueError`)
or more than a second of processor time for one input. Findings are told apart by where they come from, kept as
`TARGET-DIGEST.bin` with the traceback beside it, and do not stop the run: the next one may be another.
"""

from __future__ import annotations

import gc
import hashlib
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MAX_CPU_S = 1.0
"""Of one input. Processor time, because wall time says more about who else uses the machine."""
MAX_GROWTH_BYTES = 50 * 1024 * 1024
"""Of resident memory, from when everything has been used once to the end of the run."""
WARM_UP_RUNS = 1000
WARM_UP_S = 5.0

FuzzOne = Callable[[bytes], None]


class TooSlow(Exception):
    """One input took more than `MAX_CPU_S`."""


@dataclass(slots=True)
class Report:
    """What a run came to. `baseline_bytes` is 0 until the warm-up is over."""

    executions: int = 0
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)
    baseline_bytes: int = 0
    resident_bytes: int = 0

    @property
    def growth_bytes(self) -> int:
        """How much resident memory grew since the warm-up."""
        return self.resident_bytes - self.baseline_bytes if self.baseline_bytes else 0


class Harness:
    """Executes inputs until a limit is reached, then calls `finish` with the report.

    Args:
        fuzz_one: the target. When it has state, its attribute `history` is the input that brings a fresh one there.
        directory: where findings are kept.
        seconds, runs: the limits; 0 for none.
    """

    def __init__(
        self,
        name: str,
        fuzz_one: FuzzOne,
        directory: Path,
        *,
        seconds: float = 0.0,
        runs: int = 0,
        finish: Callable[[Report], None],
    ) -> None:
        self.report = Report()
        self._name = name
        self._fuzz_one = fuzz_one
        self._directory = directory
        self._started_at = time.monotonic()
        self._seconds = seconds
        self._runs = runs
        self._finish = finish

    def __call__(self, data: bytes) -> None:
        """Execute one input."""
        report, cpu_before = self.report, time.process_time()
        try:
            self._fuzz_one(data)
            if (used := time.process_time() - cpu_before) > MAX_CPU_S:
                raise TooSlow(f"{used:.1f} s of processor time")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic of a Rust library is no Exception
            self._keep(data, error)
        report.executions += 1
        report.seconds = time.monotonic() - self._started_at
        if not report.baseline_bytes and (report.executions >= WARM_UP_RUNS or report.seconds >= WARM_UP_S):
            report.baseline_bytes = resident_bytes()
        if 0 < self._runs <= report.executions or 0 < self._seconds <= report.seconds:
            report.resident_bytes = resident_bytes()
            self._finish(report)

    def _keep(self, data: bytes, error: BaseException) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}"
        name = f"{self._name}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
        if name in self.report.findings:
            return
        self.report.findings.append(name)
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / f"{name}.bin").write_bytes(getattr(self._fuzz_one, "history", data))
        (self._directory / f"{name}.txt").write_text("".join(traceback.format_exception(error)))


def resident_bytes() -> int:
    """Memory of this process that is in RAM, without what waits to be collected."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
