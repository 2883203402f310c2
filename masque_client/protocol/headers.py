"""Header sections as MASQUE sees them: well-formedness, and the Capsule-Protocol field.

Both ends use it: the client judges responses, a proxy judges requests (`connect.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import http_sf

from masque_client.errors import RemoteProtocolError

Header = tuple[bytes, bytes]
"""A field line: lower-case name, value."""
Headers = Sequence[Header]

CAPSULE_PROTOCOL: Header = (b"capsule-protocol", b"?1")

CONNECTION_FIELDS = frozenset({b"connection", b"upgrade", b"keep-alive", b"proxy-connection", b"transfer-encoding"})
"""Belong to HTTP/1.1; malformed elsewhere (RFC 9114 §4.2)."""
CONTENT_FIELDS = frozenset({b"content-length", b"content-type", b"transfer-encoding"})
"""Malformed on any message that speaks the Capsule Protocol (RFC 9297 §3.2)."""


def split_pseudo_headers(headers: Headers, allowed: frozenset[bytes]) -> tuple[dict[bytes, bytes], tuple[Header, ...]]:
    """Separate pseudo-header fields from the others.

    Raises:
        RemoteProtocolError: the section is malformed (RFC 9114 §4.2, §4.3): an upper-case or empty name, a
            pseudo-header field that is unknown, doubled or late, or a field of HTTP/1.1.
    """
    pseudo: dict[bytes, bytes] = {}
    fields: list[Header] = []
    for name, value in headers:
        if not name or name != name.lower():
            raise malformed(f"the field name {name!r} is empty or has upper-case letters")
        if not name.startswith(b":"):
            if name in CONNECTION_FIELDS or (name == b"te" and value.strip() != b"trailers"):
                raise malformed(f"the field {name.decode('latin-1')} belongs to HTTP/1.1")
            fields.append((name, value))
        elif fields:
            raise malformed(f"the pseudo-header field {name!r} comes after regular fields", "RFC 9114 §4.3")
        elif name not in allowed or name in pseudo:
            raise malformed(f"the pseudo-header field {name!r} is unexpected or doubled", "RFC 9114 §4.3")
        else:
            pseudo[name] = value
    return pseudo, tuple(fields)


def malformed(message: str, clause: str = "RFC 9114 §4.2") -> RemoteProtocolError:
    """A malformed message: a stream error H3_MESSAGE_ERROR (RFC 9114 §4.1.2)."""
    return RemoteProtocolError(message, clause=clause)


def field_values(headers: Headers, name: bytes) -> Iterator[bytes]:
    """Every value of one field, in order."""
    return (value for field, value in headers if field == name)


def may_be_secret(name: bytes) -> bool:
    """Whether a field of ours may hold a credential: users give them in fields of any name (`--header-file`)."""
    return not name.startswith(b":") and name != CAPSULE_PROTOCOL[0]


def has_capsule_protocol(headers: Headers) -> bool:
    """Whether the Capsule-Protocol field says yes. Anything but one boolean Item is as good as absent.

    Never refuse a 2xx that lacks it: sending it is only a SHOULD (RFC 9297 §3.4).
    """
    values = list(field_values(headers, CAPSULE_PROTOCOL[0]))
    if len(values) != 1:
        return False
    try:
        item = http_sf.parse(values[0], tltype="item")
    except http_sf.StructuredFieldError:
        return False
    return isinstance(item, tuple) and item[0] is True


def printable(value: bytes, limit: int = 500) -> str:
    """Peer text made safe for a terminal: printable ASCII only, bounded."""
    text = "".join(character for character in value.decode("latin-1") if " " <= character <= "~")
    return text if len(text) <= limit else text[:limit] + "…"
