"""I-JSON (RFC 7493) from bytes, with limits: the syntax layer of a PvD object (RFC 8801 §4).

The `json` module is lenient where the specification is not: it guesses UTF-16 and UTF-32, skips a byte order mark,
keeps the last of duplicate members, reads `NaN`, and nests until the interpreter gives up. Each of these lets two
readers see two different documents, so each is refused here.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from masque_client.errors import PvdError
from masque_client.pvd.values import JsonObject, child, quoted, type_name

MAX_BODY_BYTES = 1024 * 1024
MAX_DEPTH = 16
MAX_STRING_CHARACTERS = 2048
MAX_SAFE_INTEGER = 2**53 - 1  # RFC 7493 §2.2

_INTEGER_DIGITS = len(str(MAX_SAFE_INTEGER))
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)
# RFC 7493 §2.1: surrogates and the noncharacters U+FDD0–FDEF and U+nFFFE, U+nFFFF of all planes.
_FORBIDDEN_CHARACTER = re.compile(
    "[\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    + "]"
)


def parse_object(body: bytes) -> JsonObject:
    """Decode and check one JSON object. Work and memory are linear in `body`.

    Raises:
        PvdError: the bytes are no I-JSON object within our limits.
    """
    if len(body) > MAX_BODY_BYTES:
        raise PvdError(f"the PvD document is larger than {MAX_BODY_BYTES} bytes")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PvdError(f"the PvD document is not UTF-8 (byte {error.start})") from error
    if text.startswith("\ufeff"):
        raise PvdError("the PvD document starts with a byte order mark")
    _check_depth(text)
    value = _loads(text)
    if not isinstance(value, dict):
        raise PvdError(f"the PvD document is {type_name(value)}, not a JSON object")
    _check_strings(value, "")
    return value


def _check_depth(text: str) -> None:
    """Before the parser recurses: MAX_DEPTH counts the outermost object as 1."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        token = match[0]
        if token in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise PvdError(f"the PvD document nests deeper than {MAX_DEPTH} levels")
        elif token in "]}":
            depth -= 1


def _loads(text: str) -> Any:
    try:
        return json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
            parse_int=_parse_int,
            parse_float=_parse_float,
        )
    except json.JSONDecodeError as error:
        raise PvdError(
            f"the PvD document is not JSON: line {error.lineno} column {error.colno}: {error.msg}"
        ) from error
    except RecursionError as error:  # unreachable after _check_depth unless our caller is deep itself
        raise PvdError("the PvD document nests too deeply") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> JsonObject:
    members: JsonObject = {}
    for name, value in pairs:
        if name in members:
            raise PvdError(f"the PvD document repeats the member {quoted(name)} in one object")
        members[name] = value
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise PvdError(f"the PvD document contains {name}, which is not JSON")


def _parse_int(digits: str) -> int:
    number = int(digits) if len(digits.lstrip("-")) <= _INTEGER_DIGITS else None
    if number is None or abs(number) > MAX_SAFE_INTEGER:
        raise PvdError("the PvD document contains an integer beyond the I-JSON range")
    return number


def _parse_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise PvdError("the PvD document contains a number beyond the I-JSON range")
    return number


def _check_strings(value: object, pointer: str) -> None:
    if isinstance(value, str):
        _check_string(value, pointer)
    elif isinstance(value, list):
        for index, element in enumerate(value):
            if isinstance(element, (str, list, dict)):
                _check_strings(element, child(pointer, index))
    elif isinstance(value, dict):
        for name, member in value.items():
            _check_string(name, pointer)
            _check_strings(member, child(pointer, name))


def _check_string(text: str, pointer: str) -> None:
    if len(text) > MAX_STRING_CHARACTERS:
        raise PvdError(f"{pointer or '/'}: a string is longer than {MAX_STRING_CHARACTERS} characters")
    if not text.isascii() and _FORBIDDEN_CHARACTER.search(text):
        raise PvdError(f"{pointer or '/'}: a string contains a surrogate or noncharacter (RFC 7493 §2.1)")
