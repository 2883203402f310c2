"""docs/conformance.md must not rot: whatever it names, exists."""

from __future__ import annotations

import importlib
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "conformance.md"


class Row(NamedTuple):
    rule: str
    clause: str
    asks: str
    obeyed_by: str
    proved_by: str


def rows() -> list[Row]:
    lines = TABLE.read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [Row(*row) for row in cells if row[0] != "Rule" and not set(row[0]) <= {"-"}]


@cache
def names_in(path: str) -> frozenset[str]:
    file = ROOT / "tests" / path
    return (
        frozenset(re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE))
        if file.is_file()
        else frozenset()
    )


def resolve(dotted: str) -> object:
    """The module, or what is in it."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(["masque_client", *parts[:length]]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            found = getattr(found, name)
        return found
    raise AssertionError(f"masque_client.{dotted} does not exist")


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.rule)
def test_row(row: Row) -> None:
    assert row.clause and row.asks
    for name in re.findall(r"`([^`]+)`", row.obeyed_by):
        resolve(name)
    proofs = [proof.strip() for proof in row.proved_by.split("<br>")]
    remarks = [proof for proof in proofs if not proof.startswith("`")]
    assert all(remark.startswith(("**gap:** ", "does not arise: ")) for remark in remarks), remarks
    assert row.obeyed_by != "—" or remarks, "nobody obeys, and nobody says why"
    for proof in proofs:
        if proof not in remarks:
            path, _, name = proof.strip("`").partition("::")
            assert name in names_in(path), f"{path} has no {name}"


def test_every_rule_has_one_row() -> None:
    rules = [row.rule for row in rows()]
    assert len(rules) == len(set(rules)) > 150
