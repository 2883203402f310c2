"""The HTTP/2 engine: extended CONNECT, capsules, flow control and the ends of streams.

Sources: RFC 9113, RFC 8441, RFC 9297 §3; the rule numbers are the digest's.
"""

from __future__ import annotations

import pytest
from hpack import Decoder
from hyperframe.frame import (
    DataFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from masque_client.engine.h2_engine import H2Engine
from masque_client.engine.h2_listener import CONNECTION_WINDOW, MAX_REQUESTS, STREAM_WINDOW
from masque_client.engine.h2_stream import MAX_CONTENT_BYTES
from masque_client.engine.interface import (
    ConnectionClosed,
    DataReceived,
    EngineConfiguration,
    HandshakeCompleted,
    HeadersReceived,
    SettingsReceived,
    StopSendingReceived,
    StreamEngine,
    StreamReset,
)
from masque_client.errors import LocalProtocolError, ProxyRefused
from masque_client.protocol.capsule import encode_capsule
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.h2_error_codes import H2ErrorCode, to_http2, to_http3
from masque_client.protocol.mtu import MAX_HTTP_DATAGRAM_IN_CAPSULE
from tests.unit.engine.conftest import CONNECT_IP, OK
from tests.unit.engine.h2_peers import ADDRESS, MASQUE, H2Pair, RawServer

# --- the beginning --------------------------------------------------------------------------------------------------


def test_it_is_a_stream_engine() -> None:
    assert isinstance(H2Engine(EngineConfiguration()), StreamEngine)


def test_preface_and_settings_of_both_ends() -> None:
    pair = H2Pair().run()
    assert pair.client.events == [HandshakeCompleted(None), SettingsReceived(extended_connect=True, h3_datagram=False)]
    assert pair.server.of_type(SettingsReceived)


def test_our_settings_are_those_of_b9() -> None:
    server = RawServer()
    settings = server.sent(SettingsFrame)[0]
    assert settings.settings[SettingsFrame.ENABLE_PUSH] == 0
    assert settings.settings[SettingsFrame.INITIAL_WINDOW_SIZE] == STREAM_WINDOW
    (update,) = server.sent(WindowUpdateFrame)
    assert (update.stream_id, update.window_increment) == (0, CONNECTION_WINDOW - 65_535)


def test_requests_wait_for_settings() -> None:
    server = RawServer()
    with pytest.raises(LocalProtocolError, match="SETTINGS"):
        server.client.engine.open_request(CONNECT_IP)


@pytest.mark.parametrize("settings", [{}, {0x8: 0}])
def test_x2_no_extended_connect_without_leave(settings: dict[int, int]) -> None:
    server = RawServer(settings)
    assert server.client.of_type(SettingsReceived) == [SettingsReceived(extended_connect=False, h3_datagram=False)]
    with pytest.raises(LocalProtocolError, match="RFC 8441"):
        server.client.engine.open_request(CONNECT_IP)


def test_x3_x5_the_request_on_the_wire() -> None:
    pair = H2Pair().run()
    stream_id = pair.client.engine.open_request(CONNECT_IP)
    pair.run()
    assert pair.server.of_type(HeadersReceived) == [HeadersReceived(stream_id, CONNECT_IP, end_stream=False)]


def test_h30_what_may_be_a_credential_is_never_indexed() -> None:
    server = RawServer(MASQUE)
    server.client.engine.open_request((*CONNECT_IP, (b"x-token", b"1")))
    server.send()
    block = server.sent(HeadersFrame)[-1].data
    indexable = {bytes(field[0]): field.indexable for field in Decoder().decode(block, raw=True)}
    assert not indexable[b"x-token"]
    assert indexable[b":method"] and indexable[b"capsule-protocol"]


def test_h25_requests_keep_below_the_peers_limit() -> None:
    size = sum(len(name) + len(value) + 32 for name, value in CONNECT_IP)
    server = RawServer({**MASQUE, SettingsFrame.MAX_HEADER_LIST_SIZE: size})
    with pytest.raises(ProxyRefused, match=f"takes {size} bytes of header fields"):
        server.client.engine.open_request((*CONNECT_IP, (b"a", b"")))
    assert server.client.engine.open_request(CONNECT_IP) == 1


def test_more_requests_than_the_peer_allows() -> None:
    server = RawServer({**MASQUE, SettingsFrame.MAX_CONCURRENT_STREAMS: 1})
    server.open_tunnel()
    with pytest.raises(ProxyRefused, match="no more tunnels"):
        server.client.engine.open_request(CONNECT_IP)


def test_many_tunnels_at_once() -> None:
    pair = H2Pair().run()
    streams = [pair.open_tunnel() for _ in range(MAX_REQUESTS)]
    for stream_id in streams:
        pair.client.engine.send_datagrams(stream_id, [b"%d" % stream_id], pair.now)
    pair.run()
    assert all(pair.server.content(s) == encode_capsule(0, b"%d" % s) for s in streams)


# --- datagrams and capsules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_b11_datagrams_travel_as_capsules_both_ways(chunk: int) -> None:
    pair = H2Pair(chunk).run()
    stream_id = pair.open_tunnel()
    payloads = [b"", b"hello", b"x" * 63, b"y" * 1500, b"z" * 20_000]
    wanted = b"".join(encode_capsule(0, b"\0" + payload) for payload in payloads)
    for sender, receiver in ((pair.client, pair.server), (pair.server, pair.client)):
        assert sender.engine.send_datagrams(stream_id, payloads, pair.now, prefix=b"\0") == len(payloads)
        pair.run()
        assert receiver.content(stream_id) == wanted


def test_the_vector_of_the_digest() -> None:
    """TV15's UDP payload "hello" as a DATAGRAM capsule."""
    server = RawServer(MASQUE)
    stream_id = server.open_tunnel()
    server.client.engine.send_datagrams(stream_id, [b"hello"], server.now, prefix=b"\0")
    server.send(PingFrame(0))
    (data,) = server.sent(DataFrame)
    assert data.data.hex() == "00060068656c6c6f"


def test_capsules_and_datagrams_never_tear_each_other() -> None:
    """Control capsules that come while half a DATAGRAM capsule has left wait for its other half."""
    server = RawServer({**MASQUE, SettingsFrame.INITIAL_WINDOW_SIZE: 10})
    stream_id = server.open_tunnel()
    server.client.engine.send_datagrams(stream_id, [b"d" * 100], server.now)
    server.send(PingFrame(0))  # ten bytes have left
    server.client.engine.send_data(stream_id, b"control")
    server.send(WindowUpdateFrame(stream_id, window_increment=10_000))
    sent = b"".join(frame.data for frame in server.sent(DataFrame))
    assert sent == encode_capsule(0, b"d" * 100) + b"control"


def test_capacity_is_any_udp_payload() -> None:
    pair = H2Pair().run()
    stream_id = pair.open_tunnel()
    assert pair.client.engine.datagram_capacity(stream_id) == MAX_HTTP_DATAGRAM_IN_CAPSULE
    assert pair.client.engine.send_datagrams(stream_id, [bytes(70_000), b"fits"], pair.now) == 2
    pair.run()
    assert pair.server.content(stream_id) == encode_capsule(0, b"fits")
    assert pair.client.engine.statistics().datagrams_too_large == 1
    assert pair.client.engine.datagram_capacity(999) == 0


# --- flow control ---------------------------------------------------------------------------------------------------


def test_k4_credit_returns_at_once_whatever_arrives() -> None:
    """Ten windows of an unknown capsule that never completes: nothing of it may hold credit back."""
    pair = H2Pair().run()
    stream_id = pair.open_tunnel()
    piece = bytes(1 << 20)
    for _ in range(10 * STREAM_WINDOW // len(piece)):
        pair.server.engine.send_data(stream_id, piece)
        pair.run()
        pair.client.events.clear()
    assert not pair.client.of_type(ConnectionClosed)
    assert pair.server.engine.statistics().bytes_in_flight == 0


def test_b12_a_closed_window_bounds_and_ages_datagrams() -> None:
    server = RawServer({**MASQUE, SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    stream_id = server.open_tunnel()
    engine, limit = server.client.engine, server.client.engine.configuration.datagram_queue_bytes
    packets = [bytes(1400)] * 1000
    taken = engine.send_datagrams(stream_id, packets, server.now)
    assert taken < len(packets)
    assert engine.is_datagram_queue_full
    assert limit <= engine.statistics().bytes_in_flight < limit + 1500
    assert engine.send_datagrams(stream_id, packets, server.now) == 0
    server.now += engine.configuration.datagram_queue_s
    assert (timeout := engine.next_timeout()) is not None and timeout <= server.now
    engine.handle_timeout(server.now)
    assert engine.statistics().datagrams_expired == taken
    assert engine.send_datagrams(stream_id, [b"room again"], server.now) == 1
    server.send(WindowUpdateFrame(stream_id, window_increment=1 << 20))
    assert [frame.data for frame in server.sent(DataFrame)] == [encode_capsule(0, b"room again")]


def test_one_blocked_stream_does_not_stop_the_others() -> None:
    server = RawServer(MASQUE)
    blocked, free = server.open_tunnel(), server.open_tunnel()
    server.client.engine.send_data(blocked, bytes(65_535))
    server.send(WindowUpdateFrame(0, window_increment=1 << 20))
    server.client.engine.send_datagrams(blocked, [b"waits"], server.now)
    server.client.engine.send_datagrams(free, [b"goes"], server.now)
    server.send(PingFrame(0))
    assert [frame.data for frame in server.sent(DataFrame) if frame.stream_id == free] == [encode_capsule(0, b"goes")]


def test_a_full_byte_stream_pauses_datagrams_and_nothing_else() -> None:
    pair = H2Pair().run()
    stream_id = pair.open_tunnel()
    pair.client.engine.pause_sending()
    pair.client.engine.send_datagrams(stream_id, [b"later"], pair.now)
    pair.client.engine.ping()
    pair.run()
    assert pair.server.content(stream_id) == b""
    assert pair.client.engine.statistics().rtt_s is not None, "the PING went out and came back"
    pair.client.engine.resume_sending()
    pair.run()
    assert pair.server.content(stream_id) == encode_capsule(0, b"later")


def test_content_that_the_peer_never_takes_ends_its_stream() -> None:
    server = RawServer({**MASQUE, SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    stream_id = server.open_tunnel()
    for _ in range(MAX_CONTENT_BYTES // 65_536 + 2):
        server.client.engine.send_data(stream_id, bytes(65_536))
    server.send(PingFrame(0))
    assert server.client.of_type(StreamReset) == [StreamReset(stream_id, H3ErrorCode.H3_EXCESSIVE_LOAD)]
    assert server.reset_codes() == [H2ErrorCode.ENHANCE_YOUR_CALM]


# --- the end of a stream --------------------------------------------------------------------------------------------


def test_b13_an_orderly_end_from_either_side() -> None:
    pair = H2Pair().run()
    stream_id = pair.open_tunnel()
    pair.client.engine.send_data(stream_id, b"last", end_stream=True)
    assert pair.client.engine.send_datagrams(stream_id, [b"late"], pair.now) == 1, "dealt with: dropped"
    pair.run()
    assert pair.server.of_type(DataReceived)[-1].end_stream
    assert pair.server.content(stream_id) == b"last"
    pair.server.engine.send_data(stream_id, b"", end_stream=True)
    pair.run()
    assert pair.client.of_type(DataReceived)[-1].end_stream
    assert pair.client.engine.datagram_capacity(stream_id) == 0


@pytest.mark.parametrize(
    ("code", "wire"),
    [
        (H3ErrorCode.H3_REQUEST_CANCELLED, H2ErrorCode.CANCEL),
        (H3ErrorCode.H3_MESSAGE_ERROR, H2ErrorCode.PROTOCOL_ERROR),
        (H3ErrorCode.H3_DATAGRAM_ERROR, H2ErrorCode.PROTOCOL_ERROR),
        (H3ErrorCode.H3_EXCESSIVE_LOAD, H2ErrorCode.ENHANCE_YOUR_CALM),
        (H3ErrorCode.H3_REQUEST_REJECTED, H2ErrorCode.REFUSED_STREAM),
    ],
)
def test_b13_resets_carry_the_code_of_http2(code: H3ErrorCode, wire: H2ErrorCode) -> None:
    server = RawServer(MASQUE)
    stream_id = server.open_tunnel()
    server.client.engine.reset_stream(stream_id, code)
    server.client.engine.reset_stream(stream_id, code)
    server.send(PingFrame(0))
    assert server.reset_codes() == [wire]


def test_every_code_has_a_name_on_the_other_side() -> None:
    assert all(isinstance(to_http2(code), H2ErrorCode) for code in H3ErrorCode)
    assert to_http3(H2ErrorCode.CANCEL) == H3ErrorCode.H3_REQUEST_CANCELLED
    assert to_http3(0x1234) == H3ErrorCode.H3_GENERAL_PROTOCOL_ERROR


def test_a_reset_from_the_peer_ends_both_halves() -> None:
    server = RawServer(MASQUE)
    stream_id = server.open_tunnel()
    server.send(RstStreamFrame(stream_id, error_code=H2ErrorCode.CANCEL))
    assert server.client.of_type(StreamReset) == [StreamReset(stream_id, H3ErrorCode.H3_REQUEST_CANCELLED)]
    assert server.client.engine.datagram_capacity(stream_id) == 0


def test_no_error_after_the_response_is_a_wish_to_stop() -> None:
    """RFC 9113 §8.1: the server has answered in full and does not want the rest of the request."""
    server = RawServer(MASQUE)
    stream_id = server.client.engine.open_request(CONNECT_IP)
    server.send(
        server.headers(stream_id, (b":status", b"403"), flags=["END_STREAM"]),
        RstStreamFrame(stream_id, error_code=H2ErrorCode.NO_ERROR),
    )
    assert server.client.of_type(HeadersReceived)[-1].end_stream
    assert server.client.of_type(StopSendingReceived) == [StopSendingReceived(stream_id, H3ErrorCode.H3_NO_ERROR)]


# --- the server's side ----------------------------------------------------------------------------------------------


def test_a_malformed_request_is_reset() -> None:
    pair = H2Pair().run()
    bad = tuple(field for field in CONNECT_IP if field[0] != b":path")
    pair.client.engine._h2.config.validate_outbound_headers = False
    pair.client.engine.open_request(bad)
    pair.run()
    assert pair.server.of_type(HeadersReceived) == []
    assert pair.client.of_type(StreamReset)[0].error_code == H3ErrorCode.H3_MESSAGE_ERROR


def test_a_refusal_with_the_end_of_the_stream() -> None:
    pair = H2Pair().run()
    stream_id = pair.client.engine.open_request(CONNECT_IP)
    pair.run()
    pair.server.engine.send_headers(stream_id, [(b":status", b"403")], end_stream=True)
    pair.run()
    assert pair.client.of_type(HeadersReceived)[-1].end_stream


def test_extended_connect_can_be_withheld() -> None:
    pair = H2Pair(extended_connect=False).run()
    assert pair.client.of_type(SettingsReceived) == [SettingsReceived(extended_connect=False, h3_datagram=False)]


def test_connect_needs_no_address_that_answers() -> None:
    engine = H2Engine(EngineConfiguration(server_name="x"), b"certificate")
    engine.connect(ADDRESS, 0.0)
    assert engine.next_event() == HandshakeCompleted(b"certificate")


def test_headers_frames_are_read_in_pieces() -> None:
    server = RawServer(MASQUE)
    stream_id = server.client.engine.open_request(CONNECT_IP)
    frame: HeadersFrame = server.headers(stream_id, *OK)
    for byte in frame.serialize():
        server.send_bytes(bytes([byte]))
    assert server.client.of_type(HeadersReceived) == [HeadersReceived(stream_id, OK, end_stream=False)]
