"""The exception of a command that a signal ends."""

from __future__ import annotations


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came.

    A class of its own, because CPython remembers a plain KeyboardInterrupt that passes through `exec` of a string, as
    every dataclass does while it is made, and then ends the process by SIGINT although it was caught: our exit code
    would be lost.
    """
