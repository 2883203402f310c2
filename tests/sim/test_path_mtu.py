"""The path MTU machine and an engine together, over links that lose packets and shrink, on a virtual clock."""

from __future__ import annotations

import pytest

from masque_client.engine.interface import ConnectionClosed, EngineName, ProbeAcknowledged
from masque_client.protocol.path_mtu import GRAIN, PathMtu
from tests.sim.link import Conditions, End, Pair
from tests.unit.engine.conftest import MakePair, open_tunnel, settle

BIG = 1472


class Keeper:
    """One end's machine; does in virtual time what `http.path_mtu` does in an event loop."""

    def __init__(self, pair: Pair, end: End) -> None:
        self.pair = pair
        self.end = end
        self.machine = PathMtu(end.engine.statistics().max_udp_payload, end.engine.max_udp_payload_ceiling, pair.now)
        self.machine.set_ceiling(min(BIG, end.engine.max_udp_payload_ceiling))
        self.lost = 0
        self.seen = 0

    def step(self) -> None:
        engine, machine, now = self.end.engine, self.machine, self.pair.now
        for event in self.end.events[self.seen :]:
            if isinstance(event, ProbeAcknowledged):
                machine.acknowledged(event.size, now)
        self.seen = len(self.end.events)
        if (lost := engine.statistics().packets_lost) > self.lost:
            machine.suspect(now)
        self.lost = lost
        machine.handle_timeout(now)
        if (size := machine.probe_due(now)) is not None:
            assert engine.send_probe(size, now)
            machine.probe_sent(now, engine.statistics().rtt_s)
        if machine.size != engine.statistics().max_udp_payload:
            engine.set_max_udp_payload(machine.size)


def transfer(pair: Pair, stream_id: int, keepers: list[Keeper], *, for_s: float) -> None:
    """Full packets both ways, every ten milliseconds."""
    deadline = pair.now + for_s
    while pair.now < deadline:
        for keeper in keepers:
            engine = keeper.end.engine
            engine.send_datagrams(stream_id, [bytes(engine.datagram_capacity(stream_id))] * 4, pair.now)
        pair.run(for_s=0.01)
        for keeper in keepers:
            keeper.step()


def start(make_pair: MakePair, conditions: Conditions, *, seed: int, size: int = BIG) -> tuple[Pair, int, list[Keeper]]:
    pair = settle(make_pair(both={"max_udp_payload": size}, conditions=conditions, seed=seed))
    pair.keeps_packets = False
    stream_id = open_tunnel(pair)
    return pair, stream_id, [Keeper(pair, end) for end in pair.ends]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("loss", [0.0, 0.02])
@pytest.mark.parametrize("mtu", [1420, 1312])
def test_both_ends_notice_a_black_hole(make_pair: MakePair, mtu: int, loss: float, seed: int) -> None:
    pair, stream_id, keepers = start(make_pair, Conditions(delay_s=0.01, loss=loss), seed=seed)
    transfer(pair, stream_id, keepers, for_s=2)
    assert [keeper.machine.size for keeper in keepers] == [BIG, BIG]
    pair.conditions.mtu = mtu
    transfer(pair, stream_id, keepers, for_s=6)
    for keeper in keepers:
        assert keeper.machine.black_holes >= 1
        assert mtu - 120 < keeper.machine.size <= mtu, "lost probes may cost some bytes, never the tunnel"
        assert loss or keeper.machine.size > mtu - GRAIN
        assert not keeper.end.of_type(ConnectionClosed)
    received = [len(end.payloads()) for end in pair.ends]
    transfer(pair, stream_id, keepers, for_s=1)
    for before, end in zip(received, pair.ends, strict=True):
        assert len(end.payloads()) - before > 100, "traffic flows again"


@pytest.mark.parametrize("client_engine", [EngineName.AIOQUIC], indirect=True)
@pytest.mark.parametrize("server_engine", [EngineName.AIOQUIC], indirect=True)
def test_sizes_grow_to_what_the_path_carries(make_pair: MakePair) -> None:
    pair, stream_id, keepers = start(make_pair, Conditions(mtu=1420), seed=1, size=1252)
    transfer(pair, stream_id, keepers, for_s=6)
    assert [keeper.machine.size for keeper in keepers] == [1420, 1420]
    assert [end.engine.statistics().packets_lost for end in pair.ends] == [0, 0], "probes are no losses"
