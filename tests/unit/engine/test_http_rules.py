"""What a peer's broken HTTP/3 gets (RFC 9114, RFC 9220, RFC 9297 §2.1)."""

from __future__ import annotations

import pytest

from masque_client.engine.interface import (
    ConnectionClosed,
    DataReceived,
    GoAwayReceived,
    HeadersReceived,
    SettingsReceived,
    StopSendingReceived,
    StreamReset,
)
from masque_client.errors import LocalProtocolError, ProxyRefused, RemoteProtocolError
from masque_client.protocol.error_codes import H3ErrorCode
from tests.sim.link import Pair
from tests.unit.engine import raw
from tests.unit.engine.conftest import CONNECT_IP, OK, MakePair, open_tunnel, settle

GOOD_SETTINGS = raw.settings((0x08, 1), (0x33, 1))
OK_HEADERS = raw.frame(raw.HEADERS, raw.literal((b":status", b"200")))


def close_code(pair: Pair) -> int | None:
    """With which code did the client close, and did the silenced server hear it?"""
    pair.run(for_s=0.3)
    closed = pair.client.of_type(ConnectionClosed)
    if not closed:
        assert not pair.server.of_type(ConnectionClosed)
        return None
    assert closed[0].is_application
    assert isinstance(closed[0].error, RemoteProtocolError)
    assert pair.server.of_type(ConnectionClosed)[0].error_code == closed[0].error_code
    return closed[0].error_code


def against_raw_server(pair: Pair, control: bytes) -> Pair:
    raw.handshake(pair, silent_server=True)
    raw.open_uni(pair.server, raw.CONTROL + control)
    return pair


@pytest.mark.parametrize(
    ("control", "code"),
    [
        pytest.param(raw.settings((0x33, 2)), H3ErrorCode.H3_SETTINGS_ERROR, id="row 8: 0x33=2 (TX18)"),
        pytest.param(raw.settings((0x08, 2)), H3ErrorCode.H3_SETTINGS_ERROR, id="X-1: 0x08=2"),
        pytest.param(raw.settings((0x02, 0)), H3ErrorCode.H3_SETTINGS_ERROR, id="row 9: 0x02 (TX19)"),
        pytest.param(raw.settings((0x05, 0)), H3ErrorCode.H3_SETTINGS_ERROR, id="row 9: 0x05"),
        pytest.param(raw.settings((0x33, 1), (0x33, 1)), H3ErrorCode.H3_SETTINGS_ERROR, id="row 9: twice"),
        pytest.param(raw.frame(raw.SETTINGS, b"\x40"), H3ErrorCode.H3_FRAME_ERROR, id="H-11: cut identifier"),
        pytest.param(raw.frame(raw.GOAWAY, b"\0"), H3ErrorCode.H3_MISSING_SETTINGS, id="H-10: GOAWAY first"),
        pytest.param(raw.frame(0x21, b""), H3ErrorCode.H3_MISSING_SETTINGS, id="H-10: unknown first"),
        pytest.param(GOOD_SETTINGS + GOOD_SETTINGS, H3ErrorCode.H3_FRAME_UNEXPECTED, id="H-10: second SETTINGS"),
        pytest.param(GOOD_SETTINGS + raw.frame(raw.DATA, b""), H3ErrorCode.H3_FRAME_UNEXPECTED, id="H-10: DATA"),
        pytest.param(GOOD_SETTINGS + OK_HEADERS, H3ErrorCode.H3_FRAME_UNEXPECTED, id="H-10: HEADERS"),
        pytest.param(
            GOOD_SETTINGS + raw.frame(raw.MAX_PUSH_ID, b"\0"), H3ErrorCode.H3_FRAME_UNEXPECTED, id="H-10: MAX_PUSH_ID"
        ),
        pytest.param(GOOD_SETTINGS + raw.frame(0x02, b""), H3ErrorCode.H3_FRAME_UNEXPECTED, id="HTTP/2 PRIORITY"),
        pytest.param(GOOD_SETTINGS + raw.frame(0x09, b""), H3ErrorCode.H3_FRAME_UNEXPECTED, id="HTTP/2 CONTINUATION"),
        pytest.param(GOOD_SETTINGS + raw.frame(raw.GOAWAY, b""), H3ErrorCode.H3_FRAME_ERROR, id="H-11: empty GOAWAY"),
        pytest.param(GOOD_SETTINGS + raw.frame(raw.GOAWAY, b"\0\0"), H3ErrorCode.H3_FRAME_ERROR, id="H-11: long"),
        pytest.param(GOOD_SETTINGS + raw.frame(raw.GOAWAY, b"\1"), H3ErrorCode.H3_ID_ERROR, id="H-16: not a request"),
        pytest.param(
            GOOD_SETTINGS + raw.frame(raw.GOAWAY, b"\4") + raw.frame(raw.GOAWAY, b"\x08"),
            H3ErrorCode.H3_ID_ERROR,
            id="H-16: larger than before",
        ),
    ],
)
def test_bad_control_stream_closes_the_connection(make_pair: MakePair, control: bytes, code: H3ErrorCode) -> None:
    assert close_code(against_raw_server(make_pair(), control)) == code


def test_unknown_settings_and_frames_are_skipped(make_pair: MakePair) -> None:
    control = (
        raw.settings((0x08, 1), (0x33, 1), (0x2B603742, 7), (0xFFD277, 9), (0x21, 5))
        + raw.frame(0x21, b"x" * 100)
        + raw.frame(0x4040, b"")
        + raw.frame(raw.GOAWAY, b"\x08")
        + raw.frame(0x21, b"GOAWAY?")
        + raw.frame(raw.GOAWAY, b"\x04")
    )
    pair = against_raw_server(make_pair(), control)
    assert close_code(pair) is None
    assert pair.client.of_type(SettingsReceived) == [SettingsReceived(extended_connect=True, h3_datagram=True)]
    assert pair.client.of_type(GoAwayReceived) == [GoAwayReceived(8), GoAwayReceived(4)]
    with pytest.raises(LocalProtocolError, match="GOAWAY"):
        pair.client.engine.open_request(CONNECT_IP)


def test_goaway_in_single_bytes(make_pair: MakePair) -> None:
    pair = make_pair()
    raw.handshake(pair, silent_server=True)
    stream_id = raw.open_uni(pair.server, b"")
    for byte in raw.CONTROL + GOOD_SETTINGS + raw.frame(raw.GOAWAY, b"\x40\x04"):
        raw.quic(pair.server).send_stream_data(stream_id, bytes([byte]))
        pair.run(for_s=0.05)
    assert pair.client.of_type(GoAwayReceived) == [GoAwayReceived(4)]


@pytest.mark.parametrize(
    ("control", "why"),
    [(raw.settings((0x33, 1)), "extended CONNECT"), (raw.settings((0x08, 0)), "extended CONNECT"), (b"", "SETTINGS")],
)
def test_extended_connect_waits_for_the_peers_permission(make_pair: MakePair, control: bytes, why: str) -> None:
    pair = make_pair()
    with pytest.raises(LocalProtocolError, match="SETTINGS"):
        pair.client.engine.open_request(CONNECT_IP)
    against_raw_server(pair, control)
    pair.run(for_s=0.3)
    with pytest.raises(LocalProtocolError, match=why):
        pair.client.engine.open_request(CONNECT_IP)


def test_requests_keep_below_the_peers_limit(make_pair: MakePair) -> None:
    """RFC 9114 §4.2.2: a field counts its name, its value and 32 bytes."""
    size = sum(len(name) + len(value) + 32 for name, value in CONNECT_IP)
    pair = against_raw_server(make_pair(), raw.settings((0x08, 1), (0x33, 1), (0x06, size)))
    pair.run(for_s=0.3)
    with pytest.raises(ProxyRefused, match=f"takes {size} bytes of header fields and the request has {size + 33}"):
        pair.client.engine.open_request((*CONNECT_IP, (b"a", b"")))
    assert pair.client.engine.open_request(CONNECT_IP) == 0, "what was refused has not used up a stream"


@pytest.mark.parametrize("stream", [raw.CONTROL, raw.QPACK_ENCODER, raw.QPACK_DECODER])
def test_a_second_critical_stream_or_a_closed_one(make_pair: MakePair, stream: bytes) -> None:
    pair = against_raw_server(make_pair(), GOOD_SETTINGS)
    if stream != raw.CONTROL:
        raw.open_uni(pair.server, stream)
    pair.run(for_s=0.1)
    raw.open_uni(pair.server, stream)
    assert close_code(pair) == H3ErrorCode.H3_STREAM_CREATION_ERROR


def test_a_closed_control_stream(make_pair: MakePair) -> None:
    pair = make_pair()
    raw.handshake(pair, silent_server=True)
    stream_id = raw.open_uni(pair.server, raw.CONTROL + GOOD_SETTINGS)
    pair.run(for_s=0.1)
    raw.quic(pair.server).send_stream_data(stream_id, b"", True)
    assert close_code(pair) == H3ErrorCode.H3_CLOSED_CRITICAL_STREAM


def test_unknown_unidirectional_streams_are_ignored(make_pair: MakePair) -> None:
    pair = against_raw_server(make_pair(), GOOD_SETTINGS)
    raw.open_uni(pair.server, b"\x21" + bytes(500))
    raw.open_uni(pair.server, b"\x40\x40 data")
    assert close_code(pair) is None


def test_pushes_are_refused(make_pair: MakePair) -> None:
    pair = against_raw_server(make_pair(), GOOD_SETTINGS)
    raw.open_uni(pair.server, b"\x01\x00" + OK_HEADERS)
    assert close_code(pair) == H3ErrorCode.H3_ID_ERROR


def test_a_server_opens_no_bidirectional_stream(make_pair: MakePair) -> None:
    pair = against_raw_server(make_pair(), GOOD_SETTINGS)
    raw.quic(pair.server).send_stream_data(1, b"hello")
    assert close_code(pair) == H3ErrorCode.H3_STREAM_CREATION_ERROR


def request_to_raw_server(pair: Pair) -> int:
    against_raw_server(pair, GOOD_SETTINGS)
    pair.run(for_s=0.1)
    stream_id = pair.client.engine.open_request(CONNECT_IP)
    pair.run(for_s=0.1)
    return stream_id


@pytest.mark.parametrize(
    ("response", "end", "code"),
    [
        pytest.param(raw.frame(raw.DATA, b"x"), False, H3ErrorCode.H3_FRAME_UNEXPECTED, id="row 27: DATA first"),
        pytest.param(OK_HEADERS + b"\x00\x05abc", True, H3ErrorCode.H3_FRAME_ERROR, id="row 28: cut DATA"),
        pytest.param(OK_HEADERS + b"\x00", True, H3ErrorCode.H3_FRAME_ERROR, id="row 28: cut frame header"),
        pytest.param(OK_HEADERS[:-2], True, H3ErrorCode.H3_FRAME_ERROR, id="row 28: cut HEADERS"),
        pytest.param(
            OK_HEADERS + raw.frame(raw.HEADERS, raw.literal((b"x", b"y"))),
            False,
            H3ErrorCode.H3_FRAME_UNEXPECTED,
            id="row 25: trailers after a 2xx",
        ),
        pytest.param(OK_HEADERS + GOOD_SETTINGS, False, H3ErrorCode.H3_FRAME_UNEXPECTED, id="H-10: SETTINGS"),
        pytest.param(
            OK_HEADERS + raw.frame(raw.GOAWAY, b"\0"), False, H3ErrorCode.H3_FRAME_UNEXPECTED, id="H-17: GOAWAY"
        ),
        pytest.param(
            raw.frame(raw.PUSH_PROMISE, b"\0" + raw.literal((b":method", b"GET"), (b":scheme", b"https"),
                                                          (b":authority", b"a"), (b":path", b"/"))),
            False,
            H3ErrorCode.H3_ID_ERROR,
            id="H-9: PUSH_PROMISE",
        ),
        pytest.param(
            raw.frame(raw.HEADERS, b"\0\0\xff\xff\xff"),
            False,
            H3ErrorCode.QPACK_DECOMPRESSION_FAILED,
            id="H-29: bad field section",
        ),
    ],
)  # fmt: skip
def test_bad_frames_on_a_request_stream_close_the_connection(
    make_pair: MakePair, response: bytes, end: bool, code: H3ErrorCode
) -> None:
    pair = make_pair()
    stream_id = request_to_raw_server(pair)
    raw.quic(pair.server).send_stream_data(stream_id, response, end)
    assert close_code(pair) == code


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([(b"server", b"x")], id="row 26: no :status"),
        pytest.param([(b":status", b"20")], id="two digits"),
        pytest.param([(b":status", b"101")], id="H-20: 101"),
        pytest.param([(b":status", b"200"), (b"Server", b"x")], id="row 26: upper case"),
        pytest.param([(b":status", b"200"), (b"connection", b"close")], id="row 26: Connection"),
        pytest.param([(b"server", b"x"), (b":status", b"200")], id="H-18: pseudo-header last"),
        pytest.param([(b":status", b"200"), (b":path", b"/")], id="H-18: request pseudo-header"),
        pytest.param([(b":status", b"200"), (b":status", b"200")], id="H-18: twice"),
    ],
)
def test_malformed_responses_end_only_their_stream(make_pair: MakePair, fields: list[tuple[bytes, bytes]]) -> None:
    pair = make_pair()
    stream_id = request_to_raw_server(pair)
    raw.quic(pair.server).send_stream_data(stream_id, raw.frame(raw.HEADERS, raw.literal(*fields)))
    assert close_code(pair) is None
    assert pair.client.of_type(StreamReset) == [StreamReset(stream_id, H3ErrorCode.H3_MESSAGE_ERROR)]
    assert not pair.client.of_type(HeadersReceived)


def test_a_response_that_ends_before_its_headers(make_pair: MakePair) -> None:
    pair = make_pair()
    stream_id = request_to_raw_server(pair)
    raw.quic(pair.server).send_stream_data(stream_id, b"", True)
    assert close_code(pair) is None
    assert pair.client.of_type(StreamReset) == [StreamReset(stream_id, H3ErrorCode.H3_MESSAGE_ERROR)]


def test_interim_responses_unknown_frames_and_split_data(make_pair: MakePair) -> None:
    pair = make_pair()
    stream_id = request_to_raw_server(pair)
    interim = raw.frame(raw.HEADERS, raw.literal((b":status", b"103")))
    stream = interim + raw.frame(0x21, b"grease") + OK_HEADERS + raw.frame(0x21, b"") + raw.frame(raw.DATA, b"abcdef")
    for byte in stream:
        raw.quic(pair.server).send_stream_data(stream_id, bytes([byte]))
        pair.run(for_s=0.03)
    raw.quic(pair.server).send_stream_data(stream_id, raw.frame(0x21, b"last"), True)
    assert close_code(pair) is None
    assert [event.headers for event in pair.client.of_type(HeadersReceived)] == [
        ((b":status", b"103"),),
        ((b":status", b"200"),),
    ]
    received = pair.client.of_type(DataReceived)
    assert b"".join(event.data for event in received) == b"abcdef"
    assert [event.end_stream for event in received] == [False] * (len(received) - 1) + [True]


def test_trailers_of_a_refusal_are_passed_on(make_pair: MakePair) -> None:
    pair = settle(make_pair())
    stream_id = pair.client.engine.open_request(CONNECT_IP)
    pair.run(for_s=0.1)
    pair.server.engine.send_headers(stream_id, ((b":status", b"403"),))
    pair.server.engine.send_data(stream_id, b"no")
    pair.server.engine.send_headers(stream_id, ((b"x-trailer", b"1"),), end_stream=True)
    pair.run(for_s=0.1)
    assert [event.end_stream for event in pair.client.of_type(HeadersReceived)] == [False, True]
    assert not pair.client.of_type(ConnectionClosed)


def test_stop_sending_does_not_lose_the_response(make_pair: MakePair) -> None:
    """H-31: quic-go answers errors with STOP_SENDING beside HEADERS + FIN, and the former may arrive first."""
    pair = settle(make_pair())
    stream_id = pair.client.engine.open_request(CONNECT_IP)
    pair.run(for_s=0.1)
    raw.quic(pair.server).stop_stream(stream_id, 0x100)
    pair.run(for_s=0.1)
    assert pair.client.of_type(StopSendingReceived) == [StopSendingReceived(stream_id, 0x100)]
    assert pair.server.of_type(StreamReset) == [StreamReset(stream_id, 0x100)], "H-24: answered with RESET_STREAM"
    pair.server.engine.send_headers(stream_id, ((b":status", b"403"),))
    pair.server.engine.send_data(stream_id, b"no", end_stream=True)
    pair.run(for_s=0.1)
    assert pair.client.of_type(HeadersReceived) == [HeadersReceived(stream_id, ((b":status", b"403"),), False)]
    assert pair.client.of_type(DataReceived)[-1].end_stream
    pair.client.engine.send_data(stream_id, b"ignored")
    assert pair.client.engine.send_datagrams(stream_id, [b"ignored"], pair.now) == 1
    pair.run(for_s=0.1)
    assert not pair.server.payloads()


def test_reset_abandons_both_halves(make_pair: MakePair) -> None:
    pair = settle(make_pair())
    stream_id = open_tunnel(pair)
    pair.client.engine.reset_stream(stream_id, H3ErrorCode.H3_REQUEST_CANCELLED)
    pair.client.engine.reset_stream(stream_id, H3ErrorCode.H3_REQUEST_CANCELLED)
    pair.run(for_s=0.2)
    code = H3ErrorCode.H3_REQUEST_CANCELLED
    assert pair.server.of_type(StreamReset) == [StreamReset(stream_id, code)]
    assert pair.server.of_type(StopSendingReceived) == [StopSendingReceived(stream_id, code)]
    pair.server.engine.reset_stream(stream_id, code)
    pair.server.engine.send_data(stream_id, b"late")
    again = open_tunnel(pair)
    assert again == stream_id + 4


MALFORMED_REQUESTS = [
    pytest.param([(b":method", b"CONNECT"), (b":protocol", b"connect-ip")], id="X-3: no :path"),
    pytest.param([*CONNECT_IP, (b"Upper", b"x")], id="row 26: upper case"),
    pytest.param([*CONNECT_IP, (b"upgrade", b"x")], id="X-4: Upgrade"),
    pytest.param([*CONNECT_IP, (b":path", b"/")], id="H-18: pseudo-header last"),
]


@pytest.mark.parametrize("fields", MALFORMED_REQUESTS)
def test_malformed_requests_are_reset(make_pair: MakePair, fields: list[tuple[bytes, bytes]]) -> None:
    pair = make_pair()
    raw.handshake(pair, silent_client=True)
    raw.open_uni(pair.client, raw.CONTROL + raw.settings((0x33, 1)))
    raw.quic(pair.client).send_stream_data(0, raw.frame(raw.HEADERS, raw.literal(*fields)))
    pair.run(for_s=0.3)
    assert not pair.server.of_type(HeadersReceived)
    assert not pair.server.of_type(ConnectionClosed)
    section = raw.frame(raw.HEADERS, raw.literal(*CONNECT_IP))
    raw.quic(pair.client).send_stream_data(4, section)
    pair.run(for_s=0.3)
    assert [event.stream_id for event in pair.server.of_type(HeadersReceived)] == [4]
    pair.server.engine.send_headers(4, OK)


def test_clients_trailers_in_a_tunnel(make_pair: MakePair) -> None:
    pair = make_pair()
    raw.handshake(pair, silent_client=True)
    raw.open_uni(pair.client, raw.CONTROL + raw.settings((0x33, 1)))
    trailers = raw.frame(raw.HEADERS, raw.literal((b"x", b"y")))
    raw.quic(pair.client).send_stream_data(0, raw.frame(raw.HEADERS, raw.literal(*CONNECT_IP)) + trailers)
    pair.run(for_s=0.3)
    assert pair.server.of_type(ConnectionClosed)[0].error_code == H3ErrorCode.H3_FRAME_UNEXPECTED


def test_the_peers_limit_of_requests_is_an_answer_not_a_bug(make_pair: MakePair) -> None:
    pair = settle(make_pair())
    opened = 0
    with pytest.raises(ProxyRefused, match="no more tunnels"):
        while opened < 200:
            pair.client.engine.open_request(CONNECT_IP)
            opened += 1
    assert 100 <= opened <= 128
    pair.run(for_s=0.2)
    assert len(pair.server.of_type(HeadersReceived)) == opened
    pair.client.engine.reset_stream(0, 0x10C)
    pair.server.engine.reset_stream(0, 0x10C)
    pair.run(for_s=0.2)
    assert open_tunnel(pair) == opened * 4
