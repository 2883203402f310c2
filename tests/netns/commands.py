"""Processes of ours that report in lines of JSON and end on a signal."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from typing import Any

PATIENCE_S = 60.0
"""Past this a process hangs, however busy the machine: it is killed, and its test fails."""


def read_json(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The next line it prints."""
    assert process.stdout is not None
    watchdog = threading.Timer(PATIENCE_S, process.kill)
    watchdog.start()
    try:
        line = process.stdout.readline()
    finally:
        watchdog.cancel()
    assert line, f"it ended with {process.wait()}"
    value: dict[str, Any] = json.loads(line)
    return value


def end(process: subprocess.Popen[bytes], number: signal.Signals) -> int:
    """Send it a signal; returns the exit status."""
    process.send_signal(number)
    process.communicate(timeout=PATIENCE_S)
    return process.returncode
