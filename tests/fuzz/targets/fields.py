"""Header sections: structured fields, challenges, and the judgement of responses and requests."""

from __future__ import annotations

import math

from masque_client.errors import AuthenticationRefused, ProxyRefused, RemoteProtocolError
from masque_client.protocol.challenges import challenges_of, parse_challenges
from masque_client.protocol.connect import judge_response, parse_connect_request
from masque_client.protocol.headers import has_capsule_protocol
from masque_client.protocol.proxy_status import ProxyStatus
from tests.fuzz.harness import FuzzOne

WORDS = (
    b":status: 200", b":status: 503", b":status: 401", b"proxy-status: ", b"capsule-protocol: ?1", b"retry-after: ",
    b"Sun, 22 Nov 2026 12:00:00 GMT", b"www-authenticate: ", b"location: ", b"content-length: 0", b"te: trailers",
    b":method: CONNECT", b":protocol: connect-ip", b":scheme: https", b":authority: p", b":path: /", b"error=",
    b"details=", b"next-hop=", b"received-status=", b"dns_error", b"@1659578233", b"%\"%c3%bc\"",
)  # fmt: skip


def make() -> FuzzOne:
    """Input: a header section, lines of `name: value`; the first line's value is also tried as any field."""
    return fuzz_one


def fuzz_one(data: bytes) -> None:
    headers = [split(line) for line in data.split(b"\n")]
    for judge in (
        lambda: judge_response(headers, protocol="connect-ip", now_wall=1e9),
        lambda: parse_connect_request(headers),
    ):
        try:
            judge()
        except (RemoteProtocolError, ProxyRefused, AuthenticationRefused) as error:
            assert str(error).isprintable() and error.hint.isprintable()
            wait = getattr(error, "retry_after_s", None)
            assert wait is None or (wait >= 0 and math.isfinite(wait))
    value = headers[0][1]
    for challenge in (*parse_challenges(value), *challenges_of(401, headers)):
        assert challenge.scheme == challenge.scheme.lower()
    has_capsule_protocol([(b"capsule-protocol", value)])
    status = ProxyStatus.parse([(b"proxy-status", value), *headers])
    assert status is not None and status.describe().isprintable()


def split(line: bytes) -> tuple[bytes, bytes]:
    """Name and value; the colon of a pseudo-header field's name is not the one between them."""
    name, _, value = line[1:].partition(b":")
    return line[:1] + name, value.strip()
