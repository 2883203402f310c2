"""Small helpers over parsed JSON: pointers, quoting, and the two ways a value can fail.

`BadValue` travels inside this package only: whoever owns the scope in which a value is ignored (the document, the
proxy configuration, one entry, one key) catches it and records an `Ignored`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from masque_client.errors import ConfigurationError

JsonObject = dict[str, Any]

MAX_QUOTED_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Ignored:
    """A part of a document that is not used, where it stands (a JSON pointer, RFC 6901) and why."""

    pointer: str
    reason: str

    def __str__(self) -> str:
        return f"{self.pointer}: {self.reason}"


class BadValue(Exception):
    """The value at `pointer` breaks a rule. Never leaves `masque_client.pvd`."""

    def __init__(self, pointer: str, reason: str) -> None:
        super().__init__(f"{pointer}: {reason}")
        self.pointer = pointer
        self.reason = reason

    def as_ignored(self, scope: str) -> Ignored:
        """What to record when the whole of `scope` is given up because of this value."""
        inner = self.pointer.removeprefix(scope)
        return Ignored(scope, f"{inner}: {self.reason}" if inner else self.reason)


@contextmanager
def at(pointer: str) -> Iterator[None]:
    """Give an error of a value's own parser (`ConfigurationError`) its place in the document."""
    try:
        yield
    except ConfigurationError as error:
        raise BadValue(pointer, str(error)) from error


def child(pointer: str, token: str | int) -> str:
    """The pointer of a member or element, escaped as RFC 6901 §3 wants and safe to print."""
    if isinstance(token, int):
        return f"{pointer}/{token}"
    escaped = token.replace("~", "~0").replace("/", "~1")
    return f"{pointer}/{_shortened(json.dumps(escaped)[1:-1])}"


def quoted(value: object) -> str:
    """A value from outside, made safe for a message: JSON, ASCII only, short."""
    return _shortened(json.dumps(value))


def string_list(value: object, pointer: str) -> list[str]:
    """An array of strings, or `BadValue` at the array or at its first other element."""
    if not isinstance(value, list):
        raise BadValue(pointer, f"must be an array, not {type_name(value)}")
    for index, element in enumerate(value):
        if not isinstance(element, str):
            raise BadValue(child(pointer, index), f"must be a string, not {type_name(element)}")
    return value


def type_name(value: object) -> str:
    """The JSON name of a value's type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    names = {str: "a string", int: "a number", float: "a number", list: "an array", dict: "an object"}
    return names[type(value)]


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_QUOTED_CHARACTERS else text[: MAX_QUOTED_CHARACTERS - 1] + "…"
