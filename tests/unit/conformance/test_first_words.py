"""What a client says first, read by a peer that only listens: transport parameters, control stream, SETTINGS."""

from __future__ import annotations

import pytest

from masque_client.engine.interface import ConnectionClosed, EngineName
from masque_client.protocol.varint import parse_varint
from tests.fuzz.quic_peer import make_pair
from tests.sim.link import Pair
from tests.unit.engine import raw
from tests.unit.engine.conftest import CONNECT_IP


class Listener(raw.SilentH3):
    """Remembers what came on each stream."""

    def __init__(self) -> None:
        self.streams: dict[int, bytes] = {}

    def handle_event(self, event):
        if hasattr(event, "data"):
            self.streams[event.stream_id] = self.streams.get(event.stream_id, b"") + event.data
        return ()


@pytest.fixture
def heard(client_engine: EngineName) -> tuple[Pair, Listener]:
    """A client that has spoken to a server which only listened."""
    pair, listener = make_pair(client_engine), Listener()
    accept = pair._accept

    def accept_and_listen(first: bytes) -> None:
        accept(first)
        pair.server.engine._create_h3 = lambda: listener  # type: ignore[attr-defined]

    pair._accept = accept_and_listen  # type: ignore[method-assign]
    pair.connect()
    pair.run(for_s=0.3)
    return pair, listener


def integers(data: bytes) -> list[int]:
    found, offset = [], 0
    while offset < len(data):
        parsed = parse_varint(data, offset)
        assert parsed is not None
        found.append(parsed[0])
        offset = parsed[1]
    return found


def control_stream(listener: Listener) -> bytes:
    (control,) = [data for data in listener.streams.values() if data[:1] == raw.CONTROL]
    return control


def frame_types(control: bytes) -> list[int]:
    """Of the frames on a control stream, which all have arrived whole."""
    found, offset = [], 1
    while offset < len(control):
        kind = parse_varint(control, offset)
        assert kind is not None
        length = parse_varint(control, kind[1])
        assert length is not None
        found.append(kind[0])
        offset = length[1] + length[0]
    assert offset == len(control)
    return found


def is_reserved(http3_id: int) -> bool:
    return http3_id >= 0x21 and (http3_id - 0x21) % 0x1F == 0


def settings(control: bytes) -> dict[int, int]:
    assert control[1] == raw.SETTINGS, "RFC 9114 §6.2.1: SETTINGS is the first frame"
    items = integers(control[3 : 3 + control[2]])
    return dict(zip(items[::2], items[1::2], strict=True))


def test_one_control_stream_that_begins_with_settings_at_once(heard: tuple[Pair, Listener]) -> None:
    """RFC 9114 §7.2.4.2: the server has said nothing of HTTP/3 yet, and the client does not wait for it."""
    _, listener = heard
    assert settings(control_stream(listener))


def test_settings(heard: tuple[Pair, Listener]) -> None:
    """RFC 9297 §2.1.1: HTTP Datagrams always. RFC 9204 §5: no dynamic table. RFC 9114 §7.2.4.1: one reserved id."""
    found = settings(control_stream(heard[1]))
    assert found.pop(0x33) == 1
    assert found.pop(0x01, 0) == found.pop(0x07, 0) == 0
    assert len(found) == 1 and all(map(is_reserved, found)), found


def test_a_frame_and_a_stream_that_mean_nothing(heard: tuple[Pair, Listener]) -> None:
    """RFC 9114 §7.2.8 and §6.2.3."""
    _, listener = heard
    kinds = frame_types(control_stream(listener))
    assert kinds[0] == raw.SETTINGS and len(kinds) == 2 and is_reserved(kinds[1])
    streams = [integers(data[:4])[0] for data in listener.streams.values() if data[:1] >= b"\x21"]
    assert len(streams) == 1 and all(map(is_reserved, streams))


def test_no_pushes_are_allowed(heard: tuple[Pair, Listener]) -> None:
    """RFC 9114 §7.2.7: without MAX_PUSH_ID a server may not push."""
    assert raw.MAX_PUSH_ID not in frame_types(control_stream(heard[1]))


def test_transport_parameters(heard: tuple[Pair, Listener]) -> None:
    """RFC 9221 §3: any DATAGRAM frame. RFC 9114 §6.2: three unidirectional streams and 1,024 bytes for each."""
    quic = raw.quic(heard[0].server)
    assert quic._remote_max_datagram_frame_size == 65535
    assert quic._remote_max_streams_uni >= 3
    assert quic._remote_max_stream_data_uni >= 1024
    assert not heard[0].client.of_type(ConnectionClosed)


def test_what_may_be_a_credential_is_never_indexed(heard: tuple[Pair, Listener]) -> None:
    """RFC 9204 §7.1.3: the N bit of a literal field line, and no use of the dynamic table that the server allows."""
    pair, listener = heard
    raw.open_uni(pair.server, raw.CONTROL + raw.settings((0x08, 1), (0x33, 1), (0x01, 4096), (0x07, 16)))
    pair.run(for_s=0.1)
    stream_id = pair.client.engine.open_request((*CONNECT_IP, (b"x-token", b"secret")))
    pair.run(for_s=0.1)
    request = listener.streams[stream_id]
    assert request.startswith(bytes([raw.HEADERS]))
    assert request[3:5] == b"\0\0", "no dynamic table: Required Insert Count and Base are 0"
    assert request.endswith(b"\x37\0x-token\x06secret")
