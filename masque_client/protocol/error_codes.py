"""HTTP/3 error codes (RFC 9114 §8.1, RFC 9204 §6, RFC 9297 §5.2) and their names for messages."""

from __future__ import annotations

from enum import IntEnum


class H3ErrorCode(IntEnum):
    """What RESET_STREAM, STOP_SENDING and CONNECTION_CLOSE (type 0x1d) carry on an HTTP/3 connection."""

    H3_DATAGRAM_ERROR = 0x33
    H3_NO_ERROR = 0x100
    H3_GENERAL_PROTOCOL_ERROR = 0x101
    H3_INTERNAL_ERROR = 0x102
    H3_STREAM_CREATION_ERROR = 0x103
    H3_CLOSED_CRITICAL_STREAM = 0x104
    H3_FRAME_UNEXPECTED = 0x105
    H3_FRAME_ERROR = 0x106
    H3_EXCESSIVE_LOAD = 0x107
    H3_ID_ERROR = 0x108
    H3_SETTINGS_ERROR = 0x109
    H3_MISSING_SETTINGS = 0x10A
    H3_REQUEST_REJECTED = 0x10B
    H3_REQUEST_CANCELLED = 0x10C
    H3_REQUEST_INCOMPLETE = 0x10D
    H3_MESSAGE_ERROR = 0x10E
    H3_CONNECT_ERROR = 0x10F
    H3_VERSION_FALLBACK = 0x110
    QPACK_DECOMPRESSION_FAILED = 0x200
    QPACK_ENCODER_STREAM_ERROR = 0x201
    QPACK_DECODER_STREAM_ERROR = 0x202


def describe(code: int) -> str:
    """Name a code for a person: `H3_EXCESSIVE_LOAD (0x107)`, or `0x1234` for one we do not know.

    Never branch on a peer's code alone: deployed proxies choose them loosely, and an unknown one means
    H3_NO_ERROR (RFC 9114 §8).
    """
    try:
        return f"{H3ErrorCode(code).name} (0x{code:x})"
    except ValueError:
        return f"0x{code:x}"
