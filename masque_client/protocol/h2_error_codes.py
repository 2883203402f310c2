"""HTTP/2 error codes (RFC 9113 §7) and what each is called in HTTP/3 (RFC 9114 §A.4).

Above the engines there is one vocabulary, HTTP/3's: sessions neither know nor care which carrier they ride on. So
the HTTP/2 engine translates at its edge, both ways, and only here is it written down how.
"""

from __future__ import annotations

from enum import IntEnum

from masque_client.protocol.error_codes import H3ErrorCode


class H2ErrorCode(IntEnum):
    """What RST_STREAM and GOAWAY carry."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


_TO_HTTP2: dict[int, H2ErrorCode] = {
    H3ErrorCode.H3_NO_ERROR: H2ErrorCode.NO_ERROR,
    H3ErrorCode.H3_INTERNAL_ERROR: H2ErrorCode.INTERNAL_ERROR,
    H3ErrorCode.H3_FRAME_ERROR: H2ErrorCode.FRAME_SIZE_ERROR,
    H3ErrorCode.H3_EXCESSIVE_LOAD: H2ErrorCode.ENHANCE_YOUR_CALM,
    H3ErrorCode.H3_REQUEST_REJECTED: H2ErrorCode.REFUSED_STREAM,
    H3ErrorCode.H3_REQUEST_CANCELLED: H2ErrorCode.CANCEL,
    H3ErrorCode.H3_CONNECT_ERROR: H2ErrorCode.CONNECT_ERROR,
    H3ErrorCode.H3_VERSION_FALLBACK: H2ErrorCode.HTTP_1_1_REQUIRED,
    H3ErrorCode.QPACK_DECOMPRESSION_FAILED: H2ErrorCode.COMPRESSION_ERROR,
}
_TO_HTTP3: dict[int, int] = {
    **{http2: http3 for http3, http2 in _TO_HTTP2.items()},
    H2ErrorCode.PROTOCOL_ERROR: H3ErrorCode.H3_MESSAGE_ERROR,
}


def to_http2(code: int) -> H2ErrorCode:
    """The HTTP/2 code for an HTTP/3 one. Every broken rule is a PROTOCOL_ERROR there (RFC 9113 §8.1.1)."""
    return _TO_HTTP2.get(code, H2ErrorCode.PROTOCOL_ERROR)


def to_http3(code: int) -> int:
    """The HTTP/3 code for an HTTP/2 one; H3_GENERAL_PROTOCOL_ERROR for those without an equivalent."""
    return _TO_HTTP3.get(code, H3ErrorCode.H3_GENERAL_PROTOCOL_ERROR)


def describe_http2(code: int) -> str:
    """Name a code for a person: `ENHANCE_YOUR_CALM (0xb)`, or `0x1234` for one we do not know."""
    try:
        return f"{H2ErrorCode(code).name} (0x{code:x})"
    except ValueError:
        return f"0x{code:x}"
