"""Every problem of somebody's PvD document, for the person who runs the proxy.

`model` answers "may this be used?" and stops where the answer is known; this goes on. Each part is judged by the very
parser that clients use: after a finding the part is repaired in a copy, and the parser is asked again. So the two can
never disagree about what is an error. `lint_proxies` and `lint_rules` also know what is legal and yet surely not meant;
`lint_http` looks at how the document is served.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import IPv6Network
from typing import Any

from masque_client.errors import ConfigurationError, PvdError
from masque_client.pvd.json_positions import JsonPositions
from masque_client.pvd.json_strict import MAX_BODY_BYTES, parse_object
from masque_client.pvd.lint_proxies import lint_proxies
from masque_client.pvd.lint_rules import lint_rules
from masque_client.pvd.model import MAX_LIFETIME, PvdDocument, parse_pvd
from masque_client.pvd.names import canonical_name
from masque_client.pvd.policy import ParsePolicy
from masque_client.pvd.problems import Finding, Problem, Severity
from masque_client.pvd.values import BadValue, Ignored, JsonObject, quoted

SOON = timedelta(hours=1)

# An operator may offer cleartext proxies; `lint_proxies` says who will not use them.
_POLICY = ParsePolicy(reached_over_tls=False)
_MANDATORY = ("identifier", "expires", "prefixes")


def lint(
    body: bytes,
    *,
    now: datetime,
    expected_identifier: str | None = None,
    ra_prefixes: Sequence[IPv6Network] | None = None,
) -> tuple[Problem, ...]:
    """All problems, in the order of the text. Clean documents give an empty result.

    Args:
        body: the document as served.
        now: the moment to compare `expires` with, aware.
        expected_identifier: the host it is served for; None skips the comparison.
        ra_prefixes: for a document of a router advertisement's PvD, the prefixes advertised; None for a proxy's.
    """
    try:
        text = body[: MAX_BODY_BYTES + 1].decode("utf-8")
    except UnicodeDecodeError as error:
        return (Problem(Severity.ERROR, "", f"the document is not UTF-8 (byte {error.start})"),)
    positions = JsonPositions.index(text)
    problems = [*_syntax_problems(body, positions)]
    if (document := _lenient(text)) is not None and len(body) <= MAX_BODY_BYTES:
        found = _content_problems(document, positions, now, expected_identifier, ra_prefixes)
        problems += [Problem(*finding, *positions.line_column(finding[1])) for finding in found]
    # Problems of the whole document stand first, those at one place in the order found.
    return tuple(sorted(dict.fromkeys(problems), key=lambda problem: (problem.line or 0, problem.column or 0)))


# --- syntax -----------------------------------------------------------------------------------------------------------


def _syntax_problems(body: bytes, positions: JsonPositions) -> Iterator[Problem]:
    for pointer, offset in positions.duplicates:
        message = "the member is repeated in one object; clients ignore the whole document"
        yield Problem(Severity.ERROR, pointer, message, *positions.at(offset))
    try:
        parse_object(body)
    except PvdError as error:
        if isinstance(error.__cause__, json.JSONDecodeError):
            cause = error.__cause__
            yield Problem(Severity.ERROR, "", f"not JSON: {cause.msg}", cause.lineno, cause.colno)
        elif not positions.duplicates:
            yield Problem(Severity.ERROR, "", str(error))


def _lenient(text: str) -> JsonObject | None:
    """The document as a careless reader sees it, to look for further problems in it; None when nobody can."""
    try:
        value = json.loads(text, parse_int=lambda digits: 0, parse_constant=lambda name: 0)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


# --- content ----------------------------------------------------------------------------------------------------------


def _content_problems(
    document: JsonObject,
    positions: JsonPositions,
    now: datetime,
    expected: str | None,
    ra_prefixes: Sequence[IPv6Network] | None,
) -> Iterator[Finding]:
    repaired = dict(document)
    fallback = _fallback(document, now, expected)
    for key in _MANDATORY:
        if key not in document:
            yield Severity.ERROR, "", f"the key {key} is missing; clients ignore the whole document"
            repaired[key] = fallback[key]
    expected = expected or fallback["identifier"]
    parsed: PvdDocument | None = None
    while parsed is None:
        try:
            # Fresh JSON: the text may have been refused for its syntax, and its parts are of interest all the same.
            body = json.dumps(repaired, ensure_ascii=False).encode("utf-8", "replace")
            parsed = parse_pvd(
                body, expected_identifier=expected, now=now, from_ra_prefixes=ra_prefixes, policy=_POLICY
            )
        except PvdError as error:
            cause = error.__cause__
            key = cause.pointer.split("/")[1] if isinstance(cause, BadValue) and cause.pointer else ""
            if not isinstance(cause, BadValue) or repaired.get(key) == fallback.get(key):
                if isinstance(cause, BadValue):
                    yield Severity.ERROR, cause.pointer, cause.reason
                return  # a syntax problem, reported already, or one that cannot be repaired
            hint = _http_date_hint(document) if key == "expires" else ""
            yield Severity.ERROR, cause.pointer, f"{cause.reason}{hint}; clients ignore the whole document"
            repaired[key] = fallback[key]
            if key == "prefixes" and ra_prefixes is not None:
                ra_prefixes = ()
    if repaired["expires"] == document.get("expires"):
        yield from _expiry_problems(repaired["expires"], parsed.expires - now)
    yield from _ignored_problems(parsed)
    yield from lint_proxies(document, parsed, positions)
    yield from lint_rules(document, parsed)


def _fallback(document: JsonObject, now: datetime, expected: str | None) -> dict[str, Any]:
    """Good values for the mandatory keys."""
    identifier = expected or "repaired.invalid"
    if expected is None:
        try:
            identifier = canonical_name(document.get("identifier", ""))
        except (ConfigurationError, AttributeError, TypeError):
            pass
    return {"identifier": identifier, "expires": (now + timedelta(days=1)).isoformat(), "prefixes": []}


def _http_date_hint(document: JsonObject) -> str:
    try:
        date = parsedate_to_datetime(document["expires"])
    except (ValueError, TypeError, AttributeError, OverflowError):
        return ""
    return f" but an HTTP-date: write {date:%Y-%m-%dT%H:%M:%SZ}"


def _expiry_problems(text: str, left: timedelta) -> Iterator[Finding]:
    if left < SOON:
        yield Severity.WARNING, "/expires", f"the document expires in {int(left.total_seconds() // 60)} minutes"
    if left > MAX_LIFETIME:
        yield Severity.NOTE, "/expires", f"masque-connect keeps a document for {MAX_LIFETIME.days} days at most"
    if not (text.endswith("Z") and "T" in text and "." not in text):
        yield Severity.NOTE, "/expires", "some clients read only the form 2027-01-31T12:00:00Z"


def _ignored_problems(parsed: PvdDocument) -> Iterator[Finding]:
    """Whole keys that are ignored. Entries and rules are looked at by `lint_proxies` and `lint_rules`."""
    for ignored in parsed.ignored:
        if ignored.pointer.count("/") != 1:
            continue
        if ignored.pointer in ("/proxies", "/proxy-match"):
            inner = Ignored(*ignored.reason.split(": ", 1)) if ": " in ignored.reason else ignored
            message = f"{inner.reason}; clients ignore all proxies and rules"
            yield Severity.ERROR, inner.pointer, message
        elif ignored.reason == "not a known key":
            yield (
                Severity.WARNING,
                ignored.pointer,
                f"{ignored.reason}: a typing error? ({quoted(ignored.pointer[1:])})",
            )
        else:
            inner_pointer, _, reason = ignored.reason.rpartition(": ")
            pointer = ignored.pointer + inner_pointer if inner_pointer.startswith("/") else ignored.pointer
            yield Severity.ERROR, pointer, f"{reason or ignored.reason}; clients ignore the key"
    if not parsed.proxies and not parsed.is_proxy_configuration_ignored:
        yield Severity.WARNING, "/proxies", "the document offers no proxy that clients can use"
