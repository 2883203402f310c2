"""The HTTP/2 engine listening: what a peer's broken HTTP/2 gets, and how connections end.

Sources: RFC 9113, RFC 8441, RFC 9297 §3; the rule numbers are the digest's.
"""

from __future__ import annotations

import pytest
from hyperframe.frame import (
    DataFrame,
    GoAwayFrame,
    PingFrame,
    PushPromiseFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from masque_client.engine.interface import (
    ConnectionClosed,
    DataReceived,
    GoAwayReceived,
    HeadersReceived,
    StreamReset,
)
from masque_client.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError
from masque_client.protocol.capsule import encode_capsule
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.h2_error_codes import H2ErrorCode
from tests.unit.engine.conftest import CONNECT_IP, OK
from tests.unit.engine.h2_peers import MASQUE, H2Pair, RawServer

# --- a peer that breaks rules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([(b"x", b"y")], id="row 26: no :status"),
        pytest.param([(b":status", b"200"), (b"X-Upper", b"y")], id="row 26: upper case"),
        pytest.param([(b":status", b"200"), (b"connection", b"close")], id="row 26: Connection"),
        pytest.param([(b"a", b"b"), (b":status", b"200")], id="pseudo-header late"),
        pytest.param([(b":status", b"200"), (b":path", b"/")], id="request pseudo-header"),
        pytest.param([(b":status", b"20")], id="short status"),
    ],
)
def test_malformed_responses_end_the_stream_alone(fields: list[tuple[bytes, bytes]]) -> None:
    server = RawServer(MASQUE)
    stream_id = server.client.engine.open_request(CONNECT_IP)
    server.send(server.headers(stream_id, *fields))
    assert server.reset_codes() == [H2ErrorCode.PROTOCOL_ERROR]
    assert server.client.of_type(StreamReset) == [StreamReset(stream_id, H3ErrorCode.H3_MESSAGE_ERROR)]
    assert server.goaway_codes() == []
    server.open_tunnel()


def test_informational_responses_come_first() -> None:
    server = RawServer(MASQUE)
    stream_id = server.client.engine.open_request(CONNECT_IP)
    server.send(server.headers(stream_id, (b":status", b"103")), server.headers(stream_id, *OK))
    assert [event.headers[0][1] for event in server.client.of_type(HeadersReceived)] == [b"103", b"200"]


def test_row_25_trailers_in_a_tunnel_end_the_stream() -> None:
    server = RawServer(MASQUE)
    stream_id = server.open_tunnel()
    server.send(server.headers(stream_id, (b"a", b"b"), flags=["END_STREAM"]))
    assert server.reset_codes() == [H2ErrorCode.PROTOCOL_ERROR]
    assert server.client.of_type(StreamReset)


@pytest.mark.parametrize("informational", [False, True])
def test_content_before_the_response_closes_the_connection(informational: bool) -> None:
    server = RawServer(MASQUE)
    stream_id = server.client.engine.open_request(CONNECT_IP)
    if informational:
        server.send(server.headers(stream_id, (b":status", b"103")))
    server.send(DataFrame(stream_id, b"early"))
    assert server.goaway_codes() == [H2ErrorCode.PROTOCOL_ERROR]
    assert server.client.of_type(DataReceived) == []


@pytest.mark.parametrize(
    ("bytes_", "code"),
    [
        pytest.param(SettingsFrame(0, settings={0x8: 2}).serialize(), H2ErrorCode.PROTOCOL_ERROR, id="X-1: 0x8=2"),
        pytest.param(SettingsFrame(0, settings={0x8: 0}).serialize(), H2ErrorCode.PROTOCOL_ERROR, id="X-1: back to 0"),
        pytest.param(bytes(9), H2ErrorCode.PROTOCOL_ERROR, id="DATA on stream 0"),
        pytest.param(bytes.fromhex("000002000800000001ff00"), H2ErrorCode.PROTOCOL_ERROR, id="too much padding"),
        pytest.param(bytes.fromhex("ffffff000000000001"), H2ErrorCode.FRAME_SIZE_ERROR, id="frame too long"),
        pytest.param(bytes.fromhex("00000407000000000000000000"), H2ErrorCode.FRAME_SIZE_ERROR, id="GOAWAY cut"),
        pytest.param(
            bytes.fromhex("0000080700000000010000000000000000"), H2ErrorCode.PROTOCOL_ERROR, id="GOAWAY on a stream"
        ),
        pytest.param(
            WindowUpdateFrame(0, window_increment=0x7FFF_FFFF).serialize(),
            H2ErrorCode.FLOW_CONTROL_ERROR,
            id="window overflow",
        ),
    ],
)
def test_connection_errors_say_goaway(bytes_: bytes, code: H2ErrorCode) -> None:
    server = RawServer(MASQUE)
    server.open_tunnel()
    server.send_bytes(bytes_)
    (closed,) = server.client.of_type(ConnectionClosed)
    assert isinstance(closed.error, RemoteProtocolError)
    assert server.goaway_codes() == [code]
    with pytest.raises(LocalProtocolError):
        server.client.engine.open_request(CONNECT_IP)


def test_push_is_refused() -> None:
    server = RawServer(MASQUE)
    stream_id = server.open_tunnel()
    server.send(PushPromiseFrame(stream_id, promised_stream_id=2, data=b"", flags=["END_HEADERS"]))
    assert server.goaway_codes() == [H2ErrorCode.PROTOCOL_ERROR]


def test_the_first_frame_must_be_settings() -> None:
    server = RawServer()
    server.send(PingFrame(0))
    (closed,) = server.client.of_type(ConnectionClosed)
    assert "SETTINGS" in str(closed.error)
    assert server.goaway_codes()


def test_unknown_frames_and_settings_are_ignored() -> None:
    server = RawServer({**MASQUE, 0x33: 7, 0xABCD: 1})
    stream_id = server.open_tunnel()
    for target in (stream_id, 0):
        server.send_bytes(bytes.fromhex(f"000006ba00{target:08x}") + b"grease")
    server.send(DataFrame(stream_id, b"\x17\x05hello"))
    assert server.client.content(stream_id) == b"\x17\x05hello"


@given(st.binary(max_size=400), st.booleans())
def test_no_bytes_raise(data: bytes, settled: bool) -> None:
    server = RawServer(MASQUE if settled else None)
    if settled:
        server.open_tunnel()
    server.send_bytes(data)
    server.send_bytes(data[::-1])


# --- the end of a connection ----------------------------------------------------------------------------------------


def test_goaway_leaves_running_tunnels_alone() -> None:
    """RFC 9113 §6.8: the proxy finishes what it has; what came later may be asked elsewhere."""
    server = RawServer(MASQUE)
    kept = server.open_tunnel()
    late = server.client.engine.open_request(CONNECT_IP)
    server.send(GoAwayFrame(0, last_stream_id=kept))
    assert server.client.of_type(GoAwayReceived) == [GoAwayReceived(kept + 1)]
    assert server.client.of_type(StreamReset) == [StreamReset(late, H3ErrorCode.H3_REQUEST_REJECTED)]
    assert not server.client.of_type(ConnectionClosed)
    with pytest.raises(LocalProtocolError, match="GOAWAY"):
        server.client.engine.open_request(CONNECT_IP)
    server.client.engine.send_datagrams(kept, [b"still"], server.now)
    server.send(DataFrame(kept, b"here"))
    assert server.client.content(kept) == b"here"
    assert server.sent(DataFrame)[-1].data == encode_capsule(0, b"still")
    server.send_bytes(b"")
    (closed,) = server.client.of_type(ConnectionClosed)
    assert closed.error is None, "announced, so no error"


@pytest.mark.parametrize("cut", range(1, 17))
def test_goaway_cut_anywhere(cut: int) -> None:
    server = RawServer(MASQUE)
    data = GoAwayFrame(0, last_stream_id=0).serialize() + PingFrame(0).serialize()
    server.send_bytes(data[:cut])
    server.send_bytes(data[cut:])
    assert server.client.of_type(GoAwayReceived) == [GoAwayReceived(1)]
    assert server.sent(PingFrame), "and the frame behind it was answered"


def test_goaway_may_not_take_back() -> None:
    server = RawServer(MASQUE)
    server.open_tunnel()
    server.send(GoAwayFrame(0, last_stream_id=1), GoAwayFrame(0, last_stream_id=3))
    assert server.goaway_codes() == [H2ErrorCode.PROTOCOL_ERROR]


def test_goaway_with_an_error_is_the_end() -> None:
    server = RawServer(MASQUE)
    server.open_tunnel()
    server.send(GoAwayFrame(0, error_code=H2ErrorCode.ENHANCE_YOUR_CALM, additional_data=b"too\x1bmuch"))
    (closed,) = server.client.of_type(ConnectionClosed)
    assert isinstance(closed.error, ConnectionLost)
    assert "ENHANCE_YOUR_CALM" in str(closed.error)
    assert "toomuch" in str(closed.error)


def test_an_end_without_goaway_is_a_loss() -> None:
    server = RawServer(MASQUE)
    server.open_tunnel()
    server.send_bytes(b"")
    (closed,) = server.client.of_type(ConnectionClosed)
    assert isinstance(closed.error, ConnectionLost)


def test_our_goodbye() -> None:
    pair = H2Pair().run()
    pair.open_tunnel()
    pair.client.engine.close(reason="enough")
    pair.run()
    assert pair.client.of_type(ConnectionClosed)[0].error is None
    assert pair.server.of_type(GoAwayReceived)


def test_silence_is_noticed() -> None:
    server = RawServer(MASQUE)
    engine = server.client.engine
    deadline = engine.next_timeout()
    assert deadline == server.now + engine.configuration.idle_timeout_s
    engine.handle_timeout(deadline - 0.1)
    assert not server.client.of_type(ConnectionClosed)
    engine.handle_timeout(deadline)
    server.client.drain()
    (closed,) = server.client.of_type(ConnectionClosed)
    assert isinstance(closed.error, ConnectionLost)
    assert engine.next_timeout() is None


def test_pings_measure_the_round_trip() -> None:
    server = RawServer()
    server.now += 0.080
    server.send(SettingsFrame(0, settings=MASQUE), SettingsFrame(0, flags=["ACK"]))
    engine = server.client.engine
    assert engine.statistics().rtt_s == pytest.approx(0.080)
    engine.ping()
    engine.data_to_send(server.now)
    engine.ping()
    assert engine.data_to_send(server.now) == b"", "one at a time"
    server.now += 0.160
    server.send(PingFrame(0, opaque_data=bytes(8), flags=["ACK"]))
    assert engine.statistics().rtt_s == pytest.approx(0.090)
