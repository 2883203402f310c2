"""A scenario's place is left as it was found, whenever the signal comes."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from masque_connect.demo.actors import PYTHON
from masque_connect.demo.interrupts import Interrupts
from masque_connect.demo.workplace import Workplace, Workshop


def test_leaving_it_ends_every_process_and_removes_the_directory() -> None:
    with Workshop(Interrupts()) as workshop:
        actors = [workshop.start(name, *PYTHON, "http.server", "0") for name in ("one", "other")]
        assert workshop.directory.is_dir()
        assert workshop.leftovers() != []
    assert all(actor.process.returncode is not None for actor in actors)
    assert workshop.leftovers() == []


def test_a_signal_while_it_is_built_undoes_it() -> None:
    """It is held back until all is built, and then strikes before the block that would undo it is entered."""
    built: list[Path] = []
    undone: list[str] = []

    class Place(Workplace):
        def _build(self, undo: ExitStack) -> None:
            undo.callback(undone.append, "built")
            os.kill(os.getpid(), signal.SIGINT)
            built.append(self.directory)

    interrupts = Interrupts()
    with interrupts.active(), pytest.raises(KeyboardInterrupt), Place(interrupts):
        pytest.fail("the block was entered")
    assert undone == ["built"]
    assert not built[0].exists()
