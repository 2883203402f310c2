"""Handshake, one request, datagrams both ways: what every pair of engines must do."""

from __future__ import annotations

from masque_client.engine.interface import (
    ConnectionClosed,
    ConnectionIdIssued,
    DatagramsReceived,
    DataReceived,
    HandshakeCompleted,
    HeadersReceived,
    SettingsReceived,
)
from tests.unit.engine.conftest import CONNECT_IP, OK, MakePair, open_tunnel, settle


def test_a_tunnel_carries_datagrams_and_capsules_both_ways(make_pair: MakePair) -> None:
    pair = settle(make_pair())
    assert pair.client.of_type(SettingsReceived) == [SettingsReceived(extended_connect=True, h3_datagram=True)]
    assert pair.server.of_type(SettingsReceived) == [SettingsReceived(extended_connect=False, h3_datagram=True)]
    stream_id = open_tunnel(pair)
    assert pair.server.of_type(HeadersReceived) == [HeadersReceived(stream_id, CONNECT_IP, False)]
    assert pair.client.of_type(HeadersReceived) == [HeadersReceived(stream_id, OK, False)]

    for sender, receiver in ((pair.client, pair.server), (pair.server, pair.client)):
        assert sender.engine.send_datagrams(stream_id, [b"one", b"two"], pair.now, prefix=b"\0") == 2
        sender.engine.send_data(stream_id, b"capsule")
        pair.run(for_s=0.1)
        assert receiver.of_type(DataReceived) == [DataReceived(stream_id, b"capsule", False)]
        assert receiver.payloads() == [b"\0one", b"\0two"]
        assert receiver.of_type(DatagramsReceived)[0].stream_id == stream_id

    pair.client.engine.send_data(stream_id, b"", end_stream=True)
    assert pair.run(lambda: DataReceived(stream_id, b"", True) in pair.server.events)
    pair.client.engine.close(0x100, "done")
    assert pair.run(lambda: bool(pair.server.of_type(ConnectionClosed)))
    assert pair.server.of_type(ConnectionClosed) == [ConnectionClosed(0x100, "done", True, None)]
    assert pair.client.of_type(ConnectionClosed) == [ConnectionClosed(0x100, "done", True, None)]


def test_the_handshake_tells_the_certificate_and_the_connection_ids(make_pair: MakePair) -> None:
    pair = settle(make_pair())
    (client_handshake,) = pair.client.of_type(HandshakeCompleted)
    (server_handshake,) = pair.server.of_type(HandshakeCompleted)
    assert client_handshake.peer_certificate is not None
    assert server_handshake.peer_certificate is None
    pair.run(for_s=0.2)
    issued = [event.connection_id for event in pair.server.of_type(ConnectionIdIssued)]
    assert isinstance(pair.server.events[0], ConnectionIdIssued)
    assert {len(connection_id) for connection_id in issued} == {8}
    short_headers = [data for data in pair.client.sent if not data[0] & 0x80]
    assert {data[1:9] for data in short_headers} <= set(issued)
    assert not pair.client.of_type(ConnectionIdIssued)
