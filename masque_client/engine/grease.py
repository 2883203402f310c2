"""What each connection says that means nothing: other reserved values every time, so that nobody gets used to one.

Standards reserve them for this, and peers ignore them (RFC 9114 §9, RFC 9000 §18.1, RFC 9368 §3). Sent when
`EngineConfiguration.grease` says so; what a session adds to that is in `http.grease`.
"""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Protocol

from masque_client.protocol import grease
from masque_client.protocol.varint import encode_varint

MAX_FILLER = 16


class _Quic(Protocol):
    def get_next_available_stream_id(self, is_unidirectional: bool = False) -> int: ...
    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None: ...


def http3_setting() -> dict[int, int]:
    """A reserved setting with any value (RFC 9114 §7.2.4.1)."""
    return {grease.reserved_http3_id(_number()): random.getrandbits(30)}


def http2_setting() -> tuple[int, int]:
    """An unknown setting for HTTP/2, and its value (RFC 9113 §6.5.2)."""
    return grease.reserved_http2_setting(_number()), random.getrandbits(32)


def begin_http3(quic: _Quic, control_stream: int) -> None:
    """After our SETTINGS: a reserved frame (RFC 9114 §7.2.8), and a stream of a reserved type (§6.2.3)."""
    filler = _filler()
    kind = encode_varint(grease.reserved_http3_id(_number()))
    quic.send_stream_data(control_stream, kind + encode_varint(len(filler)) + filler)
    stream_id = quic.get_next_available_stream_id(is_unidirectional=True)
    with suppress(ValueError):  # qh3, when the peer allows no stream more than it must; aioquic waits for leave
        quic.send_stream_data(
            stream_id, encode_varint(grease.reserved_http3_id(_number())) + _filler(), end_stream=True
        )


def transport_parameter() -> bytes:
    """A reserved transport parameter, encoded."""
    return grease.reserved_transport_parameter(_number(), _filler())


def quic_version() -> int:
    """A reserved version, for the end of the Available Versions (RFC 9368 §3)."""
    return grease.reserved_version(random.getrandbits(32))


def _number() -> int:
    return random.getrandbits(16)


def _filler() -> bytes:
    return random.randbytes(random.randrange(MAX_FILLER))
