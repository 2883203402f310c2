"""Flows that end badly are remarked on, but a proxy that says no all the time does not fill the terminal."""

from __future__ import annotations

import pytest

from masque_client.errors import ProxyRefused
from masque_client.netio.clock import VirtualClock
from masque_connect import routing
from masque_connect.routing import FLOW_REMARK_INTERVAL_S, FlowRemarks


def test_one_remark_per_interval_and_a_count_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(routing, "remark", said.append)
    clock = VirtualClock(100.0)
    remarks = FlowRemarks(clock)
    for _ in range(5):
        remarks.add(ProxyRefused("no", hint="ask"))
        clock.advance(FLOW_REMARK_INTERVAL_S / 5)
    assert said == ["a flow ended: no (ask)"]
    remarks.add(ProxyRefused("still no", hint="ask"))
    assert said[1:] == ["a flow ended: still no (ask); 4 others before it"]
