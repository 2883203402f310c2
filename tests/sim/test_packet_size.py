"""Packets change their size on a living connection, and probes prove what a path carries, on both engines."""

from __future__ import annotations

import pytest

from masque_client.engine.interface import ConnectionClosed, DataReceived, EngineName, ProbeAcknowledged
from masque_client.protocol.mtu import max_http_datagram
from tests.sim.link import Conditions, Pair
from tests.unit.engine.conftest import MakePair, open_tunnel, settle

BIG, SMALL = 1472, 1372


def full_size(make_pair: MakePair, **both: object) -> tuple[Pair, int]:
    pair = settle(make_pair(both={"max_udp_payload": BIG, "datagram_queue_s": 60.0} | both, conditions=Conditions()))
    stream_id = open_tunnel(pair)
    pair.run(for_s=1)
    for end in pair.ends:
        end.sent.clear()
    return pair, stream_id


def probed(pair: Pair, size: int, *, from_server: bool = False, for_s: float = 5.0) -> bool:
    end = pair.server if from_server else pair.client
    end.events[:] = [event for event in end.events if not isinstance(event, ProbeAcknowledged)]
    assert end.engine.send_probe(size, pair.now)
    pair.run(for_s=for_s)
    return any(event.size == size for event in end.of_type(ProbeAcknowledged))


def test_smaller_packets_on_a_living_connection(make_pair: MakePair) -> None:
    pair, stream_id = full_size(make_pair)
    for end in pair.ends:
        end.engine.set_max_udp_payload(SMALL)
        assert end.engine.statistics().max_udp_payload == SMALL
        assert end.engine.datagram_capacity(stream_id) == max_http_datagram(SMALL)
    pair.conditions.mtu = SMALL
    capacity = max_http_datagram(SMALL)
    for end, other in ((pair.client, pair.server), (pair.server, pair.client)):
        assert end.engine.send_datagrams(stream_id, [bytes(capacity)] * 50 + [bytes(300)] * 50, pair.now) == 100
        end.engine.send_data(stream_id, bytes(50_000))
        assert pair.run(lambda other=other: len(other.payloads()) == 100)  # type: ignore[misc]
        pair.run(for_s=2)
        assert sum(len(event.data) for event in other.of_type(DataReceived)) == 50_000
        assert max(map(len, end.sent)) == SMALL


def test_what_is_queued_survives_unless_it_is_too_large(make_pair: MakePair) -> None:
    pair, stream_id = full_size(make_pair)
    fits, too_large = bytes(max_http_datagram(SMALL)), bytes(max_http_datagram(SMALL) + 1)
    pair.client.engine.send_datagrams(stream_id, [fits, too_large, b"small", too_large, fits], pair.now)
    pair.client.engine.set_max_udp_payload(SMALL)
    assert pair.run(lambda: len(pair.server.payloads()) == 3)
    assert pair.server.payloads() == [fits, b"small", fits]
    assert pair.client.engine.statistics().datagrams_too_large == 2
    assert max(map(len, pair.client.sent)) <= SMALL


def test_a_probe_arrives_or_it_does_not(make_pair: MakePair, client_engine: EngineName) -> None:
    pair, stream_id = full_size(make_pair)
    pair.conditions.mtu = 1400
    for from_server in (False, True):
        end = pair.server if from_server else pair.client
        end.sent.clear()
        assert probed(pair, 1400, from_server=from_server)
        assert 1400 in map(len, end.sent)
        assert not probed(pair, 1401, from_server=from_server)
        assert probed(pair, 1200, from_server=from_server)
        assert not end.of_type(ConnectionClosed)
    pair.client.engine.send_datagrams(stream_id, [b"still here"], pair.now)
    assert pair.run(lambda: b"still here" in pair.server.payloads())
    lost = pair.client.engine.statistics().packets_lost
    assert lost == (0 if client_engine is EngineName.AIOQUIC else 1), "only qh3 takes a lost probe for a lost packet"


def test_a_probe_among_traffic_in_both_directions(make_pair: MakePair) -> None:
    """Acknowledgements that wait must not split the probe: then its PING would prove nothing."""
    pair, stream_id = full_size(make_pair)
    pair.conditions.mtu = 1400
    arrived = set()
    for size in (1400, 1404, 1300, 1472, 1396, 1401) * 3:
        for end in pair.ends:
            end.engine.send_datagrams(stream_id, [bytes(1000)] * 3, pair.now)
        pair.run(for_s=0.011)
        if pair.client.engine.send_probe(size, pair.now):
            pair.run(for_s=0.5)
    arrived = {event.size for event in pair.client.of_type(ProbeAcknowledged)}
    assert arrived == {1300, 1396, 1400}


def test_probes_need_a_connection(make_pair: MakePair) -> None:
    pair = make_pair()
    pair.connect()
    assert not pair.client.engine.send_probe(1300, pair.now)
    pair.client.engine.set_max_udp_payload(1250)
    settle_now = pair.run(lambda: len(pair.ends) == 2 and bool(pair.client.engine.datagram_capacity(0)), for_s=2)
    assert not settle_now
    assert pair.client.engine.statistics().max_udp_payload == 1350, "sizes are not touched during the handshake"
    pair.client.engine.close()
    pair.turn()
    assert not pair.client.engine.send_probe(1300, pair.now)


@pytest.mark.parametrize("client_engine", [EngineName.AIOQUIC], indirect=True)
def test_aioquic_also_raises(make_pair: MakePair) -> None:
    pair, stream_id = full_size(make_pair, max_udp_payload=1350)
    assert pair.client.engine.max_udp_payload_ceiling > BIG
    assert probed(pair, BIG)
    pair.client.engine.set_max_udp_payload(BIG)
    payload = bytes(max_http_datagram(BIG))
    assert pair.client.engine.datagram_capacity(stream_id) == len(payload)
    pair.client.engine.send_datagrams(stream_id, [payload], pair.now)
    assert pair.run(lambda: payload in pair.server.payloads())


def test_no_size_is_out_of_bounds(make_pair: MakePair) -> None:
    pair, _ = full_size(make_pair)
    engine = pair.client.engine
    ceiling = engine.max_udp_payload_ceiling
    assert not engine.send_probe(ceiling + 1, pair.now)
    engine.set_max_udp_payload(500)
    assert engine.statistics().max_udp_payload == 1200
    engine.set_max_udp_payload(100_000)
    assert engine.statistics().max_udp_payload <= ceiling
