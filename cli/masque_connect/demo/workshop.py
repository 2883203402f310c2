"""Where a scenario without namespaces works: a directory and processes, all of it gone at the end."""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from masque_connect.demo.actors import Actor
from masque_connect.demo.interrupts import Interrupts
from masque_connect.render import remark


class Workshop:
    """A context manager; leaving it ends every process and removes the directory."""

    directory: Path

    def __init__(self, interrupts: Interrupts) -> None:
        self.actors: list[Actor] = []
        self._interrupts = interrupts

    def __enter__(self) -> Self:
        with self._interrupts.deferred():
            self.directory = Path(tempfile.mkdtemp(prefix="masque-demo-"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._interrupts.deferred():
            for actor in reversed(self.actors):
                actor.stop()
            shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, name: str, *command: str) -> Actor:
        """Start a process; its log is `name`.log."""
        with self._interrupts.deferred():
            self.actors.append(Actor(name, (), command, self.directory))
        return self.actors[-1]

    def stop(self, actor: Actor) -> int:
        """End one process; returns its exit status."""
        with self._interrupts.deferred():
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


def free_port(kind: socket.SocketKind) -> int:
    """A port of the kernel's choice; ours by the time it is bound again, in all likelihood."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
