"""Which congestion control an engine has, and that each carries datagrams over a path that loses some."""

from __future__ import annotations

import pytest

from masque_client.engine import available_engines, create_client_engine
from masque_client.engine.aioquic_congestion import ALGORITHMS
from masque_client.engine.interface import CongestionControl, EngineConfiguration, EngineName
from masque_client.errors import ConfigurationError
from tests.sim.link import Conditions
from tests.unit.engine.conftest import MakePair, open_tunnel, settle

OFFERED = {
    EngineName.AIOQUIC: [CongestionControl.AUTO, CongestionControl.RENO, CongestionControl.CUBIC],
    EngineName.QH3: [CongestionControl.AUTO],
}


@pytest.mark.parametrize("algorithm", CongestionControl)
@pytest.mark.parametrize("name", available_engines())
def test_an_engine_has_it_or_names_what_it_has(name: EngineName, algorithm: CongestionControl) -> None:
    configuration = EngineConfiguration(server_name="proxy.example", congestion_control=algorithm)
    if algorithm in OFFERED[name]:
        assert create_client_engine(name, configuration).name is name
        return
    with pytest.raises(ConfigurationError, match=f"{name} has no congestion control {algorithm}") as caught:
        create_client_engine(name, configuration)
    assert caught.value.hint == f"it has: {', '.join(OFFERED[name])}"


@pytest.mark.parametrize("server_engine", [EngineName.AIOQUIC])
@pytest.mark.parametrize(
    ("client_engine", "algorithm"),
    [(name, each) for name in available_engines() for each in OFFERED[name]],
)
def test_each_keeps_to_its_window_and_recovers(make_pair: MakePair, algorithm: CongestionControl) -> None:
    client = {"congestion_control": algorithm, "datagram_queue_s": 60.0}
    pair = settle(make_pair(client=client, conditions=Conditions(delay_s=0.005)))
    stream_id = open_tunnel(pair)
    engine = pair.client.engine
    pair.conditions.loss = 0.02
    payloads = [bytes(1000)] * 100
    for _ in range(10):
        assert engine.send_datagrams(stream_id, payloads, pair.now) == 100
        assert pair.run(lambda: not engine.statistics().bytes_in_flight or not engine.is_datagram_queue_full)
        statistics = engine.statistics()
        assert statistics.bytes_in_flight <= statistics.congestion_window
        pair.run(for_s=1.0)
    assert engine.statistics().packets_lost > 0
    assert len(pair.server.payloads()) > 900


def test_cubic_is_the_default_of_aioquic() -> None:
    """Reno takes minutes to regain a large window."""
    assert (
        ALGORITHMS[CongestionControl.AUTO] == ALGORITHMS[CongestionControl.CUBIC] != ALGORITHMS[CongestionControl.RENO]
    )
