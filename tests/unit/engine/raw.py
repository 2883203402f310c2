"""A peer that breaks rules: an engine whose HTTP/3 layer is silent, so that a test writes every stream byte itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from masque_client.protocol.varint import encode_varint
from tests.sim.link import End, Pair

CONTROL, QPACK_ENCODER, QPACK_DECODER = b"\x00", b"\x02", b"\x03"
DATA, HEADERS, CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY, MAX_PUSH_ID = 0, 1, 3, 4, 5, 7, 0xD


class SilentH3:
    """Stands in for a library's HTTP/3 layer."""

    received_settings: Mapping[int, int] | None = None

    def handle_event(self, event: Any) -> Sequence[Any]:
        return ()

    def send_headers(self, stream_id: int, headers: list[tuple[bytes, bytes]], end_stream: bool = False) -> None:
        raise NotImplementedError

    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        raise NotImplementedError


def silence(end: End) -> None:
    """Take the HTTP/3 layer away before the handshake."""
    end.engine._create_h3 = SilentH3  # type: ignore[attr-defined]


def quic(end: End) -> Any:
    """The library's connection below an engine."""
    return end.engine._quic  # type: ignore[attr-defined]


def frame(kind: int, payload: bytes) -> bytes:
    return encode_varint(kind) + encode_varint(len(payload)) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, b"".join(encode_varint(item) for pair in pairs for item in pair))


def literal(*fields: tuple[bytes, bytes]) -> bytes:
    """A field section of literals without Huffman coding or indexes (RFC 9204 §4.5.6)."""
    section = b"\0\0"
    for name, value in fields:
        prefix = bytes([0x20 | len(name)]) if len(name) < 7 else bytes([0x27, len(name) - 7])
        section += prefix + name + bytes([len(value)]) + value
    return section


def open_uni(end: End, data: bytes) -> int:
    """Open a unidirectional stream with these bytes."""
    stream_id: int = quic(end).get_next_available_stream_id(is_unidirectional=True)
    quic(end).send_stream_data(stream_id, data)
    return stream_id


def handshake(pair: Pair, *, silent_server: bool = False, silent_client: bool = False) -> None:
    """Connect with one end silenced: it has sent no SETTINGS and opened no stream."""
    if silent_client:
        silence(pair.client)
    if silent_server:
        accept = pair._accept

        def accept_and_silence(first: bytes) -> None:
            accept(first)
            silence(pair.server)

        pair._accept = accept_and_silence  # type: ignore[method-assign]
    pair.connect()
    pair.run(for_s=0.3)
