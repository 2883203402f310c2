"""The HTTP/3 rules that neither library enforces in full, so that both engines judge a peer alike.

Sources: RFC 9114 §4.1-4.3, §5.2, §7.2; RFC 9220 §3; RFC 9297 §2.1.1. Every violation is a `RemoteProtocolError`;
its `connection_error` says whether the connection or only the request stream goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from masque_client.engine import grease
from masque_client.engine.interface import EngineConfiguration, Header
from masque_client.errors import ProxyRefused, RemoteProtocolError
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.varint import parse_varint

QPACK_MAX_TABLE_CAPACITY = 0x01
MAX_FIELD_SECTION_SIZE = 0x06
QPACK_BLOCKED_STREAMS = 0x07
ENABLE_CONNECT_PROTOCOL = 0x08
H3_DATAGRAM = 0x33

MAX_DATAGRAM_FRAME_SIZE = 65535
"""What we advertise: any DATAGRAM frame that fits a packet (RFC 9221 §3)."""

_HTTP2_SETTINGS = frozenset({0x00, 0x02, 0x03, 0x04, 0x05})
_HTTP2_FRAMES = frozenset({0x02, 0x06, 0x08, 0x09})
_CONTROL_STREAM = 0x00
_GOAWAY = 0x07
_CONNECTION_SPECIFIC = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_REQUEST_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})
_RESPONSE_PSEUDO = frozenset({b":status"})


def settings_to_send(configuration: EngineConfiguration) -> dict[int, int]:
    """Our SETTINGS. No QPACK dynamic table: our messages are few, and a blocked stream is a stalled tunnel."""
    settings = {QPACK_MAX_TABLE_CAPACITY: 0, QPACK_BLOCKED_STREAMS: 0}
    if not configuration.is_client and configuration.extended_connect:
        settings[ENABLE_CONNECT_PROTOCOL] = 1
    if configuration.h3_datagram:
        settings[H3_DATAGRAM] = 1
    if configuration.grease:
        settings |= grease.http3_setting()
    return settings


def check_settings(settings: Mapping[int, int]) -> None:
    """Check the peer's SETTINGS: no HTTP/2 leftovers, boolean values where they are booleans.

    Raises:
        RemoteProtocolError: H3_SETTINGS_ERROR (RFC 9114 §7.2.4.1, RFC 8441 §3, RFC 9297 §2.1.1).
    """
    for identifier in settings.keys() & _HTTP2_SETTINGS:
        raise _connection_error(
            f"SETTINGS hold 0x{identifier:x}, which is reserved", "RFC 9114 §7.2.4.1", H3ErrorCode.H3_SETTINGS_ERROR
        )
    for identifier, clause in ((ENABLE_CONNECT_PROTOCOL, "RFC 8441 §3"), (H3_DATAGRAM, "RFC 9297 §2.1.1")):
        if settings.get(identifier, 0) not in (0, 1):
            raise _connection_error(
                f"SETTINGS 0x{identifier:x} is neither 0 nor 1", clause, H3ErrorCode.H3_SETTINGS_ERROR
            )


def check_size(headers: Sequence[Header], limit: int | None, peer: str) -> None:
    """See that a request is no larger than the peer takes, and says it takes (RFC 9114 §4.2.2, RFC 9113 §10.5.1).

    Raises:
        ProxyRefused: it is. Nearly all of it must be the user's header fields.
    """
    size = sum(len(name) + len(value) + 32 for name, value in headers)
    if limit is not None and size > limit:
        raise ProxyRefused(
            f"{peer} takes {limit} bytes of header fields and the request has {size}",
            hint="send fewer or shorter header fields, or a shorter token",
        )


def check_request(headers: Sequence[Header]) -> None:
    """Check the form of a request's header section (RFC 9114 §4.2, §4.3; RFC 8441 §4).

    Raises:
        RemoteProtocolError: malformed: a stream error H3_MESSAGE_ERROR.
    """
    pseudo = _check_fields(headers, _REQUEST_PSEUDO)
    if b":method" not in pseudo:
        raise _malformed("a request has no :method", "RFC 9114 §4.3.1")
    if b":protocol" in pseudo:
        missing = [name.decode() for name in (b":scheme", b":authority", b":path") if not pseudo.get(name)]
        if missing or pseudo[b":method"] != b"CONNECT":
            raise _malformed(f"an extended CONNECT lacks {', '.join(missing) or 'its method'}", "RFC 8441 §4")


def check_response(headers: Sequence[Header]) -> int:
    """Check the form of a response's header section and return its status (RFC 9114 §4.2, §4.3.2, §4.5).

    Raises:
        RemoteProtocolError: malformed: a stream error H3_MESSAGE_ERROR.
    """
    status = _check_fields(headers, _RESPONSE_PSEUDO).get(b":status", b"")
    if len(status) != 3 or not status.isdigit() or status == b"101" or status < b"100":
        raise _malformed(f"a response has the status {status!r}", "RFC 9114 §4.3.2")
    return int(status)


def _check_fields(headers: Sequence[Header], allowed_pseudo: frozenset[bytes]) -> dict[bytes, bytes]:
    pseudo: dict[bytes, bytes] = {}
    regular_seen = False
    for name, value in headers:
        if name.startswith(b":"):
            if regular_seen or name not in allowed_pseudo or name in pseudo:
                raise _malformed(f"{name!r} is misplaced", "RFC 9114 §4.3")
            pseudo[name] = value
            continue
        regular_seen = True
        if name != name.lower() or not name or name in _CONNECTION_SPECIFIC:
            raise _malformed(f"field name {name!r} is not allowed", "RFC 9114 §4.2")
        if name == b"te" and value.lower() != b"trailers":
            raise _malformed("TE is not `trailers`", "RFC 9114 §4.2")
    return pseudo


@dataclass(slots=True)
class RequestStream:
    """What an engine remembers of one request stream, from HEADERS until both halves are closed.

    Attributes:
        quarter_id: the encoded Quarter Stream ID, which starts each of its HTTP Datagrams.
        is_tunnel: the request was an extended CONNECT, so HTTP Datagrams have a meaning on it (RFC 9297 §2).
        has_final_headers: the request (server) or the final response (client) has been received.
        is_established: client: that response was a 2xx, so only DATA may follow (RFC 9114 §4.4).
    """

    stream_id: int
    quarter_id: bytes
    is_tunnel: bool
    can_send: bool = True
    can_receive: bool = True
    has_final_headers: bool = False
    is_established: bool = False


class ControlStreamWatcher:
    """Reads along on the peer's control stream for what the libraries let pass: GOAWAY and HTTP/2 frame types.

    Feed it every byte of the peer's unidirectional streams, after the library has had its say on framing.
    """

    def __init__(self) -> None:
        self._untyped: dict[int, bytearray] = {}
        self._typed: set[int] = set()
        self._control: int | None = None
        self._buffer = bytearray()
        self._skip = 0

    def receive(self, stream_id: int, data: bytes) -> list[int]:
        """Take stream data and return the identifiers of the GOAWAY frames in it (RFC 9114 §5.2, §7.2.6).

        Raises:
            RemoteProtocolError: a connection error.
        """
        if stream_id not in self._typed:
            data = self._strip_type(stream_id, data)
        if stream_id != self._control:
            return []
        self._buffer += data
        return self._goaways()

    def _strip_type(self, stream_id: int, data: bytes) -> bytes:
        head = self._untyped.setdefault(stream_id, bytearray())
        head += data
        kind = parse_varint(head)
        if kind is None:
            return b""
        del self._untyped[stream_id]
        self._typed.add(stream_id)
        if kind[0] == _CONTROL_STREAM:
            self._control = stream_id
        return bytes(head[kind[1] :])

    def _goaways(self) -> list[int]:
        found: list[int] = []
        while True:
            skipped = min(self._skip, len(self._buffer))
            del self._buffer[:skipped]
            self._skip -= skipped
            kind = parse_varint(self._buffer)
            length = parse_varint(self._buffer, kind[1]) if kind else None
            if kind is None or length is None:
                return found
            if kind[0] in _HTTP2_FRAMES:
                raise _connection_error(
                    f"frame type 0x{kind[0]:x} is reserved", "RFC 9114 §7.2.8", H3ErrorCode.H3_FRAME_UNEXPECTED
                )
            if kind[0] != _GOAWAY:
                del self._buffer[: length[1]]
                self._skip = length[0]
                continue
            if length[0] > 8:
                raise frame_error("GOAWAY is too long")
            end = length[1] + length[0]
            if len(self._buffer) < end:
                return found
            identifier = parse_varint(self._buffer[length[1] : end])
            if identifier is None or identifier[1] != length[0]:
                raise frame_error("GOAWAY is malformed")
            found.append(identifier[0])
            del self._buffer[:end]


def check_goaway(identifier: int, previous: int | None, *, is_client: bool) -> None:
    """Check a GOAWAY: a server names a request stream, and nobody takes promises back (RFC 9114 §5.2, H-16).

    Raises:
        RemoteProtocolError: H3_ID_ERROR, a connection error.
    """
    if (is_client and identifier % 4) or (previous is not None and identifier > previous):
        raise _connection_error(f"GOAWAY names {identifier}", "RFC 9114 §5.2", H3ErrorCode.H3_ID_ERROR)


def trailers_in_tunnel() -> RemoteProtocolError:
    """Only DATA may follow a successful CONNECT (RFC 9114 §4.4, H-22)."""
    return _connection_error("HEADERS inside a tunnel", "RFC 9114 §4.4", H3ErrorCode.H3_FRAME_UNEXPECTED)


def push_received() -> RemoteProtocolError:
    """We never send MAX_PUSH_ID, so every push exceeds it (RFC 9114 §4.6, H-9)."""
    return _connection_error("a push was not allowed", "RFC 9114 §4.6", H3ErrorCode.H3_ID_ERROR)


def server_opened_stream() -> RemoteProtocolError:
    """A server opens no bidirectional streams (RFC 9114 §6.1, H-5)."""
    return _connection_error(
        "the server opened a bidirectional stream", "RFC 9114 §6.1", H3ErrorCode.H3_STREAM_CREATION_ERROR
    )


def frame_error(message: str) -> RemoteProtocolError:
    """A frame whose length and fields disagree, or which ends with the stream (RFC 9114 §7.1, H-11)."""
    return _connection_error(message, "RFC 9114 §7.1", H3ErrorCode.H3_FRAME_ERROR)


def datagram_beyond_limit(stream_id: int) -> RemoteProtocolError:
    """An HTTP Datagram for a stream that the peer may not even open (RFC 9297 §2.1, D-7)."""
    return _connection_error(
        f"a datagram for stream {stream_id}, over the limit", "RFC 9297 §2.1", H3ErrorCode.H3_ID_ERROR
    )


def datagram_without_meaning() -> RemoteProtocolError:
    """An HTTP Datagram on a request that defines none: that request ends (RFC 9297 §2, D-1)."""
    return RemoteProtocolError(
        "a datagram for a request without datagrams", clause="RFC 9297 §2", code=H3ErrorCode.H3_DATAGRAM_ERROR
    )


def incomplete_response() -> RemoteProtocolError:
    """The stream ended before a final response (RFC 9114 §4.1)."""
    return _malformed("the response ended before its headers", "RFC 9114 §4.1")


def _malformed(message: str, clause: str) -> RemoteProtocolError:
    return RemoteProtocolError(message, clause=clause, code=H3ErrorCode.H3_MESSAGE_ERROR)


def _connection_error(message: str, clause: str, code: H3ErrorCode) -> RemoteProtocolError:
    return RemoteProtocolError(message, clause=clause, code=code, connection_error=True)
