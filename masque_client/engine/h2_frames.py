"""Reads along on HTTP/2's framing for what the library would get wrong (RFC 9113 §4.1).

The library takes any GOAWAY for the end of the connection and refuses to send after it; but a proxy that is about to
restart says GOAWAY and goes on serving the requests it has (RFC 9113 §6.8). So GOAWAY frames are taken out of the
byte stream before the library sees them. Nor does it check that the first frame is SETTINGS (RFC 9113 §3.4), or a
frame's length before it has collected all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from masque_client.errors import RemoteProtocolError
from masque_client.protocol.error_codes import H3ErrorCode

HEADER_BYTES = 9
_SETTINGS, _GOAWAY = 0x4, 0x7


@dataclass(frozen=True, slots=True)
class GoAway:
    """A GOAWAY frame. `last_stream_id` is the last request that was or might be processed."""

    last_stream_id: int
    error_code: int
    debug_data: bytes


def encode_setting(identifier: int, value: int) -> bytes:
    """A whole SETTINGS frame with one setting (RFC 9113 §6.5.1)."""
    setting = identifier.to_bytes(2) + value.to_bytes(4)
    return len(setting).to_bytes(3) + bytes([_SETTINGS, 0]) + bytes(4) + setting


class FrameReader:
    """Splits the peer's bytes into GOAWAY frames and everything else, which passes unparsed.

    Args:
        max_frame_bytes: what our SETTINGS allow. The library would collect a longer frame before it complains.
        preface_bytes: how many bytes come before the first frame (the client's connection preface, RFC 9113 §3.4).
    """

    def __init__(self, max_frame_bytes: int, preface_bytes: int) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._skip = preface_bytes
        self._held = b""
        self._is_first = True

    def receive_data(self, data: bytes) -> Iterator[bytes | GoAway]:
        """Take bytes, cut anywhere; yields bytes for the library and GOAWAY frames, in order.

        Raises:
                RemoteProtocolError: a connection error: no SETTINGS first, a frame too long, or a malformed GOAWAY.
        """
        if self._held:
            data, self._held = self._held + data, b""
        passed, position = 0, self._skip
        while position + HEADER_BYTES <= len(data):
            length, type_ = int.from_bytes(data[position : position + 3]), data[position + 3]
            if length > self._max_frame_bytes:
                raise _frame_error(f"a frame of {length} bytes, more than {self._max_frame_bytes}")
            end = position + HEADER_BYTES + length
            if self._is_first:
                self._check_first(type_)
            if type_ == _GOAWAY:
                if end > len(data):
                    break
                if passed < position:
                    yield data[passed:position]
                passed = end
                yield _parse_goaway(data[position:end])
            position = end
        cut = min(position, len(data))
        self._skip, self._held = position - cut, data[cut:]
        if passed < cut:
            yield data[passed:cut]

    def _check_first(self, type_: int) -> None:
        self._is_first = False
        if type_ != _SETTINGS:
            raise RemoteProtocolError(
                f"the first frame is of type 0x{type_:x} instead of SETTINGS",
                clause="RFC 9113 §3.4",
                code=H3ErrorCode.H3_MISSING_SETTINGS,
                connection_error=True,
            )


def _parse_goaway(frame: bytes) -> GoAway:
    payload = frame[HEADER_BYTES:]
    if len(payload) < 8:
        raise _frame_error("a GOAWAY frame is too short")
    if int.from_bytes(frame[5:9]) & 0x7FFF_FFFF:
        raise RemoteProtocolError(
            "a GOAWAY frame is on a stream",
            clause="RFC 9113 §6.8",
            code=H3ErrorCode.H3_GENERAL_PROTOCOL_ERROR,
            connection_error=True,
        )
    return GoAway(int.from_bytes(payload[:4]) & 0x7FFF_FFFF, int.from_bytes(payload[4:8]), payload[8:])


def _frame_error(message: str) -> RemoteProtocolError:
    return RemoteProtocolError(message, clause="RFC 9113 §4.2", code=H3ErrorCode.H3_FRAME_ERROR, connection_error=True)
