"""Both engines over delay, loss, reordering and small MTUs, on a virtual clock: nothing wedges, nothing is capped."""

from __future__ import annotations

import pytest

from masque_client.engine.interface import ConnectionClosed, DataReceived, HandshakeCompleted, SettingsReceived
from tests.sim.link import Conditions, End, Pair
from tests.unit.engine.conftest import MakePair, open_tunnel, settle


def pour(pair: Pair, stream_id: int, sender: End, count: int, *, size: int = 1300, for_s: float = 60.0) -> float:
    """Send numbered datagrams as fast as the queue takes them; returns the virtual seconds until the last has left."""
    payloads = [number.to_bytes(4) + bytes(size - 4) for number in range(count)]
    started, sent = pair.now, 0
    while sent < count:
        sent += sender.engine.send_datagrams(stream_id, payloads[sent : sent + 256], pair.now)
        if sender.engine.is_datagram_queue_full:
            assert pair.run(lambda: not sender.engine.is_datagram_queue_full, for_s=for_s), f"wedged after {sent}"
        else:
            pair.turn()
    assert pair.run(lambda: sender.engine.statistics().bytes_in_flight == 0, for_s=for_s), "the rest never left"
    return pair.now - started


def numbers(end: End) -> list[int]:
    return [int.from_bytes(payload[:4]) for payload in end.payloads()]


@pytest.mark.parametrize("upload", [True, False], ids=["upload", "download"])
def test_twenty_thousand_datagrams_over_one_millisecond(make_pair: MakePair, upload: bool) -> None:
    """Acknowledgements, pacing and timers must not cap throughput: a hundred Mbit/s needs no more than 2 s here."""
    pair = settle(make_pair(both={"datagram_queue_s": 10.0}, conditions=Conditions(delay_s=0.0005)))
    pair.keeps_packets = False
    stream_id = open_tunnel(pair)
    sender, receiver = (pair.client, pair.server) if upload else (pair.server, pair.client)
    took = pour(pair, stream_id, sender, 20_000)
    assert numbers(receiver) == list(range(20_000))
    assert 20_000 * 1300 * 8 / took > 200e6, f"{20_000 * 1300 * 8 / took / 1e6:.0f} Mbit/s"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "conditions",
    [
        pytest.param(Conditions(delay_s=0.02, loss=0.02), id="2% loss"),
        pytest.param(Conditions(delay_s=0.02, loss=0.1), id="10% loss"),
        pytest.param(Conditions(delay_s=0.005, jitter_s=0.02), id="reordering"),
        pytest.param(Conditions(delay_s=0.3, loss=0.02, jitter_s=0.05), id="satellite"),
    ],
)
def test_a_tunnel_over_a_rough_link(make_pair: MakePair, conditions: Conditions, seed: int) -> None:
    pair = make_pair(both={"datagram_queue_s": 60.0}, conditions=conditions, seed=seed)
    settle(pair)
    stream_id = open_tunnel(pair)
    capsules = [number.to_bytes(2) * 500 for number in range(20)]
    for capsule in capsules:
        pair.client.engine.send_data(stream_id, capsule)
        pair.server.engine.send_data(stream_id, capsule)
    count = 400
    for sender, receiver in ((pair.client, pair.server), (pair.server, pair.client)):
        pour(pair, stream_id, sender, count, for_s=300.0)
        received = numbers(receiver)
        assert len(received) == len(set(received)), "QUIC removes duplicates"
        expected = count * (1 - conditions.loss)
        assert expected * 0.9 <= len(received) <= count
    pair.run(for_s=10)
    # Of both together: greasing makes no two runs alike, and one end's few hundred packets may all have luck.
    assert sum(end.engine.statistics().packets_lost for end in pair.ends) > 0
    for end in pair.ends:
        data = b"".join(event.data for event in end.of_type(DataReceived))
        assert data == b"".join(capsules), "streams are reliable"
        assert not end.of_type(ConnectionClosed)
        statistics = end.engine.statistics()
        assert statistics.rtt_s is not None
        assert 2 * conditions.delay_s * 0.9 <= statistics.rtt_s < 2 * (conditions.delay_s + conditions.jitter_s) + 0.1


def test_same_seed_same_story(make_pair: MakePair) -> None:
    def story() -> tuple[list[int], int]:
        conditions = Conditions(delay_s=0.01, loss=0.05, jitter_s=0.002)
        pair = settle(make_pair(both={"datagram_queue_s": 60.0}, conditions=conditions, seed=7))
        sizes = [len(data) for data in pair.client.sent if data[0] & 0x80]
        return sizes, len(pair.ends)

    assert len(story()[0]) > 1
    assert story()[1] == 2


@pytest.mark.parametrize("size", [1200, 1350, 1452])
def test_the_link_carries_exactly_our_packets(make_pair: MakePair, size: int) -> None:
    """Nothing is ever sent over `max_udp_payload`, and a path that carries just that is enough."""
    pair = settle(make_pair(both={"max_udp_payload": size, "datagram_queue_s": 60.0}, conditions=Conditions(mtu=size)))
    stream_id = open_tunnel(pair)
    pour(pair, stream_id, pair.client, 500, size=pair.client.engine.datagram_capacity(stream_id))
    assert len(pair.server.payloads()) == 500
    assert max(len(data) for end in pair.ends for data in end.sent) == size


def test_the_handshake_survives_heavy_loss(make_pair: MakePair) -> None:
    completed = 0
    for seed in range(10):
        pair = make_pair(conditions=Conditions(delay_s=0.02, loss=0.2), seed=seed)
        pair.connect()
        if pair.run(lambda p=pair: bool(p.client.of_type(SettingsReceived)), for_s=30):  # type: ignore[misc]
            completed += 1
            assert pair.client.of_type(HandshakeCompleted)
    assert completed >= 9


def test_an_outage_shorter_than_the_idle_timeout(make_pair: MakePair) -> None:
    pair = settle(make_pair())
    stream_id = open_tunnel(pair)
    pair.conditions.loss = 1.0
    for _ in range(50):
        pair.client.engine.send_datagrams(stream_id, [bytes(1000)] * 20, pair.now)
        pair.run(for_s=0.1)
    pair.conditions.loss = 0.0
    pair.run(for_s=10)
    pair.client.engine.send_datagrams(stream_id, [b"back"], pair.now)
    assert pair.run(lambda: b"back" in pair.server.payloads(), for_s=1)
