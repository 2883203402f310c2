"""One row, once: start both ends, measure everything, stop them. Numbers go into a flat dictionary with these keys.

connect_s                                    start of the client's process → first answer through the tunnel
rtt_{idle,load}_{p50,p99}_ms                 ICMP echo; under half of the row's own lossless rate of large datagrams
tcp{1,4}_{up,down}_gbit_s                    1 and 4 streams
{client,proxy}_cpu_s_per_gb_{up,down}        CPU seconds per 10^9 bytes of payload, one stream
udp{64,1200}_pps                             the highest rate carried with (almost) no loss, client → target
udp{64,1200}_{client,proxy}_cpu_us           CPU microseconds per packet at that rate
client_rss_mib, client_peak_mib, proxy_peak_mib
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from masque_client.errors import MasqueError
from masque_connect.demo import world as w
from masque_connect.demo.actors import Actor, StepFailed
from tests.bench import iperf
from tests.bench.process import cpu_seconds, is_listening, memory_mib
from tests.bench.rate_search import RateSearch, Trial
from tests.bench.rows import Row
from tests.bench.rtt import EchoProber, RttResult
from tests.bench.stage import UDP_LOCAL, UDP_TARGET, Stage
from tests.bench.udp_load import CountingSink

CONNECT_TIMEOUT_S = 30.0
UDP_SIZES = (64, 1200)
FIRST_RATE = 20_000.0
IPERF_GRACE_S = 20.0
_SETTLED_S = 0.06
_SETTLE_TIMEOUT_S = 1.0
_PROBE_INTERVAL_S = 0.002
_PING_INTERVAL_S = 0.003


@dataclass(frozen=True, slots=True)
class Effort:
    """How long the parts of a measurement take."""

    one_stream_s: int = 2
    four_streams_s: int = 1
    pings: int = 300
    trial_s: float = 0.4
    max_trials: int = 9


@dataclass(slots=True)
class Run:
    """What one run of a row gave: `numbers`, and `failures` in words for what could not be measured."""

    numbers: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def measure(stage: Stage, row: Row, effort: Effort, guess: dict[str, float]) -> Run:
    """Measure one row once. It never raises for what a program does wrong: that is a finding.

    Args:
        guess: numbers of an earlier run, for a quicker search of the lossless rates; or empty.
    """
    run = Run()
    with stage.scene():
        try:
            measurer = _Measurer(stage, row, effort, run.numbers)
            measurer.start()
        except _FAILURES as error:
            run.failures.append(f"start: {_brief(error)}")
            return run
        for name, part in measurer.parts(guess).items():
            try:
                part()
            except _FAILURES as error:
                run.failures.append(f"{name}: {_brief(error)}")
        measurer.finish()
    return run


_FAILURES = (MasqueError, OSError, subprocess.SubprocessError, ValueError, KeyError)


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:300]


class _Measurer:
    def __init__(self, stage: Stage, row: Row, effort: Effort, numbers: dict[str, float]) -> None:
        self.stage = stage
        self.world = stage.world
        self.row = row
        self.effort = effort
        self.numbers = numbers
        self.target = w.SERVICE_4 if row.client else w.BARE_TARGET
        self.actors: dict[str, Actor] = {}

    def start(self) -> None:
        """Both ends, and wait until the first packet has come through."""
        row = self.row
        if row.client is None or row.proxy is None:
            return
        self.actors["proxy"] = row.proxy.start_proxy(self.stage)
        started = time.perf_counter()
        start_client = row.client.start_forwarder if row.group.is_forwarder else row.client.start_tunnel
        client = self.actors["client"] = start_client(self.stage, row.proxy)
        if row.group.is_forwarder:
            self._await_datagram(client)
        else:
            self._await_echo(client)
        self.numbers["connect_s"] = time.perf_counter() - started

    def parts(self, guess: dict[str, float]) -> Mapping[str, Callable[[], None]]:
        """What there is to measure, in order."""
        udp = {f"udp{size}": partial(self._measure_rate, size, guess) for size in UDP_SIZES}
        if self.row.group.is_forwarder:
            return udp
        return {"rtt": self._measure_idle_rtt, "tcp": self._measure_tcp, **udp, "load": self._measure_loaded_rtt}

    def finish(self) -> None:
        """What the processes have used in all."""
        for role, actor in self.actors.items():
            try:
                resident, peak = memory_mib(actor.process.pid)
            except (OSError, KeyError):
                continue  # it has died: the parts that noticed have said so
            self.numbers[f"{role}_peak_mib"] = peak
            if role == "client":
                self.numbers["client_rss_mib"] = resident

    # --- connecting -------------------------------------------------------------------------------------------------

    def _await_echo(self, client: Actor) -> None:
        with self.world.client.entered(), EchoProber(self.target) as prober:
            deadline = time.monotonic() + CONNECT_TIMEOUT_S
            while not prober.wait_for_answer(0.5, interval_s=_PROBE_INTERVAL_S):
                _check_alive(client, deadline)

    def _await_datagram(self, client: Actor) -> None:
        sender = self._start_sender(UDP_LOCAL)
        with self._sink() as sink:
            _await_flow(sender, sink, client)

    # --- TCP --------------------------------------------------------------------------------------------------------

    def _measure_tcp(self) -> None:
        directions: tuple[iperf.Direction, ...] = ("up", "down")
        for streams, seconds in ((1, self.effort.one_stream_s), (4, self.effort.four_streams_s)):
            for direction in directions:
                before = self._cpu()
                result = self._transfer(direction, streams, seconds)
                self.numbers[f"tcp{streams}_{direction}_gbit_s"] = result.gbit_s
                if streams == 1:
                    self.numbers[f"tcp1_{direction}_retransmits"] = result.retransmits
                    for role, used in self._cpu_since(before).items():
                        self.numbers[f"{role}_cpu_s_per_gb_{direction}"] = used * 1e9 / result.bytes

    def _transfer(self, direction: iperf.Direction, streams: int, seconds: int) -> iperf.TcpResult:
        server = self.stage.start(self.world.target, *iperf.SERVER)
        deadline = time.monotonic() + IPERF_GRACE_S
        while not is_listening(server.process.pid, iperf.PORT):
            _check_alive(server, deadline)
            time.sleep(0.005)
        command = iperf.client_command(self.target, direction, streams=streams, seconds=seconds)
        timeout_s = seconds + IPERF_GRACE_S
        try:
            return iperf.parse_result(self.world.client.run(*command, check=False, timeout_s=timeout_s).stdout)
        finally:
            self.world.stop(server)

    # --- UDP --------------------------------------------------------------------------------------------------------

    def _measure_rate(self, size: int, guess: dict[str, float]) -> None:
        known = guess.get(f"udp{size}_pps")
        search = RateSearch(
            known or FIRST_RATE, growth=1.15 if known else 2.0, max_trials=self.effort.max_trials - (3 if known else 0)
        )
        cpu: dict[Trial, dict[str, float]] = {}
        sender = self._start_sender(UDP_LOCAL if self.row.group.is_forwarder else (self.target, UDP_TARGET[1]))
        with self._sink() as sink:
            # A forwarder opens a request stream for each new sender, and what comes meanwhile may be lost: that would
            # count against the first rate.
            _await_flow(sender, sink, self.actors.get("client", sender))
            while (rate := search.next_rate()) is not None:
                before = self._cpu()
                trial = self._try_rate(sender, sink, size, rate)
                cpu[trial] = self._cpu_since(before)
                search.record(trial)
        self.world.stop(sender)
        if search.best is None:
            raise StepFailed(f"no rate of {size}-byte datagrams was carried without loss")
        self.numbers[f"udp{size}_pps"] = search.best.rate
        for role, used in cpu[search.best].items():
            self.numbers[f"udp{size}_{role}_cpu_us"] = used * 1e6 / search.best.sent

    def _try_rate(self, sender: Actor, sink: CountingSink, size: int, rate: float) -> Trial:
        before = sink.count
        sent, seconds = _order(sender, size, rate, self.effort.trial_s)
        return Trial(rate, sent, _settled(sink) - before, seconds)

    def _sink(self) -> CountingSink:
        with self.world.target.entered():
            return CountingSink("0.0.0.0", UDP_TARGET[1])

    def _start_sender(self, to: tuple[str, int]) -> Actor:
        return self.stage.start_python(self.world.client, "tests.bench.udp_load", to[0], str(to[1]))

    # --- round-trip times -------------------------------------------------------------------------------------------

    def _measure_idle_rtt(self) -> None:
        self._note_rtt("idle", self._ping())

    def _measure_loaded_rtt(self) -> None:
        rate = self.numbers["udp1200_pps"] / 2
        sender = self._start_sender((self.target, UDP_TARGET[1]))
        with self._sink():
            _give_order(sender, 1200, rate, self.effort.pings * _PING_INTERVAL_S + 0.2)
            self._note_rtt("load", self._ping())
            sender.next_line()
        self.world.stop(sender)

    def _ping(self) -> RttResult:
        with self.world.client.entered(), EchoProber(self.target) as prober:
            prober.measure(10, interval_s=_PING_INTERVAL_S)  # neighbours and routes are looked up, queues are empty
            return prober.measure(self.effort.pings, interval_s=_PING_INTERVAL_S)

    def _note_rtt(self, load: str, result: RttResult) -> None:
        self.numbers[f"rtt_{load}_p50_ms"] = result.p50_ms
        self.numbers[f"rtt_{load}_p99_ms"] = result.p99_ms

    # --- CPU --------------------------------------------------------------------------------------------------------

    def _cpu(self) -> dict[str, float]:
        return {role: cpu_seconds(actor.process.pid) for role, actor in self.actors.items()}

    def _cpu_since(self, before: dict[str, float]) -> dict[str, float]:
        return {role: used - before[role] for role, used in self._cpu().items()}


def _await_flow(sender: Actor, sink: CountingSink, carrier: Actor) -> None:
    """Until a datagram of the sender has come through, and no more are on their way."""
    before, deadline = sink.count, time.monotonic() + CONNECT_TIMEOUT_S
    while sink.count == before:
        _check_alive(carrier, deadline)
        _order(sender, 64, 1 / _PROBE_INTERVAL_S, 2 * _PROBE_INTERVAL_S)
    _settled(sink)


def _check_alive(actor: Actor, deadline: float) -> None:
    if actor.process.poll() is not None:
        actor.next_line(0.0)  # raises with its last words
        raise StepFailed(f"{actor.name} ended")
    if time.monotonic() > deadline:
        raise StepFailed(" ".join([f"{actor.name} let nothing through in time;", *actor.tail()[-2:]]))


def _give_order(sender: Actor, size: int, rate: float, seconds: float) -> None:
    assert sender.process.stdin is not None
    sender.process.stdin.write(json.dumps({"size": size, "rate": rate, "seconds": seconds}).encode() + b"\n")
    sender.process.stdin.flush()


def _order(sender: Actor, size: int, rate: float, seconds: float) -> tuple[int, float]:
    answer = sender.order({"size": size, "rate": rate, "seconds": seconds})
    return int(answer["sent"]), float(answer["seconds"])


def _settled(sink: CountingSink) -> int:
    """The count when nothing has arrived for a moment."""
    deadline = time.monotonic() + _SETTLE_TIMEOUT_S
    count = sink.count
    while time.monotonic() < deadline:
        time.sleep(_SETTLED_S)
        if (now := sink.count) == count:
            break
        count = now
    return count
