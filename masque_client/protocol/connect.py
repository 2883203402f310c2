"""Extended CONNECT (RFC 9220): the request for a tunnel, and the judgement of its answer.

Client: `udp_request_headers` or `ip_request_headers`, sent without ending the stream; each header section that comes
back goes to `judge_response`. Proxy: `parse_connect_request`, then `accept_headers` or `refuse_headers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from masque_client.errors import AuthenticationRefused, ConfigurationError, LocalProtocolError, ProxyRefused
from masque_client.protocol.challenges import CHALLENGE_FIELDS, challenges_of
from masque_client.protocol.headers import (
    CAPSULE_PROTOCOL,
    CONNECTION_FIELDS,
    CONTENT_FIELDS,
    Header,
    Headers,
    field_values,
    has_capsule_protocol,
    malformed,
    printable,
    split_pseudo_headers,
)
from masque_client.protocol.proxy_status import ProxyStatus
from masque_client.protocol.uri_template import RequestTarget

CONNECT_UDP = "connect-udp"
CONNECT_IP = "connect-ip"
"""Upgrade tokens: RFC 9298 §3, RFC 9484 §4."""

_NOT_FOR_USERS = CONNECTION_FIELDS | CONTENT_FIELDS | {b"host", b"te", CAPSULE_PROTOCOL[0]}
_TOKEN_BYTES = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_REQUEST_PSEUDO = frozenset({b":method", b":protocol", b":scheme", b":path", b":authority"})
_RESPONSE_PSEUDO = frozenset({b":status"})
_SWITCHING_PROTOCOLS = 101
_NO_TUNNEL_SUCCESSES = frozenset({204, 205, 206})

_HINTS: Mapping[int, str] = {
    400: "the proxy's template may differ from the one used; check the URL",
    403: "the proxy knows you but does not allow this tunnel or destination; ask its operator",
    404: "the template's path is wrong; check the URL, or run `masque-connect discover` on the host",
    405: "the template's path is not a MASQUE resource; check the URL",
    410: "this MASQUE resource was removed; look for the proxy's new URL",
    421: "this host does not serve the proxy's name; check the URL",
    425: "try again; the proxy does not accept early data",
    426: "the proxy wants another protocol; check the URL",
    429: "too many requests; try again later",
    431: "the request's header section is too large; send fewer or shorter header fields",
    501: "the proxy does not offer this tunnel type",
    503: "the proxy is overloaded or in maintenance; try again later",
}
_HINT_4XX = "the proxy rejects the request; check the URL and your options"
_HINT_5XX = "the proxy failed or cannot reach the destination; try again later or another destination"


@dataclass(frozen=True, slots=True)
class Informational:
    """A 1xx; the final response is still to come."""

    status: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """A 2xx: the tunnel is open and the stream carries capsules. Whether the target answers is unknown."""

    status: int
    headers: tuple[Header, ...]
    proxy_status: ProxyStatus | None
    capsule_protocol: bool


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """Proxy: a well-formed extended CONNECT. `fields` are the regular header fields."""

    protocol: str
    authority: str
    scheme: str
    path: str
    fields: tuple[Header, ...]


# --- client -------------------------------------------------------------------------------------------------------


def udp_request_headers(target: RequestTarget, extra: Headers = ()) -> tuple[Header, ...]:
    """The request for a CONNECT-UDP tunnel (RFC 9298 §3.4). `extra`: the user's fields, such as credentials.

    Raises:
        ConfigurationError: a user's field is not allowed here.
    """
    return _request_headers(CONNECT_UDP, target, extra)


def ip_request_headers(target: RequestTarget, extra: Headers = ()) -> tuple[Header, ...]:
    """The request for a CONNECT-IP tunnel (RFC 9484 §4.4). See `udp_request_headers`."""
    return _request_headers(CONNECT_IP, target, extra)


def _request_headers(protocol: str, target: RequestTarget, extra: Headers) -> tuple[Header, ...]:
    return (
        (b":method", b"CONNECT"),
        (b":protocol", protocol.encode()),
        (b":scheme", target.scheme.encode()),
        (b":path", target.path.encode()),
        (b":authority", target.authority.encode()),
        CAPSULE_PROTOCOL,
        *(_checked_user_field(name.lower(), value.strip()) for name, value in extra),
    )


def _checked_user_field(name: bytes, value: bytes) -> Header:
    """Keep users from making our request malformed (RFC 9110 §5, RFC 9297 §3.2)."""
    if not name or not _TOKEN_BYTES.issuperset(name):
        raise ConfigurationError(f"{printable(name)!r} is not a header field name")
    if name in _NOT_FOR_USERS:
        raise ConfigurationError(f"the header field {name.decode()} cannot be set on a tunnel request")
    if any(byte in value for byte in b"\r\n\0"):
        raise ConfigurationError(f"the value of the header field {name.decode()} has a line break")
    return name, value


def judge_response(headers: Headers, *, protocol: str, now_wall: float | None = None) -> Informational | Accepted:
    """Decide what a response header section means for the tunnel.

    Args:
        headers: as received, pseudo-header fields included.
        protocol: the upgrade token, for messages.
        now_wall: seconds since the epoch, to turn a Retry-After date into seconds.

    Raises:
        AuthenticationRefused: 401 or 407.
        ProxyRefused: any other final status that is no success. Redirects are not followed (RFC 9298 §3.5).
        RemoteProtocolError: malformed, or a success that cannot carry capsules; reset the stream with its code.
    """
    pseudo, fields = split_pseudo_headers(headers, _RESPONSE_PSEUDO)
    status = _parse_status(pseudo.get(b":status"))
    if status == _SWITCHING_PROTOCOLS:
        raise malformed("the proxy answered 101, which only HTTP/1.1 has", "RFC 9114 §4.5")
    if status < 200:
        return Informational(status)
    if status < 300:
        return _judge_success(status, fields)
    raise _refusal(status, fields, protocol, now_wall)


def _parse_status(value: bytes | None) -> int:
    if value is None:
        raise malformed("the response has no :status", "RFC 9114 §4.3.2")
    if len(value) != 3 or not value.isdigit() or not 100 <= int(value) <= 599:
        raise malformed(f"{value!r} is not a status code", "RFC 9114 §4.3.2")
    return int(value)


def _judge_success(status: int, fields: tuple[Header, ...]) -> Accepted:
    if status in _NO_TUNNEL_SUCCESSES:
        raise malformed(f"the proxy answered {status}, which cannot carry a tunnel", "RFC 9297 §3.2")
    for name, _ in fields:
        if name in CONTENT_FIELDS:
            raise malformed(f"the proxy answered {status} with {name.decode()}", "RFC 9297 §3.2")
    return Accepted(status, fields, ProxyStatus.parse(fields), has_capsule_protocol(fields))


def _refusal(
    status: int, fields: tuple[Header, ...], protocol: str, now_wall: float | None
) -> AuthenticationRefused | ProxyRefused:
    proxy_status = ProxyStatus.parse(fields)
    message = f"the proxy answered {_in_words(status)} to {protocol}"
    if proxy_status is not None:
        message += f": {proxy_status.describe()}"
    if status in CHALLENGE_FIELDS:
        challenges = challenges_of(status, fields)
        wanted = " or ".join(challenge.describe() for challenge in challenges)
        message += f" and wants {wanted}" if wanted else " without saying how to authenticate"
        return AuthenticationRefused(message, status=status, schemes=tuple(each.scheme for each in challenges))
    if status < 400:
        location = next(field_values(fields, b"location"), None)
        hint = "redirects are not followed; give the proxy's final URL"
        if location:
            message += f" with a redirect to {printable(location)}"
    else:
        hint = _HINTS.get(status, _HINT_4XX if status < 500 else _HINT_5XX)
    return ProxyRefused(
        message,
        status=status,
        proxy_status=proxy_status.text if proxy_status else None,
        retry_after_s=_parse_retry_after(fields, now_wall),
        hint=hint,
    )


def _in_words(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _parse_retry_after(fields: Headers, now_wall: float | None) -> float | None:
    """Seconds, or a date relative to `now_wall` (RFC 9110 §10.2.3); None when absent or unreadable."""
    value = next(field_values(fields, b"retry-after"), b"").strip()
    if value.isdigit() and len(value) <= 9:
        return float(value)
    if now_wall is None:
        return None
    try:
        return max(0.0, parsedate_to_datetime(value.decode("latin-1")).timestamp() - now_wall)
    except (ValueError, OverflowError):
        return None


# --- proxy --------------------------------------------------------------------------------------------------------


def parse_connect_request(headers: Headers) -> ConnectRequest:
    """Proxy: check a request header section. Whether `protocol` and `path` are served is the caller's decision.

    Raises:
        RemoteProtocolError: malformed, or no extended CONNECT (RFC 8441 §4, RFC 9297 §3.2); reset with its code.
    """
    pseudo, fields = split_pseudo_headers(headers, _REQUEST_PSEUDO)
    if pseudo.get(b":method") != b"CONNECT" or b":protocol" not in pseudo:
        raise malformed("the request is no extended CONNECT", "RFC 8441 §4")
    for name in sorted(_REQUEST_PSEUDO):
        if not pseudo.get(name):
            raise malformed(f"the request lacks {name.decode()}", "RFC 8441 §4")
    for name, _ in fields:
        if name in CONTENT_FIELDS:
            raise malformed(f"the request has {name.decode()}", "RFC 9297 §3.2")
    for name, value in pseudo.items():
        if not all(0x21 <= byte <= 0x7E for byte in value):
            raise malformed(f"{name.decode()} has characters outside printable ASCII", "RFC 9114 §4.3.1")
    text = {name: value.decode() for name, value in pseudo.items()}
    return ConnectRequest(text[b":protocol"], text[b":authority"], text[b":scheme"], text[b":path"], fields)


def accept_headers(extra: Headers = ()) -> tuple[Header, ...]:
    """Proxy: the 200 that opens the tunnel (RFC 9297 §3.4)."""
    return ((b":status", b"200"), CAPSULE_PROTOCOL, *extra)


def refuse_headers(status: int, extra: Headers = ()) -> tuple[Header, ...]:
    """Proxy: a refusal; never with Capsule-Protocol (RFC 9297 §3.4). Put a Proxy-Status field in `extra`."""
    if not 300 <= status <= 599:
        raise LocalProtocolError(f"{status} is not a refusal")
    return ((b":status", str(status).encode()), *extra)
