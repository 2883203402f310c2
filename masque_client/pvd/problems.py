"""What the linter finds: a severity, a place, a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a problem is. An error makes clients ignore something; a warning is surely not meant; a note may be."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding.

    Attributes:
        severity: see there.
        pointer: where it is in the document (RFC 6901); an empty string is the whole document.
        message: what is wrong, and what comes of it.
        line, column: the same place in the text, from 1; None for what concerns no text, such as how it is served.
    """

    severity: Severity
    pointer: str
    message: str
    line: int | None = None
    column: int | None = None


Finding = tuple[Severity, str, str]
"""Severity, pointer, message."""
