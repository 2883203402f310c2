"""Challenges (RFC 9110 §11): every form of the grammar, and what is not in it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque_client.protocol.challenges import MAX_CHALLENGES, Challenge, challenges_of, parse_challenges

quick = settings(derandomize=True, deadline=None, max_examples=200, database=None)

BASIC = Challenge("basic", None, {"realm": "staff"})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", []),
        (b" , ,", []),
        (b'Basic realm="staff"', [BASIC]),
        (b'BASIC REALM = "staff" ', [BASIC]),
        (b"Basic realm=staff", [BASIC]),
        (b'Basic realm="a \\"b\\", c"', [Challenge("basic", None, {"realm": 'a "b", c'})]),
        (b"Bearer", [Challenge("bearer")]),
        (b"Negotiate YWJj==", [Challenge("negotiate", "YWJj==")]),
        (b"Bearer , Basic realm=staff", [Challenge("bearer"), BASIC]),
        (b"Negotiate YWJj, Basic realm=staff", [Challenge("negotiate", "YWJj"), BASIC]),
        (
            b'Newauth realm="apps", type=1, title="Login to \\"apps\\"", Basic realm="staff"',
            [Challenge("newauth", None, {"realm": "apps", "type": "1", "title": 'Login to "apps"'}), BASIC],
        ),
        (b",, Basic realm=staff ,, Bearer ,", [BASIC, Challenge("bearer")]),
        (b"Basic realm=staff, realm=other", [BASIC]),
        (b'Basic realm="staff", "junk", Bearer', [BASIC]),
        (b'Basic realm="never ends', []),
        (b"Bearer, Basic realm=", [Challenge("bearer"), Challenge("basic", "realm=")]),
        (b"(junk), Basic realm=staff", []),
        (b"=", []),
    ],
)
def test_one_field_value(value: bytes, expected: list[Challenge]) -> None:
    assert list(parse_challenges(value)) == expected


def test_each_status_has_its_own_field() -> None:
    fields = ((b"www-authenticate", b"Bearer"), (b"proxy-authenticate", b"Basic realm=staff"))
    assert challenges_of(401, fields) == (Challenge("bearer"),)
    assert challenges_of(407, fields) == (BASIC,)
    assert challenges_of(403, fields) == ()


def test_several_field_lines_and_never_too_many() -> None:
    assert len(challenges_of(401, [(b"www-authenticate", b"Bearer"), (b"www-authenticate", b"Basic realm=staff")])) == 2
    assert len(challenges_of(401, [(b"www-authenticate", b"Bearer," * 100)] * 100)) == MAX_CHALLENGES


def test_description_is_safe_to_print() -> None:
    assert BASIC.describe() == 'Basic (realm "staff")'
    evil = challenges_of(401, [(b"www-authenticate", b'Basic realm="\x1b[2J\xff' + b"x" * 500 + b'"')])[0].describe()
    assert evil.isprintable() and len(evil) < 120


tokens = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=8)
texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=12)
by_parameters = st.builds(
    Challenge, tokens.map(str.lower), st.none(), st.dictionaries(tokens.map(str.lower), texts, max_size=3)
)
by_token = st.builds(Challenge, tokens.map(str.lower), st.from_regex(r"[A-Za-z0-9._~+/-]{1,8}={0,2}", fullmatch=True))


def write(challenge: Challenge) -> str:
    quoted = {name: text.replace("\\", "\\\\").replace('"', '\\"') for name, text in challenge.parameters.items()}
    rest = challenge.token68 or ", ".join(f'{name}="{text}"' for name, text in quoted.items())
    return f"{challenge.scheme} {rest}".strip()


@quick
@given(st.lists(by_parameters | by_token, max_size=4))
def test_parsing_undoes_writing(challenges: list[Challenge]) -> None:
    assert list(parse_challenges(", ".join(map(write, challenges)).encode("latin-1"))) == challenges


@quick
@given(st.binary(max_size=200) | st.text(', ="\\aB', max_size=60).map(str.encode))
def test_any_bytes(value: bytes) -> None:
    for challenge in parse_challenges(value):
        assert challenge.scheme and challenge.describe().isprintable()


def test_time_is_linear() -> None:
    for value in (b"a" * 100_000, b"a " * 50_000, b"a=" * 50_000, b'a="\\' * 25_000, b", " * 50_000, b"a ,=" * 20_000):
        parse_challenges(value)
