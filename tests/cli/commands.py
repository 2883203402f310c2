"""The public command line as a process, and what must be true of it when it ends badly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from masque_client.testing.netns import Namespace

MASQUE_CONNECT = (sys.executable, "-m", "masque_connect.main")
PATIENCE_S = 90.0
"""Past this a command hangs, however busy the machine: it is killed, and its test fails."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """What the `error: ` line says."""
        return self._last_lines()[0].removeprefix("error: ")

    @property
    def hint(self) -> str:
        """What the `hint: ` line says."""
        return self._last_lines()[1].removeprefix("hint: ")

    def _last_lines(self) -> list[str]:
        return self.stderr.splitlines()[-2:]


class Command:
    """One running command line; leave the block to have it ended, its pipes closed and its children looked for."""

    def __init__(self, *arguments: str, namespace: Namespace | None = None, wrapper: Sequence[str] = ()) -> None:
        inside = ("ip", "netns", "exec", namespace.name) if namespace else ()
        self.process = subprocess.Popen(
            [*inside, *wrapper, *MASQUE_CONNECT, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "always::ResourceWarning"},
            start_new_session=True,
        )
        self._watchdog = threading.Timer(PATIENCE_S, self.process.kill)
        self._watchdog.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ready(self) -> dict[str, Any] | None:
        """Wait for the JSON line on stdout; None when the command ends without."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def remark(self, containing: str) -> str:
        """Wait for a line on stderr."""
        assert self.process.stderr is not None
        seen = []
        for line in self.process.stderr:
            seen.append(line)
            if containing in line:
                return line
        raise AssertionError(f"no remark has {containing!r}: {seen}")

    def outcome(self) -> Outcome:
        """Wait for the end; neither a process nor a traceback may remain of it."""
        assert self.process.stdout is not None and self.process.stderr is not None
        stdout, stderr = self.process.stdout.read(), self.process.stderr.read()  # little: neither pipe fills
        outcome = Outcome(self.process.wait(), stdout, stderr)
        assert not _group_exists(self.process.pid), "it left a process behind"
        for word in ("Traceback", "Warning", "never retrieved"):
            assert word not in outcome.stderr + outcome.stdout, outcome.stderr
        return outcome

    def close(self) -> None:
        """Kill it if it still runs. Idempotent."""
        self._watchdog.cancel()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def failed(outcome: Outcome, code: int, *, error: str, hint: str) -> None:
    """It ended with `code`, and its last two lines say `error` and `hint` among other words."""
    lines = outcome.stderr.splitlines()
    transcript = f"exit status {outcome.code}\n{outcome.stderr}"
    assert outcome.code == code, transcript
    assert len(lines) >= 2 and lines[-2].startswith("error: ") and lines[-1].startswith("hint: "), transcript
    assert sum(line.startswith(("error: ", "hint: ")) for line in lines) == 2, transcript
    assert error in outcome.error, transcript
    assert hint in outcome.hint, transcript
    assert not outcome.error.endswith("."), transcript


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
