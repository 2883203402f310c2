"""The HTTP/2 engine, both sides of it: any bytes, any frames, while requests are opened, used and given up."""

from __future__ import annotations

import hpack

from masque_client.engine.h2_engine import H2Engine
from masque_client.engine.interface import ConnectionClosed, EngineConfiguration
from masque_client.errors import MasqueError
from tests.fuzz.choices import Step, parse_steps, pieces
from tests.fuzz.harness import FuzzOne
from tests.unit.engine.conftest import CONNECT_IP

MAX_STEPS = 64
ADDRESS = ("192.0.2.1", 443)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0x0, 0x1, 0x4
END_STREAM, END_HEADERS = 0x1, 0x4
GOOD_SETTINGS = b"\0\x08\0\0\0\1"


def make() -> FuzzOne:
    """Input: one byte (1: we are the server, 2: good SETTINGS and a request first, 4: byte by byte), then steps."""
    return fuzz_one


def fuzz_one(data: bytes) -> None:
    choice = data[0] if data else 0
    connection = Http2(is_client=not choice & 1, cuts=b"\1" if choice & 4 else b"")
    if choice & 2:
        connection.greet()
    for _, step in zip(range(MAX_STEPS), parse_steps(data[1:]), strict=False):
        connection.take(step)
    connection.finish()


def frame(type_: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((type_, flags)) + stream_id.to_bytes(4) + payload


class Http2:
    """One engine and the time."""

    def __init__(self, *, is_client: bool, cuts: bytes) -> None:
        self._engine = H2Engine(EngineConfiguration(is_client=is_client, server_name="proxy.example"))
        self._is_client = is_client
        self._cuts = cuts
        self._now = 1000.0
        self._is_over = False
        self._engine.connect(ADDRESS, self._now)

    def greet(self) -> None:
        """The connection is in use: SETTINGS came, and the first request is open."""
        self._receive((b"" if self._is_client else PREFACE) + frame(SETTINGS, 0, 0, GOOD_SETTINGS))
        if self._is_client:
            self._engine.open_request(CONNECT_IP)
        else:
            self._headers(1, list(CONNECT_IP))

    def take(self, step: Step) -> None:
        """Do one step."""
        argument, payload, engine = step.argument, step.payload, self._engine
        stream_id = 1 + 2 * (argument & 3)
        self._now += 0.01
        match step.kind % 16:
            case 0:
                self._receive(payload)
            case 1 | 2 | 3 | 4 | 5:  # every type of frame, on a stream, with any flags
                type_ = (step.kind % 16 - 1) * 3 + argument % 3
                self._receive(frame(type_, payload[0] if payload else 0, stream_id, payload[1:]))
            case 6 | 7:  # and on the connection
                self._receive(frame(argument & 0xF, argument >> 4 & 1, 0, payload))
            case 8:
                lines = (line.partition(b":") for line in payload.split(b"\n"))
                status = (b":status", str(100 + (argument >> 2) * 10).encode())
                self._headers(stream_id, [status, *((name, value) for name, _, value in lines)])
            case 9:
                self._receive(frame(DATA, argument >> 7, stream_id, payload))
            case 10:
                try:
                    engine.open_request(CONNECT_IP)
                except MasqueError:
                    pass
            case 11:
                engine.send_data(stream_id, payload, end_stream=bool(argument & 0x80))
            case 12:
                engine.send_datagrams(stream_id, [payload] * 3, self._now, prefix=b"\0")
            case 13:
                engine.reset_stream(stream_id, 0x100 + argument % 0x11)
            case 14:
                engine.ping()
                engine.pause_sending() if argument & 1 else engine.resume_sending()
            case _:
                engine.handle_timeout(engine.next_timeout() or self._now)
        self._drain()

    def _headers(self, stream_id: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._receive(frame(HEADERS, END_HEADERS, stream_id, hpack.Encoder().encode(headers, huffman=False)))

    def _receive(self, data: bytes) -> None:
        for piece in pieces(data, self._cuts):
            self._engine.receive_data(piece, self._now)

    def _drain(self) -> None:
        while (event := self._engine.next_event()) is not None:
            assert not self._is_over, "events after the end"
            if isinstance(event, ConnectionClosed):
                assert event.error is None or isinstance(event.error, MasqueError)
                self._is_over = True
        self._engine.data_to_send(self._now)

    def finish(self) -> None:
        """However it stands, it can be asked, and closed."""
        self._drain()
        self._engine.statistics()
        self._engine.receive_data(b"", self._now)
        self._engine.close()
        self._drain()
        assert self._is_over and self._engine.next_timeout() is None
