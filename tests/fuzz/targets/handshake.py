"""The inbound path of an engine before its handshake is complete: anyone on the path can send these UDP payloads.

From noise over mutated flights of a real server to packets with the right keys: Initial keys are no secret.
"""

from __future__ import annotations

from typing import Any

from aioquic.quic.packet import encode_quic_retry, encode_quic_version_negotiation

from masque_client.engine.interface import ConnectionClosed, ReceivedBuffer
from masque_client.errors import MasqueError
from masque_client.protocol.quic_invariants import LongHeader, parse_long_header
from tests.fuzz.choices import Step, parse_steps
from tests.fuzz.harness import FuzzOne
from tests.fuzz.quic_peer import HANDSHAKE, INITIAL, crypto_frame, make_pair, mutated, seal
from tests.sim.link import CLIENT_ADDRESS, SERVER_ADDRESS, Pair
from tests.unit.engine import raw

MAX_STEPS = 16
STRANGER = ("203.0.113.9", 4433)


def make(engine: str) -> FuzzOne:
    """Input: steps, on a client that has sent its first flight."""

    def fuzz_one(data: bytes) -> None:
        handshake = Handshake(engine)
        for _, step in zip(range(MAX_STEPS), parse_steps(data), strict=False):
            handshake.take(step)
        handshake.finish()

    return fuzz_one


class Handshake:
    """One client, and a server that comes to life when a step needs it."""

    def __init__(self, engine: str) -> None:
        self._pair: Pair = make_pair(engine)
        self._client = self._pair.client
        self._client.engine.connect(SERVER_ADDRESS, self._pair.now)
        self._first_flight = [data for data, _ in self._client.engine.datagrams_to_send(self._pair.now)]
        self._flight: list[bytes] = []

    @property
    def _server(self) -> Any:
        """The server's QUIC connection, once the client's first flight has reached it."""
        if self._pair._server is None:
            self._pair._accept(self._first_flight[0])
            for data in self._first_flight:
                self._pair.server.engine.receive_datagrams(
                    [ReceivedBuffer(data, len(data), CLIENT_ADDRESS)], self._pair.now
                )
        return raw.quic(self._pair.server)

    @property
    def _server_flight(self) -> list[bytes]:
        if not self._flight:
            server = self._server
            self._flight = [data for data, _ in server.datagrams_to_send(self._pair.now)]
        return self._flight

    @property
    def _header(self) -> LongHeader:
        header = parse_long_header(self._first_flight[0])
        assert header is not None
        return header

    def take(self, step: Step) -> None:
        """Do one step."""
        argument, payload = step.argument, step.payload
        match step.kind % 12:
            case 0:
                self._receive(payload)
            case 1:
                self._receive(seal(self._server, INITIAL, payload))
            case 2:
                self._receive(seal(self._server, INITIAL, crypto_frame(argument, payload)))
            case 3 | 4:  # a real packet, damaged under its protection or not at all
                packet = self._server_flight[argument % len(self._server_flight)]
                self._receive(mutated(packet, payload[0] << 3, payload[1:]) if payload else packet)
            case 5:  # the server's TLS messages, damaged above the protection
                epoch = (INITIAL, HANDSHAKE)[argument & 1]
                buffer = self._server._crypto_streams[epoch].sender._buffer
                if payload and buffer and not self._flight:
                    buffer[:] = mutated(bytes(buffer), payload[0] | (argument >> 1) << 8, payload[1:] or b"\1")
            case 6:
                self._receive(seal(self._server, HANDSHAKE, payload))
            case 7:
                self._receive(seal(self._server, HANDSHAKE, crypto_frame(argument, payload)))
            case 8:
                versions = [int.from_bytes(payload[i : i + 4].ljust(4, b"\0")) for i in range(0, len(payload), 4)]
                header = self._header
                self._receive(
                    encode_quic_version_negotiation(
                        source_cid=header.destination_cid,
                        destination_cid=header.source_cid,
                        supported_versions=versions,
                    )
                )
            case 9:
                header = self._header
                self._receive(
                    encode_quic_retry(
                        version=header.version,
                        source_cid=payload[:20],
                        destination_cid=header.source_cid,
                        original_destination_cid=header.destination_cid,
                        retry_token=payload,
                    )
                )
            case 10:
                timeout = self._client.engine.next_timeout()
                if timeout is not None:
                    self._pair.now = max(self._pair.now, timeout)
                    self._client.engine.handle_timeout(self._pair.now)
            case _:
                self._receive(self._first_flight[0], address=STRANGER)

    def _receive(self, data: bytes | None, address: tuple[str, int] = SERVER_ADDRESS) -> None:
        if data is not None:
            engine, now = self._client.engine, self._pair.now
            engine.receive_datagrams([ReceivedBuffer(data, len(data), address)], now)
            engine.datagrams_to_send(now)

    def finish(self) -> None:
        """What the client tells is an orderly end or none."""
        engine = self._client.engine
        while (event := engine.next_event()) is not None:
            if isinstance(event, ConnectionClosed):
                assert event.error is None or isinstance(event.error, MasqueError)
        engine.statistics()
        engine.close()
        engine.datagrams_to_send(self._pair.now)
        engine.next_timeout()
