"""HTTP Datagrams: sizes, the gate, bad and stray ones, queueing (RFC 9221, RFC 9297 §2.1)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from masque_client.engine.interface import (
    ConnectionClosed,
    DatagramsReceived,
    HeadersReceived,
    SettingsReceived,
    StreamReset,
)
from masque_client.errors import RemoteProtocolError
from masque_client.protocol.error_codes import H3ErrorCode
from tests.sim.link import Conditions
from tests.unit.engine import raw
from tests.unit.engine.conftest import CONNECT_IP, MakePair, open_tunnel, settle

OVERHEAD = 1 + 8 + 2 + 16 + 1 + 2 + 1
"""Short header with 8-byte CID and 2-byte number, tag, frame type, Length, Quarter Stream ID."""


@pytest.mark.parametrize("size", [1200, 1350, 1452, 1472])
def test_capacity_is_exact(make_pair: MakePair, size: int) -> None:
    pair = settle(make_pair(both={"max_udp_payload": size}))
    stream_id = open_tunnel(pair)
    for sender, receiver in ((pair.client, pair.server), (pair.server, pair.client)):
        capacity = sender.engine.datagram_capacity(stream_id)
        assert capacity == size - OVERHEAD
        assert sender.engine.statistics().max_udp_payload == size
        sender.sent.clear()
        payloads = [bytes(capacity), bytes(capacity + 1), b"small", bytes(capacity - 1) + b"!"]
        assert sender.engine.send_datagrams(stream_id, payloads, pair.now) == 4
        assert (
            sender.engine.send_datagrams(stream_id, [bytes(capacity - 1), bytes(capacity)], pair.now, prefix=b"\0") == 2
        )
        pair.run(for_s=0.2)
        assert receiver.payloads() == [payloads[0], payloads[2], payloads[3], bytes(capacity)]
        assert sender.engine.statistics().datagrams_too_large == 2
        assert max(map(len, sender.sent)) == size


def test_every_full_datagram_fits_whatever_else_the_packets_carry(make_pair: MakePair) -> None:
    """Acknowledgements, capsules and pings share packets with datagrams; none may push a full one out."""
    conditions = Conditions(delay_s=0.01, jitter_s=0.01, loss=0.05)
    pair = settle(make_pair(conditions=conditions, both={"datagram_queue_s": 60.0}))
    stream_id = open_tunnel(pair)
    sent = 0
    for _ in range(100):
        for end in pair.ends:
            capacity = end.engine.datagram_capacity(stream_id)
            end.engine.ping()
            end.engine.send_data(stream_id, b"capsule")
            assert end.engine.send_datagrams(stream_id, [bytes(capacity)] * 3, pair.now) == 3
        sent += 3
        pair.run(for_s=0.01)
    pair.run(for_s=20)
    for end in pair.ends:
        assert not end.of_type(ConnectionClosed)
        assert len(end.payloads()) > sent * 0.9
        assert max(map(len, end.sent)) <= 1350


def test_initials_are_as_large_as_full_packets(make_pair: MakePair) -> None:
    pair = settle(make_pair(both={"max_udp_payload": 1400}))
    for end in pair.ends:
        initials = [data for data in end.sent if data[0] & 0xF0 == 0xC0]
        assert initials
        assert {len(data) for data in initials if end is pair.client} <= {1400}
        assert max(map(len, initials)) == 1400


def test_a_path_that_is_too_small_never_completes_the_handshake(make_pair: MakePair) -> None:
    pair = make_pair(client={"idle_timeout_s": 3.0}, conditions=Conditions(mtu=1349))
    pair.connect()
    assert pair.run(lambda: bool(pair.client.of_type(ConnectionClosed)))
    assert len(pair.ends) == 1


def test_the_peers_frame_limit_counts(make_pair: MakePair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Q-2: type, Length and data together stay within the peer's max_datagram_frame_size."""
    monkeypatch.setattr("masque_client.engine.h3_rules.MAX_DATAGRAM_FRAME_SIZE", 1000)
    pair = settle(make_pair())
    stream_id = open_tunnel(pair)
    assert pair.client.engine.datagram_capacity(stream_id) == 1000 - 3 - 1
    pair.client.engine.send_datagrams(stream_id, [bytes(996), bytes(997)], pair.now)
    pair.run(for_s=0.2)
    assert [len(payload) for payload in pair.server.payloads()] == [996]
    assert not pair.client.of_type(ConnectionClosed)


def test_the_quarter_stream_id_grows(make_pair: MakePair) -> None:
    pair = settle(make_pair())
    first = open_tunnel(pair)
    stream_id = first
    while stream_id < 256:
        pair.client.engine.reset_stream(stream_id, 0x10C)
        pair.server.engine.reset_stream(stream_id, 0x10C)
        stream_id = open_tunnel(pair)
    capacity = pair.client.engine.datagram_capacity(stream_id)
    assert capacity == 1350 - OVERHEAD - 1
    pair.client.engine.send_datagrams(stream_id, [bytes(capacity)], pair.now)
    pair.run(for_s=0.2)
    (event,) = pair.server.of_type(DatagramsReceived)
    assert (event.stream_id, event.payloads) == (stream_id, [bytes(capacity)])


@pytest.mark.parametrize("without", ["client", "server"])
def test_no_datagrams_unless_both_ends_want_them(make_pair: MakePair, without: str) -> None:
    """D-11; `test_h3_capsules` shows what is done instead."""
    pair = settle(make_pair(**{without: {"h3_datagram": False}}))
    stream_id = open_tunnel(pair)
    for end in pair.ends:
        assert end.of_type(SettingsReceived)[0].h3_datagram is False
        assert end.engine.send_datagrams(stream_id, [b"x", b""], pair.now) == 2
    pair.run(for_s=0.2)
    for end in pair.ends:
        assert not end.payloads()
        assert not end.of_type(ConnectionClosed)


def test_extended_connect_is_advertised_only_if_wanted(make_pair: MakePair) -> None:
    pair = settle(make_pair(server={"extended_connect": False}))
    assert pair.client.of_type(SettingsReceived) == [SettingsReceived(extended_connect=False, h3_datagram=True)]


def test_setting_without_transport_parameter_is_no_error(make_pair: MakePair) -> None:
    """L-7: 0x33=1 and no max_datagram_frame_size is odd but allowed; QUIC datagrams are then off."""
    pair = make_pair(server={"h3_datagram": False})
    raw.handshake(pair, silent_server=True)
    raw.open_uni(pair.server, raw.CONTROL + raw.settings((0x08, 1), (0x33, 1)))
    pair.run(for_s=0.2)
    assert pair.client.of_type(SettingsReceived) == [SettingsReceived(extended_connect=True, h3_datagram=False)]


@pytest.mark.parametrize(
    ("datagram", "code"),
    [
        pytest.param(b"", H3ErrorCode.H3_DATAGRAM_ERROR, id="row 1: empty (TX16)"),
        pytest.param(b"\x40", H3ErrorCode.H3_DATAGRAM_ERROR, id="row 1: cut (TX16)"),
        pytest.param(bytes.fromhex("d00000000000000000"), H3ErrorCode.H3_DATAGRAM_ERROR, id="row 2: 2^60 (TX15)"),
        pytest.param(bytes.fromhex("cfffffffffffffff00"), H3ErrorCode.H3_ID_ERROR, id="row 3: beyond the limit"),
    ],
)
def test_bad_quarter_stream_ids_close_the_connection(make_pair: MakePair, datagram: bytes, code: H3ErrorCode) -> None:
    pair = settle(make_pair())
    open_tunnel(pair)
    raw.quic(pair.client).send_datagram_frame(datagram)
    pair.run(for_s=0.2)
    (closed,) = pair.server.of_type(ConnectionClosed)
    assert (closed.error_code, closed.is_application) == (code, True)
    assert isinstance(closed.error, RemoteProtocolError)
    assert pair.client.of_type(ConnectionClosed)[0].error_code == code


def test_unknown_streams_are_strays(make_pair: MakePair) -> None:
    """Row 4, D-6: on both sides dropped and counted; on the client even far beyond any limit."""
    pair = settle(make_pair())
    stream_id = open_tunnel(pair)
    raw.quic(pair.client).send_datagram_frame(b"\x07early")
    raw.quic(pair.server).send_datagram_frame(b"\x07never")
    pair.client.engine.send_datagrams(stream_id, [b"fine"], pair.now)
    pair.run(for_s=0.2)
    assert pair.server.payloads() == [b"fine"]
    assert not pair.client.payloads()
    assert [end.engine.statistics().datagrams_stray for end in pair.ends] == [1, 1]


def test_datagrams_stop_when_a_half_closes(make_pair: MakePair) -> None:
    """D-4: nothing after our FIN. D-5 (row 5): nothing delivered after theirs."""
    pair = settle(make_pair())
    stream_id = open_tunnel(pair)
    pair.client.engine.send_data(stream_id, b"", end_stream=True)
    assert pair.client.engine.send_datagrams(stream_id, [b"late"], pair.now) == 1
    assert pair.client.engine.datagram_capacity(stream_id) == 0
    pair.run(for_s=0.2)
    raw.quic(pair.client).send_datagram_frame(b"\x00late")
    pair.server.engine.send_datagrams(stream_id, [b"still open"], pair.now)
    pair.run(for_s=0.2)
    assert not pair.server.payloads()
    assert pair.client.payloads() == [b"still open"]
    assert pair.server.engine.statistics().datagrams_stray == 1


def test_a_datagram_on_a_plain_request_ends_that_request(make_pair: MakePair) -> None:
    """Row 6, D-1."""
    pair = settle(make_pair())
    get = ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"proxy.example"), (b":path", b"/"))
    stream_id = pair.client.engine.open_request(get)
    pair.run(for_s=0.1)
    raw.quic(pair.client).send_datagram_frame(b"\x00x")
    pair.run(for_s=0.2)
    assert pair.server.of_type(StreamReset) == [StreamReset(stream_id, H3ErrorCode.H3_DATAGRAM_ERROR)]
    assert pair.client.of_type(StreamReset) == [StreamReset(stream_id, H3ErrorCode.H3_DATAGRAM_ERROR)]
    assert not pair.server.of_type(ConnectionClosed)


def test_a_datagram_may_overtake_the_response(make_pair: MakePair) -> None:
    """D-8: the engine delivers it; the session above decides what it is worth before the 2xx."""
    pair = settle(make_pair())
    stream_id = pair.client.engine.open_request(CONNECT_IP)
    pair.run(for_s=0.1)
    assert pair.server.engine.send_datagrams(stream_id, [b"early"], pair.now) == 1
    pair.run(for_s=0.1)
    assert pair.client.payloads() == [b"early"]
    assert not pair.client.of_type(HeadersReceived)


def test_datagrams_of_one_stream_come_as_one_event(make_pair: MakePair) -> None:
    pair = settle(make_pair())
    one, two = open_tunnel(pair), open_tunnel(pair)
    for stream_id, payloads in ((one, [b"a", b"b"]), (two, [b"c"]), (one, [b"d"])):
        pair.client.engine.send_datagrams(stream_id, payloads, pair.now)
    pair.run(for_s=0.2)
    events = [(event.stream_id, event.payloads) for event in pair.server.of_type(DatagramsReceived)]
    assert events == [(one, [b"a", b"b"]), (two, [b"c"]), (one, [b"d"])]


def test_a_full_queue_pushes_back_and_empties_again(make_pair: MakePair) -> None:
    pair = settle(make_pair(client={"datagram_queue_bytes": 100_000, "datagram_queue_s": 60.0}))
    stream_id = open_tunnel(pair)
    engine = pair.client.engine
    payloads = [number.to_bytes(2) + bytes(1000) for number in range(300)]
    sent = 0
    while sent < len(payloads):
        dealt = engine.send_datagrams(stream_id, payloads[sent:], pair.now)
        assert dealt <= 100, "1003 bytes each: the 100th makes the queue full"
        assert dealt == len(payloads) - sent or engine.is_datagram_queue_full
        sent += dealt
        statistics = engine.statistics()
        assert pair.run(lambda: not engine.is_datagram_queue_full), "acknowledgements must let the queue leave"
        assert statistics.bytes_in_flight <= statistics.congestion_window
    pair.run(for_s=1)
    assert [payload[:2] for payload in pair.server.payloads()] == [payload[:2] for payload in payloads]


def test_the_congestion_window_is_respected(make_pair: MakePair) -> None:
    """Q-8; qh3's core does not look at it."""
    pair = settle(make_pair())
    stream_id = open_tunnel(pair)
    pair.conditions.loss = 1.0
    before = len(pair.client.sent)
    window = pair.client.engine.statistics().congestion_window
    pair.client.engine.send_datagrams(stream_id, [bytes(1200)] * 400, pair.now)
    pair.turn()
    pair.run(for_s=0.02)
    assert 0 < sum(map(len, pair.client.sent[before:])) <= window + 1350
    assert pair.client.engine.statistics().bytes_in_flight <= window


def test_old_datagrams_are_dropped_and_counted(make_pair: MakePair) -> None:
    pair = settle(make_pair(client={"datagram_queue_bytes": 10_000_000, "datagram_queue_s": 0.05}))
    stream_id = open_tunnel(pair)
    pair.conditions.delay_s = 10.0  # no acknowledgement comes back
    pair.run(for_s=1)
    engine = pair.client.engine
    engine.send_datagrams(stream_id, [bytes(1200)] * 1000, pair.now)
    pair.run(for_s=0.2)
    statistics = engine.statistics()
    assert 900 < statistics.datagrams_expired < 1000
    assert not engine.is_datagram_queue_full
    engine.send_datagrams(stream_id, [b"fresh"], pair.now)
    pair.run(for_s=0.04)
    assert engine.statistics().datagrams_expired == statistics.datagrams_expired


def test_before_the_handshake_nothing_is_sent_and_nothing_raises(make_pair: MakePair) -> None:
    pair = make_pair()
    engine = pair.client.engine
    assert engine.next_timeout() is None
    assert engine.next_event() is None
    assert engine.datagrams_to_send(pair.now) == []
    assert engine.send_datagrams(0, [b"x"], pair.now) == 1
    assert engine.datagram_capacity(0) == 0
    assert not engine.is_datagram_queue_full
    engine.ping()
    engine.handle_timeout(pair.now)
    engine.reset_stream(0, 0x10C)
    engine.send_data(0, b"x")
    assert engine.statistics() == replace(engine.statistics(), rtt_s=None, packets_lost=0, max_udp_payload=1350)


def test_a_shrinking_packet_does_not_block_the_queue(make_pair: MakePair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = settle(make_pair())
    stream_id = open_tunnel(pair)
    engine = pair.client.engine
    engine.send_datagrams(stream_id, [bytes(1300), b"small"], pair.now)
    monkeypatch.setattr(engine, "_max_frame", lambda: (1200, 8))
    pair.run(for_s=0.2)
    assert pair.server.payloads() == [b"small"]
    assert engine.statistics().datagrams_too_large == 1
