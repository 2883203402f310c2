"""Where each value of a JSON text stands: what turns a JSON pointer into a line and a column.

For messages only. Texts that are no JSON are indexed as far as they go; `json_strict` is the one that judges.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from dataclasses import dataclass, field

from masque_client.pvd.json_strict import MAX_DEPTH
from masque_client.pvd.values import child

_SPACE = re.compile(r"[ \t\n\r]*+")
_STRING = re.compile(r'"(?:[^"\\\n]++|\\.)*+"')
_SCALAR = re.compile(r"[^\s,\]}\[{\":]++")


@dataclass(frozen=True, slots=True)
class JsonPositions:
    """Offsets by pointer, pointers written as `values.child` writes them.

    Attributes:
        text: what was indexed.
        offsets: where a value starts; for a member of an object, where its name does.
        raw_strings: string values as they are written, quotes included.
        duplicates: each further member of a name in one object, in order: pointer and offset.
    """

    text: str
    offsets: dict[str, int] = field(default_factory=dict)
    raw_strings: dict[str, str] = field(default_factory=dict)
    duplicates: list[tuple[str, int]] = field(default_factory=list)
    _line_starts: list[int] = field(default_factory=list)

    @classmethod
    def index(cls, text: str) -> JsonPositions:
        """Walk through the text once."""
        positions = cls(text)
        positions._line_starts.extend([0, *(match.end() for match in re.finditer("\n", text))])
        try:
            _Walk(positions).value("", _skip(text, 0), depth=0)
        except _NotJson:
            pass
        return positions

    def line_column(self, pointer: str) -> tuple[int, int]:
        """Both from 1; of the nearest enclosing value when the pointer leads to nothing."""
        while pointer not in self.offsets and pointer:
            pointer = pointer.rpartition("/")[0]
        return self.at(self.offsets.get(pointer, 0))

    def at(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from 1."""
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1


class _NotJson(Exception):
    """The walk cannot go on."""


class _Walk:
    """Each method takes the offset of something's first character and returns the offset behind it."""

    def __init__(self, positions: JsonPositions) -> None:
        self._positions = positions
        self._text = positions.text

    def value(self, pointer: str, start: int, depth: int) -> int:
        self._positions.offsets.setdefault(pointer, start)
        match self._text[start : start + 1]:
            case "{" | "[" if depth >= MAX_DEPTH:
                raise _NotJson
            case "{":
                return self._members(pointer, start, depth + 1)
            case "[":
                return self._elements(pointer, start, depth + 1)
            case '"':
                end = self._end_of(_STRING, start)
                self._positions.raw_strings[pointer] = self._text[start:end]
                return end
            case _:
                return self._end_of(_SCALAR, start)

    def _members(self, pointer: str, start: int, depth: int) -> int:
        seen: set[str] = set()
        at = _skip(self._text, start + 1)
        if self._text.startswith("}", at):
            return at + 1
        while True:
            end = self._end_of(_STRING, at)
            place = child(pointer, _decoded(self._text[at:end]))
            if place in seen:
                self._positions.duplicates.append((place, at))
            seen.add(place)
            self._positions.offsets[place] = at
            at = self._expect(":", _skip(self._text, end))
            at = _skip(self._text, self.value(place, _skip(self._text, at), depth))
            if self._text.startswith("}", at):
                return at + 1
            at = _skip(self._text, self._expect(",", at))

    def _elements(self, pointer: str, start: int, depth: int) -> int:
        index = 0
        at = _skip(self._text, start + 1)
        if self._text.startswith("]", at):
            return at + 1
        while True:
            at = _skip(self._text, self.value(child(pointer, index), at, depth))
            if self._text.startswith("]", at):
                return at + 1
            at = _skip(self._text, self._expect(",", at))
            index += 1

    def _expect(self, character: str, at: int) -> int:
        if not self._text.startswith(character, at):
            raise _NotJson
        return at + 1

    def _end_of(self, pattern: re.Pattern[str], start: int) -> int:
        match = pattern.match(self._text, start)
        if match is None:
            raise _NotJson
        return match.end()


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _decoded(raw: str) -> str:
    try:
        return str(json.loads(raw))
    except ValueError as error:
        raise _NotJson from error
