"""The processes of a scenario: started in a namespace, awaited until they say they are ready, ended, logs kept."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from masque_client.errors import MasqueError

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
LOG_TAIL_LINES = 15

PYTHON = (sys.executable, "-m")
MASQUE_CONNECT = (sys.executable, "-m", "masque_connect.main")
"""The public command line, of this very installation."""


class StepFailed(MasqueError):
    """A step of a scenario did not do what it must. The logs of all processes follow."""

    default_hint = "the last lines of every process's log are above"


class Actor:
    """One process. stdout carries JSON lines for us, stderr goes to a log file.

    Args:
        wrapper: what puts the command where it belongs, such as `ip netns exec NAME`.
        takes_orders: its stdin is a pipe, see `order`; else it is empty.
    """

    def __init__(
        self, name: str, wrapper: Sequence[str], command: Sequence[str], logs: Path, *, takes_orders: bool = False
    ) -> None:
        self.name = name
        self.log = logs / f"{name}.log"
        self._buffer = b""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*wrapper, *command],
                stdin=subprocess.PIPE if takes_orders else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us; we end them in order
            )

    def next_line(self, timeout_s: float = READY_TIMEOUT_S) -> dict[str, Any]:
        """The next JSON line it prints.

        Raises:
            StepFailed: it ended, was silent for `timeout_s`, or printed something else.
        """
        deadline = time.monotonic() + timeout_s
        stdout = self.process.stdout
        assert stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise StepFailed(f"{self.name} said nothing within {timeout_s:g} s")
                chunk = os.read(stdout.fileno(), 65536)
                if not chunk:
                    raise StepFailed(f"{self.name} ended with exit status {self.process.wait()}: {self._last_words()}")
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return self._parse(line)

    def order(self, command: dict[str, Any]) -> dict[str, Any]:
        """Give it a JSON line and return its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()
        return self.next_line()

    def next_document(self, timeout_s: float = READY_TIMEOUT_S) -> dict[str, Any]:
        """Everything it prints, one JSON object; waits for it to end with exit status 0.

        Raises:
            StepFailed: it failed, took longer, or printed something else.
        """
        try:
            output, _ = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise StepFailed(f"{self.name} did not end within {timeout_s:g} s") from None
        if self.process.returncode:
            raise StepFailed(f"{self.name} ended with exit status {self.process.returncode}: {self._last_words()}")
        return self._parse(output)

    def wait(self, timeout_s: float = READY_TIMEOUT_S) -> int:
        """Wait for it to end by itself; returns its exit status.

        Raises:
            StepFailed: it did not.
        """
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise StepFailed(f"{self.name} did not end within {timeout_s:g} s") from None

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """End it, gently first; returns its exit status. Idempotent."""
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        return self.process.returncode

    def tail(self) -> list[str]:
        """The last lines of its log."""
        return self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]

    def _parse(self, text: bytes) -> dict[str, Any]:
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise StepFailed(f"{self.name} printed {text[:200]!r} instead of a JSON object")
        return value

    def _last_words(self) -> str:
        errors = [line for line in self.tail() if line.startswith("error:")]
        return (errors or self.tail() or ["no output"])[-1]
