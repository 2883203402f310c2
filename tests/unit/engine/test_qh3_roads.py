"""The two roads of packets through qh3: in batches past its facade, and one by one through its public methods."""

from __future__ import annotations

import pytest

from masque_client.engine.interface import DatagramsReceived, DataReceived, EngineName, ReceivedBuffer
from masque_client.engine.pacing import PathWindow
from tests.sim.link import CLIENT_ADDRESS, Pair
from tests.unit.engine.conftest import MakePair, open_tunnel, settle

qh3_quic = pytest.importorskip("masque_client.engine.qh3_quic", reason="the qh3 engine is not installed")


@pytest.fixture(autouse=True, params=[True, False], ids=["batches", "public"])
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    assert qh3_quic.OpenQuicConnection.takes_batches, "the installed qh3 offers the road for batches"
    monkeypatch.setattr(qh3_quic.OpenQuicConnection, "takes_batches", request.param)


@pytest.fixture
def client_engine() -> EngineName:
    return EngineName.QH3


@pytest.fixture
def server_engine() -> EngineName:
    return EngineName.QH3


def test_an_unknown_core_is_found_out() -> None:
    assert not qh3_quic.has_known_core(object)


def test_datagrams_and_stream_data_go_both_ways(make_pair: MakePair) -> None:
    pair = settle(make_pair(both={"datagram_queue_s": 60.0}))
    stream_id = open_tunnel(pair)
    payloads = [number.to_bytes(2) + bytes(number) for number in range(1000)]
    for end in pair.ends:
        assert end.engine.send_datagrams(stream_id, payloads[:500], pair.now) == 500
        end.engine.send_data(stream_id, b"capsules")
        pair.run(for_s=0.2)
        assert end.engine.send_datagrams(stream_id, payloads[500:], pair.now) == 500
    assert pair.run(lambda: all(len(end.payloads()) == 1000 for end in pair.ends))
    for end in pair.ends:
        assert end.payloads() == payloads
        assert b"".join(event.data for event in end.of_type(DataReceived)) == b"capsules"


def test_what_arrives_at_once_keeps_its_order(make_pair: MakePair) -> None:
    pair = settle(make_pair())
    stream_id = open_tunnel(pair)
    pair.run(for_s=1.0)
    client, server = pair.client.engine, pair.server.engine
    flights = []
    for number in range(3):
        client.send_datagrams(stream_id, [bytes([number]), b"d"], pair.now)
        if number == 1:
            client.send_data(stream_id, b"capsule")
        flights += [data for data, _ in client.datagrams_to_send(pair.now)]
    server.receive_datagrams([ReceivedBuffer(data, len(data), CLIENT_ADDRESS) for data in flights], pair.now)
    events = [server.next_event() for _ in range(4)]
    seen = [event for event in events if isinstance(event, DatagramsReceived | DataReceived)]
    order = [event.data if isinstance(event, DataReceived) else event.payloads for event in seen]
    first = order.index(b"capsule")
    before = [payload for part in order[:first] if isinstance(part, list) for payload in part]
    after = [payload for part in order[first + 1 :] if isinstance(part, list) for payload in part]
    assert before + after == [b"\x00", b"d", b"\x01", b"d", b"\x02", b"d"]
    assert before[:2] == [b"\x00", b"d"], "the first packet's datagrams came before the capsule"
    assert after[-2:] == [b"\x02", b"d"], "the last packet's datagrams came after it"


def test_trains_and_single_packets_may_come_mixed(make_pair: MakePair) -> None:
    """Runs of either kind, from one address or another (a client that moved), one batch."""
    pair = settle(make_pair())
    stream_id = open_tunnel(pair)
    pair.run(for_s=1.0)
    client, server = pair.client.engine, pair.server.engine
    batch = []
    for first in range(0, 8, 2):
        client.send_datagrams(stream_id, [bytes([n]) * 1200 for n in (first, first + 1)], pair.now)
        flight = [data for data, _ in client.datagrams_to_send(pair.now)]
        train = [data for data in flight if len(data) == len(flight[-1])]
        address = CLIENT_ADDRESS if first < 4 else (CLIENT_ADDRESS[0], CLIENT_ADDRESS[1] + 1)
        if first % 4:
            batch += [ReceivedBuffer(data, len(data), address) for data in train]
        else:
            batch.append(ReceivedBuffer(b"".join(train), len(train[0]), address))
    server.receive_datagrams(batch, pair.now)
    received = []
    while (event := server.next_event()) is not None:
        if isinstance(event, DatagramsReceived):
            received += event.payloads
    assert received == [bytes([n]) * 1200 for n in range(8)]


def with_four_packets_to_acknowledge(make_pair: MakePair) -> tuple[Pair, int]:
    """A pair and its tunnel's stream; the client has just received the packets."""
    pair = settle(make_pair())
    stream_id = open_tunnel(pair)
    pair.run(for_s=1.0)
    server = pair.server.engine
    server.send_datagrams(stream_id, [bytes(1200)] * 4, pair.now)
    for data, _ in server.datagrams_to_send(pair.now):
        pair.inject(pair.client, data)
    return pair, stream_id


def test_an_acknowledgement_rides_along(make_pair: MakePair) -> None:
    pair, stream_id = with_four_packets_to_acknowledge(make_pair)
    client = pair.client.engine
    client.send_datagrams(stream_id, [b"acknowledgement of TCP"], pair.now)
    assert len(client.datagrams_to_send(pair.now)) == 1
    assert not client.datagrams_to_send(pair.now)


def test_a_small_window_lets_datagrams_leave_in_order(make_pair: MakePair) -> None:
    """Neither road hands over more than the window allows (RFC 9221 §5.4)."""
    pair = settle(make_pair(both={"datagram_queue_s": 60.0}))
    stream_id = open_tunnel(pair)
    engine = pair.client.engine
    payloads = [number.to_bytes(2) + bytes(1000) for number in range(200)]
    assert engine.send_datagrams(stream_id, payloads, pair.now) == 200
    engine.datagrams_to_send(pair.now)
    statistics = engine.statistics()
    assert 0 < statistics.bytes_in_flight <= statistics.congestion_window < 200_000


def test_an_acknowledgement_rides_along_with_what_a_slow_peer_may_have(
    make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own limit for such a peer is far below qh3's window: the burst does not starve what else is due."""
    pair, stream_id = with_four_packets_to_acknowledge(make_pair)
    client = pair.client.engine
    monkeypatch.setattr(PathWindow, "limit", lambda *_: 3000)
    client.send_datagrams(stream_id, [bytes(1200)] * 20, pair.now)
    assert len(client.datagrams_to_send(pair.now)) == 2
    assert not client.datagrams_to_send(pair.now)


def test_a_conversation_of_single_packets_takes_no_packets_for_acknowledgements(make_pair: MakePair) -> None:
    """A question every 3 ms, answered at once: each takes the acknowledgement of the last one along."""
    pair = settle(make_pair())
    stream_id = open_tunnel(pair)
    pair.run(for_s=1.0)
    for _ in range(20):
        for sender, receiver in (pair.ends, pair.ends[::-1]):
            sender.engine.send_datagrams(stream_id, [b"question or answer"], pair.now)
            (packet,) = sender.engine.datagrams_to_send(pair.now)
            pair.inject(receiver, packet[0])
        assert not pair.client.engine.datagrams_to_send(pair.now)
        pair.now += 0.003
        assert all((timeout := end.engine.next_timeout()) is None or timeout > pair.now for end in pair.ends)
    pair.run(for_s=0.1)
    assert all(end.engine.statistics().bytes_in_flight == 0 for end in pair.ends), "the last one gets one all the same"
