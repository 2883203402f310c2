"""Words, tables and live lines. Commands hand over data; only this file knows about terminals.

Results go to stdout, remarks and everything that moves go to stderr. When stderr is no terminal nothing moves.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live as RichLive
from rich.table import Table
from rich.text import Text

from masque_client.engine.interface import EngineStatistics

SCHEMA_VERSION = 1
"""Of every JSON object that commands print. Fields are only ever added within a version."""

remarks = Console(stderr=True, highlight=False, soft_wrap=True)
results = Console(highlight=False, soft_wrap=True)


def remark(text: str) -> None:
    """One line about what is going on, to stderr."""
    remarks.print(Text(printable(text)))


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")
    sys.stdout.flush()


def print_json_line(value: Mapping[str, Any]) -> None:
    """One JSON object as one line on stdout, for readers of a stream."""
    sys.stdout.write(json.dumps(value, default=str) + "\n")
    sys.stdout.flush()


def printable(text: str) -> str:
    """Text from the network, without control characters: it must not drive the user's terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "·", text)


def table(rows: Sequence[tuple[str, str]]) -> Table:
    """Two columns, names and values."""
    grid = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows:
        grid.add_row(Text(name), Text(printable(value)))
    return grid


def rates(sent: int, received: int, statistics: EngineStatistics) -> str:
    """`↑ 1.2 Mbit/s  ↓ 45.0 Mbit/s  rtt 12.3 ms  loss 0.1 %` from bytes of the last second."""
    rtt = "-" if statistics.rtt_s is None else f"{statistics.rtt_s * 1000:.1f} ms"
    loss = 100 * statistics.packets_lost / max(1, statistics.packets_sent)
    return f"↑ {sent * 8 / 1e6:.1f} Mbit/s  ↓ {received * 8 / 1e6:.1f} Mbit/s  rtt {rtt}  loss {loss:.1f} %"


class Live:
    """One line at the bottom of the terminal that changes; nothing when stderr is no terminal."""

    def __init__(self) -> None:
        self._live = RichLive(console=remarks, auto_refresh=False, transient=True) if remarks.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, line: str) -> None:
        """Show `line` from now on."""
        if self._live is not None:
            self._live.update(Text(line), refresh=True)
