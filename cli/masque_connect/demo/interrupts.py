"""SIGINT and SIGTERM for a program that builds things: never between making one and noting that it must be undone."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from masque_connect.interruption import Interrupted


class Interrupts:
    """While active, the first SIGINT or SIGTERM raises `Interrupted`, at once or after a `deferred` block.

    Later signals are ignored: the clean-up that the first one started must finish.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._pending = False
        self._raised = False

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Handle the signals for the length of a block, in the main thread."""
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Hold a signal back until the block is done. Keep such blocks short; they may nest."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            self._raise_if_due()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._pending = True
        self._raise_if_due()

    def _raise_if_due(self) -> None:
        if self._pending and not self._raised and self._depth == 0:
            self._raised = True
            raise Interrupted
