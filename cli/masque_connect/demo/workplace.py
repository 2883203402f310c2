"""Where a scenario works: a directory and processes, all of it gone at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from masque_connect.demo.actors import Actor
from masque_connect.demo.interrupts import Interrupts
from masque_connect.render import remark


class Workplace:
    """A context manager; leaving it ends every process and removes the directory, also when it could not be entered."""

    directory: Path

    def __init__(self, interrupts: Interrupts) -> None:
        self.interrupts = interrupts
        self.actors: list[Actor] = []
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        try:
            with self.interrupts.deferred():
                self.directory = Path(tempfile.mkdtemp(prefix="masque-demo-"))
                self._undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
                self._build(self._undo)
                self._undo.callback(self._stop_all)
        except BaseException:  # also what was deferred until here
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.interrupts.deferred():
            self._undo.close()

    def stop(self, actor: Actor) -> int:
        """End one process; returns its exit status."""
        with self.interrupts.deferred():
            return actor.stop()

    def show_logs(self) -> None:
        """The last log lines of every process, as remarks."""
        for actor in self.actors:
            remark(f"--- last lines of {actor.name}")
            for line in actor.tail() or ["(silent)"]:
                remark(f"    {line}")

    def leftovers(self) -> list[str]:
        """What is still there after leaving."""
        running = [f"process {actor.process.pid}" for actor in self.actors if actor.process.returncode is None]
        return running + ([str(self.directory)] if self.directory.exists() else [])

    def _start(self, name: str, wrapper: Sequence[str], command: Sequence[str], *, takes_orders: bool = False) -> Actor:
        with self.interrupts.deferred():
            self.actors.append(Actor(name, wrapper, command, self.directory, takes_orders=takes_orders))
        return self.actors[-1]

    def _build(self, undo: ExitStack) -> None:
        """What there is besides."""

    def _stop_all(self) -> None:
        for actor in reversed(self.actors):
            actor.stop()


class Workshop(Workplace):
    """For scenarios without namespaces."""

    def start(self, name: str, *command: str) -> Actor:
        """Start a process; its log is `name`.log."""
        return self._start(name, (), command)
