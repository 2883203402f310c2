"""Challenges: how a server says what credentials it wants (RFC 9110 §11.3). Parsed leniently; untrusted text.

    challenge = auth-scheme [ 1*SP ( token68 / #auth-param ) ]

Several may stand in one field value, and the field may come several times. The comma that parts two challenges looks
like the one that parts two parameters; what tells them apart is that a parameter has a `=` behind its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from masque_client.protocol.headers import Headers, field_values, printable

CHALLENGE_FIELDS: Final[Mapping[int, bytes]] = {401: b"www-authenticate", 407: b"proxy-authenticate"}
"""Where each status carries its challenges (RFC 9110 §11.6.1, §11.7.1)."""
CREDENTIALS_FIELDS: Final[Mapping[int, bytes]] = {401: b"authorization", 407: b"proxy-authorization"}
"""What answers them. Never one with the other's (digest A-1)."""
MAX_CHALLENGES = 16
"""More are not looked at."""

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_SPACE = r"[ \t]*"
_SCHEME = re.compile(rf"({_TOKEN})(?= |{_SPACE}(?:,|$))")
_TOKEN68 = re.compile(rf" +([A-Za-z0-9\-._~+/]+=*)(?={_SPACE}(?:,|$))")
_PARAMETER = re.compile(rf'{_SPACE}({_TOKEN}){_SPACE}={_SPACE}(?:({_TOKEN})|"((?:[^"\\]|\\.)*)")(?={_SPACE}(?:,|$))')
_COMMA = re.compile(rf"(?:{_SPACE},)+{_SPACE}")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate.

    Attributes:
        scheme: in lower case, such as `basic`.
        token68: what some schemes have instead of parameters.
        parameters: names in lower case; of a name that comes twice, the first value.
    """

    scheme: str
    token68: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """For a message: `Basic`, or `Basic (realm "staff")`."""
        name = printable(self.scheme.encode(), 40).capitalize()
        realm = self.parameters.get("realm")
        return name if not realm else f'{name} (realm "{printable(realm.encode("latin-1"), 80)}")'


def challenges_of(status: int, fields: Headers) -> tuple[Challenge, ...]:
    """The challenges of a 401 or 407 (RFC 9110 §15.5.2, §15.5.8), in order. Never raises; none for other statuses."""
    name = CHALLENGE_FIELDS.get(status)
    if name is None:
        return ()
    found = [challenge for value in field_values(fields, name) for challenge in parse_challenges(value)]
    return tuple(found[:MAX_CHALLENGES])


def parse_challenges(value: bytes) -> tuple[Challenge, ...]:
    """Read one field value. What is malformed ends it: the challenges before it count, it and what follows do not."""
    text = value.decode("latin-1").strip(" \t")
    found: list[Challenge] = []
    position = _skip_commas(text, 0)
    while position < len(text) and len(found) < MAX_CHALLENGES and (scheme := _SCHEME.match(text, position)):
        name = scheme[1].lower()
        position = scheme.end()
        if token68 := _TOKEN68.match(text, position):
            challenge, position = Challenge(name, token68[1]), token68.end()
        else:
            parameters, position = _parse_parameters(text, position)
            challenge = Challenge(name, None, parameters)
        comma = _COMMA.match(text, position)
        if comma is None and text[position:].strip(" \t"):
            break
        found.append(challenge)
        position = comma.end() if comma else len(text)
    return tuple(found)


def _parse_parameters(text: str, position: int) -> tuple[dict[str, str], int]:
    """Those from `position` on, and where they end: before the comma in front of the next scheme, if there is one."""
    parameters: dict[str, str] = {}
    parameter = _PARAMETER.match(text, position)
    while parameter is not None:
        name, token, quoted = parameter.groups()
        parameters.setdefault(name.lower(), token if token is not None else re.sub(r"\\(.)", r"\1", quoted))
        position = parameter.end()
        comma = _COMMA.match(text, position)
        parameter = _PARAMETER.match(text, comma.end()) if comma else None
    return parameters, position


def _skip_commas(text: str, position: int) -> int:
    """An empty list element is no element (RFC 9110 §5.6.1)."""
    comma = _COMMA.match(text, position)
    return comma.end() if comma else position
