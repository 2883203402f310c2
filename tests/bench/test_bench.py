"""The benchmark itself, short: the bare path, and a tunnel of ours, in real namespaces.

client ── router ── proxy ── target      see masque_connect.demo.world
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from masque_client.testing.netns import Lab, Snapshot, unavailable_reason
from tests.bench import machine
from tests.bench.__main__ import main
from tests.bench.measure import Effort, measure
from tests.bench.rtt import EchoProber
from tests.bench.udp_load import CountingSink, Sender

needs_iperf = pytest.mark.skipif(
    not machine.versions().get("iperf3"), reason="NEEDS iperf3: the benchmark is not tested here"
)


@pytest.mark.netns
@needs_iperf
def test_one_row_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.bench.__main__.QUICK", Effort(one_stream_s=1, pings=20, trial_s=0.1, max_trials=5))
    monkeypatch.setattr("tests.bench.rate_search.MAX_LOSS", 0.9)  # where others work, too, every rate may lose some
    before = Snapshot.take()
    output = tmp_path / "bench.json"
    status = main(["--quick", "--force", "--rows", "pair/aioquic-plain", "udp-ours/aioquic", "--json", str(output)])
    document = json.loads(output.read_text())
    rows = {row["key"]: row for row in document["rows"]}
    assert status == 0, [row["failures"] for row in rows.values()]
    assert list(rows) == ["bare", "pair/aioquic-plain", "udp-ours/aioquic"]
    bare, pair, forwarder = (row["summary"] for row in rows.values())
    assert bare["tcp1_up_gbit_s"]["median"] > pair["tcp1_up_gbit_s"]["median"] > 0
    assert pair["client_cpu_s_per_gb_down"]["median"] > 0
    assert pair["rtt_idle_p50_ms"]["median"] > 0, "how much is added is a matter of luck where others work, too"
    assert pair["connect_s"]["median"] > 0.1
    assert forwarder["udp64_pps"]["median"] > 100
    assert forwarder["client_peak_mib"]["median"] > 10
    assert not before.difference(Snapshot.take())


@pytest.mark.netns
@needs_iperf
def test_a_program_that_does_not_start_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    from masque_connect.demo.interrupts import Interrupts
    from masque_connect.demo.world import World
    from tests.bench.programs import Ours
    from tests.bench.rows import Group, Row
    from tests.bench.stage import Stage

    program = Ours("no-such-engine")
    with World(Interrupts(), through_relay=False) as world:
        run = measure(Stage(world), Row(Group.PAIR, "broken", program, program), Effort(), {})
    assert run.numbers == {}
    assert "ended with exit status 2" in run.failures[0]


@pytest.mark.netns
def test_what_is_sent_is_counted_and_answers_are_timed() -> None:
    if reason := unavailable_reason():
        pytest.skip(reason)
    import socket

    with Lab() as lab:
        one, two = lab.namespace("one"), lab.namespace("two")
        lab.link(one, ["192.0.2.1/24"], two, ["192.0.2.2/24"])
        with one.entered():
            connected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            connected.connect(("192.0.2.2", 9000))
            prober = EchoProber("192.0.2.2")
        with two.entered():
            sink = CountingSink("192.0.2.2", 9000)
        with connected, sink, prober:
            sent, _ = Sender(connected, 64).send_at(5000, 0.2)
            assert sink.count == sent > 100
            result = prober.measure(20)
            assert result.lost == 0
            assert 0 < result.p50_ms <= result.p99_ms


def test_a_busy_machine_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (1000.0, 0.0, 0.0))
    assert main(["--quick", "--rows", "bare"]) == 1
    refused = capsys.readouterr().err
    assert "error: " in refused
    assert "--force" in refused
