"""The Quarter Stream ID in front of every HTTP/3 Datagram (RFC 9297 §2.1). It is never found inside a capsule."""

from __future__ import annotations

from masque_client.errors import LocalProtocolError, RemoteProtocolError
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.varint import encode_varint, parse_varint

MAX_QUARTER_STREAM_ID = (1 << 60) - 1


def encode_quarter_stream_id(stream_id: int) -> bytes:
    """Encode `stream_id / 4`; put it before the HTTP Datagram Payload.

    Raises:
        LocalProtocolError: not a client-initiated bidirectional stream id (RFC 9000 §2.1).
    """
    if stream_id % 4 or not 0 <= stream_id // 4 <= MAX_QUARTER_STREAM_ID:
        raise LocalProtocolError(f"stream {stream_id} cannot carry HTTP Datagrams: it is not a request stream")
    return encode_varint(stream_id // 4)


def parse_h3_datagram(data: bytes | bytearray | memoryview) -> tuple[int, int]:
    """Find out whose the content of a QUIC DATAGRAM frame is.

    Returns:
        `(stream id, offset of the HTTP Datagram Payload)`.

    Raises:
        RemoteProtocolError: no complete Quarter Stream ID, or one over 2^60-1; close the connection with its code.
    """
    if data and (first := data[0]) < 0x40:  # nearly always
        return first * 4, 1
    parsed = parse_varint(data)
    if parsed is None:
        raise _datagram_error("a QUIC DATAGRAM is too short for a Quarter Stream ID")
    quarter, offset = parsed
    if quarter > MAX_QUARTER_STREAM_ID:
        raise _datagram_error(f"Quarter Stream ID {quarter} is over 2^60-1")
    return quarter * 4, offset


def _datagram_error(message: str) -> RemoteProtocolError:
    return RemoteProtocolError(
        message, clause="RFC 9297 §2.1", code=H3ErrorCode.H3_DATAGRAM_ERROR, connection_error=True
    )
