"""I-JSON and its limits: where the standard library is lenient, we are not."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from masque_client.errors import PvdError
from masque_client.pvd.json_strict import MAX_BODY_BYTES, MAX_DEPTH, MAX_STRING_CHARACTERS, parse_object


def nested(depth: int) -> bytes:
    """An object whose innermost array is `depth` levels deep."""
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"{}", {}),
        (b' {"a": [1, -2.5, true, null, "x"]}\r\n', {"a": [1, -2.5, True, None, "x"]}),
        ('{"ü": "\\ud83d\\ude00"}'.encode(), {"ü": "😀"}),
        (b'{"brackets in strings": "[[[[[[[[[[[[[[[[[[[[\\""}', {"brackets in strings": "[" * 20 + '"'}),
        (b'{"n": 9007199254740991}', {"n": 2**53 - 1}),
        (b'{"s": "%s"}' % (b"x" * MAX_STRING_CHARACTERS), {"s": "x" * MAX_STRING_CHARACTERS}),
    ],
)
def test_objects_are_read(body: bytes, value: object) -> None:
    assert parse_object(body) == value


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "not JSON"),
        (b"no", "not JSON"),
        (b'{"a": 1,}', "not JSON"),
        (b'{"a": 1} // comment', "not JSON"),
        (b'{"a": 1}{"b": 2}', "not JSON"),
        (b'{"a": "\n"}', "not JSON"),
        (b"[]", "an array"),
        (b'"text"', "a string"),
        (b"true", "a boolean"),
        (b"null", "null"),
        (b"12", "a number"),
        (b'\xef\xbb\xbf{"a": 1}', "byte order mark"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "not JSON"),
        ('{"a": 1}'.encode("utf-32-be"), "not JSON"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a": 1, "a": 1}', "repeats"),
        (b'{"a": 1, "\\u0061": 1}', "repeats"),
        (b'{"x": [{"b": {}, "b": {}}]}', "repeats"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "range"),
        (b'{"a": 9007199254740992}', "range"),
        (b'{"a": -9007199254740992}', "range"),
        (b'{"a": %s}' % (b"9" * 10_000), "range"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b'{"a": ["\\ufdd0"]}', "noncharacter"),
        ('{"a": "\U0010ffff"}'.encode(), "noncharacter"),
        (b'{"s": "%s"}' % (b"x" * (MAX_STRING_CHARACTERS + 1)), "longer"),
        (b'{"%s": 1}' % (b"x" * (MAX_STRING_CHARACTERS + 1)), "longer"),
        (b'{"s": "%s"}' % (b"x" * MAX_BODY_BYTES), "larger"),
        (nested(MAX_DEPTH + 1), "deeper"),
        (b"[" * MAX_BODY_BYTES, "deeper"),
    ],
)
def test_anything_else_is_refused(body: bytes, complaint: str) -> None:
    with pytest.raises(PvdError, match=complaint):
        parse_object(body)


def test_depth_may_reach_the_limit() -> None:
    assert parse_object(nested(MAX_DEPTH))


@pytest.mark.parametrize(
    "fill",
    [
        lambda size: b'{"a": "' + b'\\"' * (size // 2) + b'"}',
        lambda size: b"{" + b",".join(b'"%d":0' % i for i in range(size // 10)) + b"}",
        lambda size: b"{" + b",".join(b'"%d":0' % i for i in range(size // 10)) + b',"0":0}',
        lambda size: b'{"a":[' + b",".join([b"[]"] * (size // 3 - 5)) + b"]}",
        lambda size: b'{"a": ' + b"9" * (size - 10) + b"}",
        lambda size: b'{"a": "' + b"x" * (size - 10),
    ],
)
def test_the_worst_inputs_take_linear_time(fill: Callable[[int], bytes]) -> None:
    """A quadratic step would take minutes for a body of the largest size; CPU time, so a busy machine does not fail."""
    body = fill(MAX_BODY_BYTES - 100)
    started = time.process_time()
    try:
        parse_object(body)
    except PvdError:
        pass
    assert time.process_time() - started < 30.0
