"""HTTP/2 without sockets: two engines joined by a byte pipe, and a server that writes every frame by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

from masque_client.engine.h2_engine import H2Engine
from masque_client.engine.interface import DataReceived, EngineConfiguration, Event, HeadersReceived
from tests.unit.engine.conftest import CONNECT_IP, OK, PROXY

EventT = TypeVar("EventT")
ADDRESS = ("192.0.2.1", 443)
MASQUE = {0x8: 1}
"""SETTINGS of a server that takes extended CONNECT (RFC 8441 §3)."""


class End:
    """An engine and everything it has said upward."""

    def __init__(self, engine: H2Engine) -> None:
        self.engine = engine
        self.events: list[Event] = []

    def drain(self) -> None:
        while (event := self.engine.next_event()) is not None:
            self.events.append(event)

    def of_type(self, kind: type[EventT]) -> list[EventT]:
        return [event for event in self.events if isinstance(event, kind)]

    def content(self, stream_id: int) -> bytes:
        """All of the stream's that has arrived."""
        return b"".join(event.data for event in self.of_type(DataReceived) if event.stream_id == stream_id)


class H2Pair:
    """Client and server; `run` carries bytes until both are silent. `now` only moves when a test moves it."""

    def __init__(self, chunk: int = 1 << 20, **server: Any) -> None:
        self.now = 100.0
        self.chunk = chunk
        self.client = End(H2Engine(EngineConfiguration(server_name=PROXY)))
        self.server = End(H2Engine(EngineConfiguration(is_client=False, **server)))
        for end in (self.client, self.server):
            end.engine.connect(ADDRESS, self.now)

    def run(self) -> H2Pair:
        while any([self.carry(self.client, self.server), self.carry(self.server, self.client)]):
            pass
        return self

    def carry(self, sender: End, receiver: End) -> int:
        data = sender.engine.data_to_send(self.now)
        for start in range(0, len(data), self.chunk):
            receiver.engine.receive_data(data[start : start + self.chunk], self.now)
        sender.drain()
        receiver.drain()
        return len(data)

    def open_tunnel(self) -> int:
        stream_id = self.client.engine.open_request(CONNECT_IP)
        self.run()
        assert any(event.stream_id == stream_id for event in self.server.of_type(HeadersReceived))
        self.server.engine.send_headers(stream_id, OK)
        self.run()
        assert any(event.stream_id == stream_id for event in self.client.of_type(HeadersReceived))
        return stream_id


class RawServer:
    """A client engine against frames written by hand. `frames` are all that the client has sent."""

    def __init__(self, settings: dict[int, int] | None = None) -> None:
        self.now = 100.0
        self.client = End(H2Engine(EngineConfiguration(server_name=PROXY)))
        self.client.engine.connect(ADDRESS, self.now)
        self.frames: list[Frame] = []
        self._sent = b""
        self._encoder = Encoder()
        self._collect()
        if settings is not None:
            self.send(SettingsFrame(0, settings=settings))

    def send(self, *frames: Frame) -> None:
        self.send_bytes(b"".join(frame.serialize() for frame in frames))

    def send_bytes(self, data: bytes) -> None:
        self.client.engine.receive_data(data, self.now)
        self.client.drain()
        self._collect()

    def headers(self, stream_id: int, *fields: tuple[bytes, bytes], flags: Iterable[str] = ()) -> HeadersFrame:
        block = self._encoder.encode(list(fields), huffman=False)
        return HeadersFrame(stream_id, block, flags=["END_HEADERS", *flags])

    def sent(self, kind: type[EventT]) -> list[EventT]:
        return [frame for frame in self.frames if isinstance(frame, kind)]

    def reset_codes(self) -> list[int]:
        return [frame.error_code for frame in self.sent(RstStreamFrame)]

    def goaway_codes(self) -> list[int]:
        return [frame.error_code for frame in self.sent(GoAwayFrame)]

    def open_tunnel(self) -> int:
        stream_id = self.client.engine.open_request(CONNECT_IP)
        self.send(self.headers(stream_id, *OK))
        return stream_id

    def _collect(self) -> None:
        self._sent += self.client.engine.data_to_send(self.now)
        if not self.frames:
            self._sent = self._sent.removeprefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        for frame in parse_frames(self._sent):
            self.frames.append(frame)
        self._sent = b""


def parse_frames(data: bytes) -> Sequence[Frame]:
    frames = []
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + length]))
        frames.append(frame)
        data = data[9 + length :]
    return frames


__all__ = [
    "DataFrame",
    "End",
    "GoAwayFrame",
    "H2Pair",
    "PingFrame",
    "RawServer",
    "RstStreamFrame",
    "SettingsFrame",
]
