"""One target under atheris: `python -m tests.fuzz.worker TARGET …`. Started by `tests.fuzz`; ends with the report."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import atheris

from tests.fuzz.harness import Harness, Report
from tests.fuzz.targets import TARGETS

MAX_INPUT_BYTES = 4096
HANG_S = 60
"""Wall time after which libFuzzer gives up an input that never ends. Shorter ones are the harness's business."""


def main() -> None:
    """Fuzz one target until its limit; libFuzzer never returns, so the report is written and the process left."""
    parser = argparse.ArgumentParser(prog="tests.fuzz.worker")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--findings", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("corpora", nargs="+", help="directories of inputs; new ones are added to the first")
    arguments = parser.parse_args()
    target = TARGETS[arguments.target]
    with atheris.instrument_imports(include=list(target.instrumented)):
        module = importlib.import_module(target.module)
    harness = Harness(
        arguments.target,
        module.make(*target.arguments),
        arguments.findings,
        seconds=arguments.seconds,
        runs=arguments.runs,
        finish=lambda report: leave(report, arguments.report),
    )
    words = getattr(module, "WORDS", ())
    with tempfile.NamedTemporaryFile("w", suffix=".dict") as dictionary:
        dictionary.writelines(dictionary_lines(words))
        dictionary.flush()
        options = [
            f"-max_len={MAX_INPUT_BYTES}",
            f"-timeout={HANG_S}",
            "-rss_limit_mb=2048",
            f"-artifact_prefix={arguments.findings}/{arguments.target}-",
            "-verbosity=0",
        ]
        if words:  # libFuzzer takes an empty dictionary for a mistake
            options.append(f"-dict={dictionary.name}")
        atheris.Setup([sys.argv[0], *options, *arguments.corpora], harness)
        atheris.Fuzz()


def dictionary_lines(words: Iterable[bytes]) -> Iterable[str]:
    """libFuzzer's dictionary format."""
    return ('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in words)


def leave(report: Report, path: Path) -> None:
    """Write the report and end this process at once."""
    path.write_text(json.dumps(asdict(report)))
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
