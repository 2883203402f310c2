"""The inbound path of an engine after the handshake: a proxy that breaks rules, at every layer above protection.

One connection serves many inputs, for a handshake costs more than a hundred of them; what led to a finding is kept as
one input (`history`), because a series of steps is an input again.
"""

from __future__ import annotations

from collections.abc import Sequence

from masque_client.engine.interface import ConnectionClosed, ConnectionIdRetired, Event, SettingsReceived, StreamReset
from masque_client.errors import MasqueError
from masque_client.protocol.varint import encode_varint
from tests.fuzz.choices import Step, parse_steps
from tests.fuzz.harness import FuzzOne
from tests.fuzz.quic_peer import ONE_RTT, make_pair, mutated, seal
from tests.sim.link import Pair
from tests.unit.engine import raw
from tests.unit.engine.conftest import CONNECT_IP

MAX_STEPS = 32
MAX_STEPS_PER_CONNECTION = 400
MAX_STREAMS = 60
"""The client allows 100 unidirectional streams or more; aioquic queues what is beyond."""
GOOD_SETTINGS = raw.CONTROL + raw.settings((0x08, 1), (0x33, 1))
FRAMES = (raw.DATA, raw.HEADERS, raw.SETTINGS, raw.GOAWAY, raw.PUSH_PROMISE, raw.MAX_PUSH_ID, raw.CANCEL_PUSH, 0x21)
WORDS = (
    GOOD_SETTINGS,
    raw.literal((b":status", b"200"), (b"capsule-protocol", b"?1")),
    raw.frame(raw.HEADERS, raw.literal((b":status", b"200"))),
    raw.frame(raw.GOAWAY, b"\0"),
)


def make(engine: str) -> FuzzOne:
    """Input: steps of the proxy, on a connection with one tunnel requested."""
    return Http3(engine)


class Http3:
    """The connection and what was done on it so far."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._steps: list[bytes] = []
        self._pair: Pair | None = None

    @property
    def history(self) -> bytes:
        """The input that brings a fresh connection to where this one is."""
        return b"".join(self._steps)

    def __call__(self, data: bytes) -> None:
        if self._pair is None or len(self._steps) > MAX_STEPS_PER_CONNECTION:
            self._begin(GOOD_SETTINGS)
        try:
            for _, step in zip(range(MAX_STEPS), parse_steps(data), strict=False):
                self._steps.append(step.encode())
                self._take(step)
            self._check()
        except BaseException:
            self._pair = None
            raise

    def _begin(self, control: bytes) -> None:
        self._steps.clear()
        self._pair = pair = make_pair(self._engine)
        raw.handshake(pair, silent_server=True)
        self._streams = [raw.open_uni(pair.server, control)]
        pair.run(lambda: bool(pair.client.of_type(SettingsReceived)), for_s=0.05)
        self._request()

    def _request(self) -> None:
        assert self._pair is not None
        try:
            self._streams.append(self._pair.client.engine.open_request(CONNECT_IP))
        except MasqueError:
            pass  # it is closed or going away, or wants no extended CONNECT
        self._pair.run(for_s=0.003)

    def _take(self, step: Step) -> None:
        pair = self._pair
        assert pair is not None
        quic, argument, payload = raw.quic(pair.server), step.argument, step.payload
        stream = self._streams[argument % len(self._streams)]
        if quic._close_event is not None:
            return
        match step.kind % 13:
            case 0 if len(self._streams) < MAX_STREAMS:
                self._streams.append(raw.open_uni(pair.server, payload))
            case 1:
                self._write(stream, payload)
            case 2:
                self._write(stream, payload, ends=True)
            case 3:
                self._write(stream, raw.frame(FRAMES[(argument >> 4) % len(FRAMES)], payload))
            case 4:
                fields = [line.partition(b":")[::2] for line in payload.split(b"\n")]
                status = (b":status", str(100 + argument % 500).encode())
                self._write(self._streams[-1], raw.frame(raw.HEADERS, raw.literal(status, *fields)))
            case 5:
                quic.send_datagram_frame(payload)
            case 6:
                quic.send_datagram_frame(encode_varint(stream // 4) + payload)
            case 7:
                self._end(stream, argument)
            case 8 if len(self._streams) < MAX_STREAMS:
                self._streams.append(quic.get_next_available_stream_id())
                self._write(self._streams[-1], payload)
            case 9:
                if (packet := seal(quic, ONE_RTT, payload)) is not None:
                    pair.inject(pair.client, packet)
            case 10 if pair.server.sent:
                packet = pair.server.sent[-1 - argument % min(len(pair.server.sent), 8)]
                pair.inject(pair.client, mutated(packet, argument, payload))
            case 11:
                self._request()
            case 12:
                self._begin(payload)  # and so the first thing said on the control stream
                self._steps.append(step.encode())
        pair.run(for_s=0.004)

    def _write(self, stream_id: int, data: bytes, *, ends: bool = False) -> None:
        assert self._pair is not None
        try:
            raw.quic(self._pair.server).send_stream_data(stream_id, data, ends)
        except (AssertionError, RuntimeError, ValueError):
            pass  # aioquic knows that we have ended that stream, or may not write to it

    def _end(self, stream_id: int, argument: int) -> None:
        assert self._pair is not None
        quic = raw.quic(self._pair.server)
        try:
            (quic.reset_stream if argument & 0x40 else quic.stop_stream)(stream_id, 0x100 + argument % 0x12)
        except (AssertionError, RuntimeError, ValueError):
            pass

    def _check(self) -> None:
        pair = self._pair
        assert pair is not None
        is_over = self._judge(pair.client.events)
        pair.client.engine.statistics()
        pair.client.events.clear()
        pair.server.events.clear()
        for end in pair.ends:
            del end.sent[:-16]
        if is_over:
            self._pair = None

    @staticmethod
    def _judge(events: Sequence[Event]) -> bool:
        """Whether the connection is over; then nothing may follow, and the error is one of ours."""
        for number, event in enumerate(events):
            assert not isinstance(event, ConnectionIdRetired), "that is the server's business"
            if isinstance(event, StreamReset):
                assert event.error_code >= 0
            if isinstance(event, ConnectionClosed):
                assert event.error is None or isinstance(event.error, MasqueError)
                assert number == len(events) - 1, "events after the end"
                return True
        return False
