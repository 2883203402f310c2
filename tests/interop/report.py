"""The matrix for people: a table on the terminal, JSON, and the block of the project's README.

A row is a peer in one role with one protocol; where our engines differ, a cell says both, aioquic first. Numbers in
brackets are notes: what deviates and whose fault it is, or why something was not asked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import date
from importlib import metadata
from typing import Any, Final

from rich import box
from rich.table import Table

from tests.interop.matrix import deviations
from tests.interop.model import Cell, Feature, Protocol, Role, Status
from tests.interop.peer import Peer

BEGIN, END = "<!-- interop:begin -->", "<!-- interop:end -->"
SCHEMA_VERSION: Final = 1
_WORDS: Final = {Status.OK: "ok", Status.DEVIATION: "dev", Status.FAIL: "FAIL", Status.SKIPPED: "–"}
_STYLES: Final = {Status.OK: "green", Status.DEVIATION: "yellow", Status.FAIL: "bold red", Status.SKIPPED: "dim"}
_OURS: Final = ("masque-connect", "aioquic", "qh3")


class Notes:
    """Numbered remarks, each once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        """The number of a remark, new or known."""
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def rows(cells: Iterable[Cell], notes: Notes) -> list[tuple[tuple[str, Role, Protocol], list[tuple[str, Status]]]]:
    """The table: for every row its key, and for every feature the text and the worst status of it."""
    grouped: dict[tuple[str, Role, Protocol], dict[Feature, list[Cell]]] = {}
    for cell in cells:
        grouped.setdefault((cell.peer, cell.role, cell.protocol), {}).setdefault(cell.feature, []).append(cell)
    return [
        (key, [_merge(by_feature.get(feature, []), notes) for feature in Feature])
        for key, by_feature in grouped.items()
    ]


def _merge(cells: Sequence[Cell], notes: Notes) -> tuple[str, Status]:
    if not cells:
        return "", Status.SKIPPED
    texts = [_text(cell, notes) for cell in cells]
    worst = max((cell.status for cell in cells), key=[Status.OK, Status.SKIPPED, Status.DEVIATION, Status.FAIL].index)
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts), worst


def _text(cell: Cell, notes: Notes) -> str:
    word = _WORDS[cell.status]
    return word if cell.status is Status.OK else f"{word} [{notes.number(cell.detail)}]"


def terminal_table(cells: Sequence[Cell]) -> tuple[Table, list[str]]:
    """The table for a terminal, and its notes."""
    notes = Notes()
    table = Table(box=box.SIMPLE)
    for column in ("peer", "its role", "protocol"):
        table.add_column(column, no_wrap=True)
    for feature in Feature:
        table.add_column(feature)
    for (peer, role, protocol), texts in rows(cells, notes):
        marked = (f"[{_STYLES[status]}]{text.replace('[', chr(92) + '[')}[/]" for text, status in texts)
        table.add_row(peer, role, protocol, *marked)
    return table, [f"[{number}] {text}" for number, text in enumerate(notes.texts, 1)]


def markdown(cells: Sequence[Cell], peers: Sequence[Peer], today: date) -> str:
    """The block of the README: the table with its date and versions, and its notes."""
    notes = Notes()
    features = list(Feature)
    table = rows(cells, notes)
    kinds = {peer.name: f"{peer.name} {peer.version} ({peer.stack})" for peer in peers}
    ours = ", ".join(f"{name} {version}" for name, version in our_versions().items())
    lines = [
        f"{today.isoformat()}, {ours}; `scripts/interop` makes this table. A cell with two words: aioquic / qh3.",
        "",
        "| peer | its role | protocol | " + " | ".join(features) + " |",
        "|---" * (3 + len(features)) + "|",
    ]
    for (peer, role, protocol), texts in table:
        lines.append(f"| {kinds.get(peer, peer)} | {role} | {protocol} | {' | '.join(text for text, _ in texts)} |")
    if notes.texts:
        lines += ["", *(f"{number}. {_one_line(text)}" for number, text in enumerate(notes.texts, 1))]
    if remarks := [f"- {peer.name} {_one_line(remark)}" for peer in peers for remark in peer.remarks]:
        lines += ["", "Seen, and lived with:", "", *remarks]
    return "\n".join(lines)


def replace_block(text: str, block: str) -> str:
    """`text` with what stands between the markers replaced.

    Raises:
        ValueError: the markers are missing, more than one pair, or in the wrong order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"there must be one {BEGIN} and after it one {END}")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def to_json(cells: Sequence[Cell], peers: Sequence[Peer], today: date) -> dict[str, Any]:
    """Everything, for programs. Fields are only ever added."""
    return {
        "schema_version": SCHEMA_VERSION,
        "date": today.isoformat(),
        "versions": our_versions(),
        "peers": [
            {"name": peer.name, "version": peer.version, "stack": peer.stack, "remarks": list(peer.remarks)}
            for peer in peers
        ],
        "summary": {status: sum(cell.status is status for cell in cells) for status in Status},
        "cells": [dataclasses.asdict(cell) for cell in cells],
        "deviations": [{"peer": peer.name, **dataclasses.asdict(deviation)} for peer, deviation in deviations(peers)],
    }


def our_versions() -> dict[str, str]:
    """Our version and those of the engines that are installed."""
    installed = {distribution.name.lower() for distribution in metadata.distributions()}
    return {name: metadata.version(name) for name in _OURS if name in installed}


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
