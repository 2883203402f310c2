"""Without QUIC datagrams HTTP Datagrams travel in capsules on their stream (RFC 9297 §2.2), bounded (digest D-14)."""

from __future__ import annotations

import pytest

from masque_client.engine.h3_capsules import MAX_UNSENT_BYTES, CapsuleSender
from masque_client.engine.interface import ConnectionClosed, DatagramsReceived, DataReceived
from masque_client.protocol.capsule import CapsuleReader, CapsuleType
from masque_client.protocol.mtu import MAX_HTTP_DATAGRAM_IN_CAPSULE
from tests.sim.link import End
from tests.unit.engine.conftest import MakePair, open_tunnel, settle


def capsules(end: End, stream_id: int) -> list[bytes]:
    content = b"".join(event.data for event in end.of_type(DataReceived) if event.stream_id == stream_id)
    reader = CapsuleReader({CapsuleType.DATAGRAM: MAX_HTTP_DATAGRAM_IN_CAPSULE})
    return [capsule.value for capsule in reader.receive_data(content)]


@pytest.mark.parametrize("without", ["client", "server"])
def test_both_ways(make_pair: MakePair, without: str) -> None:
    pair = settle(make_pair(**{without: {"h3_datagram": False}}))
    stream_id = open_tunnel(pair)
    large = bytes(1500)
    for end in pair.ends:
        assert end.engine.datagram_capacity(stream_id) == MAX_HTTP_DATAGRAM_IN_CAPSULE
        assert end.engine.send_datagrams(stream_id, [b"one", b"", large], pair.now, prefix=b"\0") == 3
    assert pair.run(lambda: all(len(capsules(end, stream_id)) == 3 for end in pair.ends))
    for end in pair.ends:
        assert capsules(end, stream_id) == [b"\0one", b"\0", b"\0" + large]
        assert not end.of_type(DatagramsReceived) and not end.of_type(ConnectionClosed)


def test_what_the_path_does_not_take_waits_with_the_caller(make_pair: MakePair) -> None:
    pair = settle(make_pair(client={"h3_datagram": False}))
    stream_id = open_tunnel(pair)
    engine = pair.client.engine
    sent, waits = 0, 0
    while sent < 400:
        taken = engine.send_datagrams(stream_id, [bytes(1200)] * (400 - sent), pair.now)
        sent += taken
        if sent < 400:
            waits += 1
            assert engine.is_datagram_queue_full
            assert taken * 1200 <= MAX_UNSENT_BYTES + 1200
            assert pair.run(lambda: not engine.is_datagram_queue_full)
    assert waits > 3
    assert pair.run(lambda: len(capsules(pair.server, stream_id)) == 400)
    assert not engine.is_datagram_queue_full


def test_nothing_follows_the_end_of_the_stream(make_pair: MakePair) -> None:
    pair = settle(make_pair(client={"h3_datagram": False}))
    stream_id = open_tunnel(pair)
    pair.client.engine.send_data(stream_id, b"", end_stream=True)
    assert pair.client.engine.send_datagrams(stream_id, [b"late"], pair.now) == 1
    pair.run(for_s=0.2)
    assert capsules(pair.server, stream_id) == []


def test_what_no_capsule_holds_is_counted() -> None:
    sent: list[bytes] = []
    sender = CapsuleSender(lambda stream_id: 0, lambda stream_id, data: sent.append(data))
    assert sender.put(0, [bytes(MAX_HTTP_DATAGRAM_IN_CAPSULE), b"x"], b"\0", None) == 2
    assert (sender.too_large, sent) == (1, [b"\x00\x02\x00x"])


def test_buffers_of_several_packets_are_split() -> None:
    sent: list[bytes] = []
    sender = CapsuleSender(lambda stream_id: 0, lambda stream_id, data: sent.append(data))
    split = lambda buffers, prefix: [prefix + bytes([byte]) for buffer in buffers for byte in buffer]  # noqa: E731
    assert sender.put(0, [b"ab", b"c"], b"\0", split) == 2
    assert sent == [b"\x00\x02\x00a\x00\x02\x00b\x00\x02\x00c"]
