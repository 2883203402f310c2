"""The HTTP/3 half of an engine, without the handshake that makes `http3` slow: a library's events, made by hand.

The QUIC connection is a stand-in that delivers what QUIC would: nothing on a stream after its end or reset.
"""

from __future__ import annotations

from collections import deque
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from masque_client.engine.closing import Closing, Origin
from masque_client.engine.h3_engine import H3Engine
from masque_client.engine.interface import ConnectionClosed, EngineConfiguration
from masque_client.errors import MasqueError
from masque_client.protocol.varint import encode_varint
from tests.fuzz.choices import Step, parse_steps
from tests.fuzz.harness import FuzzOne
from tests.fuzz.targets import http3
from tests.unit.engine import raw
from tests.unit.engine.conftest import CONNECT_IP

MAX_STEPS = 64
WORDS = http3.WORDS
CONFIGURATION = EngineConfiguration(server_name="proxy.example")
ENGINES = {"aioquic": "AioquicEngine", "qh3": "Qh3Engine"}


def make(engine: str) -> FuzzOne:
    """Input: one byte (odd: nothing said yet; else good SETTINGS came and a tunnel is requested), then steps."""
    engine_class = getattr(import_module(f"masque_client.engine.{engine}_engine"), ENGINES[engine])
    events = import_module(f"{engine}.quic.events")

    def fuzz_one(data: bytes) -> None:
        layer = Http3Layer(engine_class, events, is_settled=not (data and data[0] & 1))
        for _, step in zip(range(MAX_STEPS), parse_steps(data[1:]), strict=False):
            layer.take(step)
        layer.finish()

    return fuzz_one


class StandIn:
    """A library's QUIC connection, as far as engines and HTTP/3 layers look at it."""

    configuration = SimpleNamespace(is_client=True)
    _quic_logger = None
    _remote_max_datagram_frame_size = peer_max_datagram_frame = 65535
    sizes = 1350, 8
    may_open_request = True
    peer_certificate = None
    is_started = True

    def __init__(self) -> None:
        self.events: deque[Any] = deque()
        self.datagrams: list[bytes] = []
        self.closing: Closing | None = None
        self._next = {False: 0, True: 2}

    @property
    def news(self) -> deque[Any]:
        return self.events

    def next_event(self) -> Any:
        return self.events.popleft() if self.events else None

    def get_next_available_stream_id(self, is_unidirectional: bool = False) -> int:
        self._next[is_unidirectional] += 4
        return self._next[is_unidirectional] - 4

    def close(self, error_code: int = 0, frame_type: int | None = None, reason_phrase: str = "") -> None:
        self.closing = self.closing or Closing(Origin.LOCAL, error_code, frame_type, reason_phrase)

    def get_peercert(self) -> None:
        return None

    def get_timer(self) -> None:
        return None

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        """Nobody reads it."""

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """Nobody hears it."""

    stop_stream = reset_stream

    def unsent_bytes(self, stream_id: int) -> int:
        return 0

    get_send_buffer_size = unsent_bytes


class Http3Layer:
    """One engine past its handshake."""

    def __init__(self, engine_class: Any, events: Any, *, is_settled: bool) -> None:
        self._events = events
        self._quic = StandIn()
        self._engine = engine = engine_class.__new__(engine_class)  # its constructor makes the real connection
        H3Engine.__init__(engine, CONFIGURATION)
        engine._connection = engine._quic = self._quic
        engine._is_established = engine._is_past_handshake = True
        engine._h3 = engine._create_h3()
        self._streams = [3]
        self._ended: set[int] = set()
        self._is_over = False
        if is_settled:
            self._data(3, http3.GOOD_SETTINGS)
            self._streams.append(engine.open_request(CONNECT_IP))

    def take(self, step: Step) -> None:
        """Do one step."""
        argument, payload = step.argument, step.payload
        stream = self._streams[argument % len(self._streams)]
        match step.kind % 11:
            case 0:
                self._open(3, payload)
            case 1 | 2:
                self._data(stream, payload, ends=step.kind % 11 == 2)
            case 3 | 4:
                self._data(stream, raw.frame(http3.FRAMES[(argument >> 4) % len(http3.FRAMES)], payload))
            case 5:
                fields = [line.partition(b":")[::2] for line in payload.split(b"\n")]
                status = (b":status", str(100 + argument % 500).encode())
                self._data(self._streams[-1], raw.frame(raw.HEADERS, raw.literal(status, *fields)))
            case 6:
                self._deliver(self._events.DatagramFrameReceived(data=payload))
            case 7:
                self._deliver(self._events.DatagramFrameReceived(data=encode_varint(stream // 4) + payload))
            case 8:
                self._end(stream, argument)
            case 9:
                self._open(1, payload)
            case _:
                try:
                    self._streams.append(self._engine.open_request(CONNECT_IP))
                except MasqueError:
                    pass
        self._drain()

    def _open(self, kind: int, payload: bytes) -> None:
        """A stream of the server's: 3 for unidirectional, 1 for bidirectional."""
        self._streams.append(max((stream for stream in self._streams if stream % 4 == kind), default=kind - 4) + 4)
        self._data(self._streams[-1], payload)

    def _data(self, stream_id: int, data: bytes, *, ends: bool = False) -> None:
        if stream_id not in self._ended:
            if ends:
                self._ended.add(stream_id)
            self._deliver(self._events.StreamDataReceived(data=data, end_stream=ends, stream_id=stream_id))

    def _end(self, stream_id: int, argument: int) -> None:
        if argument & 0x40 and stream_id % 4 == 0:
            self._deliver(self._events.StopSendingReceived(error_code=argument, stream_id=stream_id))
        elif stream_id not in self._ended:
            self._ended.add(stream_id)
            self._deliver(self._events.StreamReset(error_code=argument, stream_id=stream_id))

    def _deliver(self, event: Any) -> None:
        self._quic.events.append(event)
        self._engine._collect()

    def _drain(self) -> None:
        while (event := self._engine.next_event()) is not None:
            assert not self._is_over, "events after the end"
            if isinstance(event, ConnectionClosed):
                assert event.error is None or isinstance(event.error, MasqueError)
                self._is_over = True

    def finish(self) -> None:
        """However it stands, it can be used and closed."""
        engine = self._engine
        for stream_id in self._streams:
            engine.datagram_capacity(stream_id)
            engine.send_datagrams(stream_id, [b"payload"], 0.0, prefix=b"\0")
            engine.reset_stream(stream_id, 0x10C)
        engine.close()
        self._drain()
        assert self._is_over
