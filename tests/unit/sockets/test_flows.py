"""Flows: opened by the first datagram, limited in every direction, reopened not too often, closed when idle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from masque_client.errors import ConnectionLost, MasqueError, ProxyRefused
from masque_client.netio.clock import VirtualClock
from masque_client.sockets import flows
from masque_client.sockets.flows import MAX_EARLY_DATAGRAMS, FlowTable
from tests.unit.sockets.fakes import TIMEOUT_S, FakeDialer

TARGET = ("target.example", 53)


class Bench:
    """A table over a fake dialer, on a clock that stands still."""

    def __init__(self, dialer: FakeDialer, *, max_flows: int = 10, idle_timeout_s: float = 120.0) -> None:
        self.dialer = dialer
        self.clock = VirtualClock(1000.0)
        self.delivered: list[tuple[str, list[bytes]]] = []
        self.errors: asyncio.Queue[MasqueError] = asyncio.Queue()
        self.local_room = 1000
        self.table: FlowTable[str] = FlowTable(
            dialer,
            self._deliver,
            self.clock,
            on_error=self.errors.put_nowait,
            max_flows=max_flows,
            idle_timeout_s=idle_timeout_s,
        )

    def send(self, *payloads: bytes, key: str = "peer") -> None:
        self.table.send(key, TARGET, list(payloads))

    def drops(self) -> dict[str, int]:
        return {reason: count for reason, count in self.table.statistics.drops.items() if count}

    def _deliver(self, key: str, payloads: list[bytes]) -> int:
        self.delivered.append((key, payloads))
        return min(self.local_room, len(payloads))


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), TIMEOUT_S))


def test_early_datagrams_wait_in_order_and_no_more_than_eight() -> None:
    async def scenario() -> None:
        bench = Bench(FakeDialer())
        bench.dialer.may_answer.clear()
        datagrams = [b"%d" % number for number in range(MAX_EARLY_DATAGRAMS + 3)]
        bench.send(*datagrams[:5])
        bench.send(*datagrams[5:])
        bench.dialer.may_answer.set()
        path = await bench.dialer.opened()
        assert path.sent == datagrams[:MAX_EARLY_DATAGRAMS]
        assert bench.drops() == {"before-response": 3}
        bench.send(b"late")
        assert path.sent[-1] == b"late"
        assert bench.table.statistics.datagrams_out == MAX_EARLY_DATAGRAMS + 1
        await bench.table.close()

    run(scenario)


def test_too_large_datagrams_are_counted_and_the_others_pass() -> None:
    async def scenario() -> None:
        bench = Bench(FakeDialer(max_payload=4))
        bench.send(b"1234", b"12345", b"")
        path = await bench.dialer.opened()
        assert path.sent == [b"1234", b""]
        assert bench.drops() == {"too-large": 1}
        assert (bench.table.statistics.datagrams_out, bench.table.statistics.bytes_out) == (2, 4)
        await bench.table.close()

    run(scenario)


def test_what_does_not_fit_the_queue_is_counted() -> None:
    async def scenario() -> None:
        bench = Bench(FakeDialer(room=2))
        bench.send(b"a", b"b", b"c", b"d")
        path = await bench.dialer.opened()
        assert path.sent == [b"a", b"b"]
        assert bench.drops() == {"queue-full": 2}
        await bench.table.close()

    run(scenario)


def test_replies_go_to_the_key_whose_flow_they_came_on() -> None:
    async def scenario() -> None:
        bench = Bench(FakeDialer())
        bench.send(b"1", key="a")
        first = await bench.dialer.opened()
        bench.send(b"2", key="b")
        second = await bench.dialer.opened()
        assert bench.dialer.targets == [TARGET, TARGET]
        second.deliver([b"for b"])
        first.deliver([b"for a", b"again"])
        assert bench.delivered == [("b", [b"for b"]), ("a", [b"for a", b"again"])]
        assert (bench.table.statistics.datagrams_in, bench.table.statistics.bytes_in) == (3, 15)
        await bench.table.close()

    run(scenario)


def test_what_the_local_program_cannot_take_is_counted() -> None:
    async def scenario() -> None:
        bench = Bench(FakeDialer())
        bench.send(b"?")
        path = await bench.dialer.opened()
        bench.local_room = 1
        path.deliver([b"one", b"two"])
        assert bench.drops() == {"local-buffer-full": 1}
        assert bench.table.statistics.bytes_in == 3
        await bench.table.close()

    run(scenario)


def test_idle_flows_are_closed_and_traffic_in_either_direction_keeps_the_others() -> None:
    async def scenario() -> None:
        bench = Bench(FakeDialer(), idle_timeout_s=0.08)  # looked at every 10 ms; the clock is ours
        paths = {}
        for key in ("idle", "sends", "receives"):
            bench.send(b"1", key=key)
            paths[key] = await bench.dialer.opened()
        bench.clock.advance(0.05)
        bench.send(b"2", key="sends")
        paths["receives"].deliver([b"3"])
        bench.clock.advance(0.05)
        await paths["idle"].is_closed.wait()
        assert set(bench.table.flows) == {"sends", "receives"}
        bench.clock.advance(1.0)
        await paths["sends"].is_closed.wait()
        await paths["receives"].is_closed.wait()
        assert bench.errors.empty()
        bench.send(b"4", key="idle")  # a flow that was closed for idleness may come back at once
        await bench.dialer.opened()
        await bench.table.close()

    run(scenario)


def test_a_refused_flow_is_tried_again_but_not_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        refusal = ProxyRefused("no", status=403)
        bench = Bench(FakeDialer(refusal=refusal))
        bench.send(b"1", b"2")
        assert await bench.errors.get() is refusal
        bench.send(b"3")
        assert bench.drops() == {"flow-failed": 2, "reopening": 1}
        assert len(bench.dialer.targets) == 1
        await asyncio.wait([bench.table.flows["peer"].task])
        bench.dialer.refusal = None
        bench.send(b"4")
        assert (await bench.dialer.opened()).sent == [b"4"]
        await bench.table.close()

    monkeypatch.setattr(flows, "REOPEN_INTERVAL_S", 0.05)
    run(scenario)


def test_a_proxy_that_asks_for_a_pause_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry-After: as long as it asks, and at most as long as we say."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        for asked_s, granted_s in ((0.2, 0.2), (3600.0, 0.4)):
            bench = Bench(FakeDialer(refusal=ProxyRefused("busy", status=503, retry_after_s=asked_s)))
            started = loop.time()
            bench.send(b"1")
            await bench.errors.get()
            await asyncio.wait([bench.table.flows["peer"].task])
            assert loop.time() - started >= granted_s * 0.99
            assert len(bench.dialer.targets) == 1
            await bench.table.close()

    monkeypatch.setattr(flows, "REOPEN_INTERVAL_S", 0.0)
    monkeypatch.setattr(flows, "MAX_RETRY_AFTER_S", 0.4)
    run(scenario)


def test_a_flow_that_breaks_later_reopens_at_once_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        bench = Bench(FakeDialer())
        bench.send(b"1")
        path = await bench.dialer.opened()
        path.ended.set_result(ConnectionLost("gone"))
        assert str(await bench.errors.get()) == "gone"
        assert path.is_closed.is_set()
        await asyncio.wait([bench.table.flows["peer"].task])
        bench.send(b"2")
        assert (await bench.dialer.opened()).sent == [b"2"]
        await bench.table.close()

    monkeypatch.setattr(flows, "REOPEN_INTERVAL_S", 0.0)  # as if the flow had lived longer than that
    run(scenario)


def test_a_flow_that_the_proxy_ends_in_order_is_no_error() -> None:
    async def scenario() -> None:
        bench = Bench(FakeDialer())
        bench.send(b"1")
        path = await bench.dialer.opened()
        path.ended.set_result(None)
        await path.is_closed.wait()
        bench.send(b"2")
        assert bench.errors.empty()
        assert bench.drops() == {"reopening": 1}
        await bench.table.close()

    run(scenario)


def test_the_number_of_flows_is_bounded() -> None:
    async def scenario() -> None:
        bench = Bench(FakeDialer(), max_flows=1)
        bench.send(b"1", key="a")
        bench.send(b"2", b"3", key="b")
        assert bench.drops() == {"too-many-flows": 2}
        assert len(bench.table.flows) == 1
        await bench.table.close()

    run(scenario)


def test_close_ends_open_and_opening_flows_and_may_be_repeated() -> None:
    async def scenario() -> None:
        bench = Bench(FakeDialer())
        bench.send(b"1", key="open")
        path = await bench.dialer.opened()
        bench.dialer.may_answer.clear()
        bench.send(b"2", key="opening")
        await asyncio.sleep(0)  # a turn of the loop: it asks the dialer
        assert len(bench.dialer.targets) == 2
        await bench.table.close()
        await bench.table.close()
        assert path.is_closed.is_set()
        assert bench.table.flows == {}
        assert bench.errors.empty()

    run(scenario)
