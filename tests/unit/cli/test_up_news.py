"""What `up` says while it runs: to a person once for each thing, to a program all of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from masque_client.dataplane.forwarder import Traffic
from masque_client.engine.interface import EngineStatistics
from masque_client.host.dns import DnsConfiguration
from masque_client.http.liveness import LivenessStatistics
from masque_client.tunnel.reconnect import Outage
from masque_client.tunnel.status import TunnelState, TunnelStatus
from masque_connect.commands.up import _News

UP = TunnelStatus(
    state=TunnelState.CONNECTED,
    outage=None,
    reconnects=0,
    down_s=None,
    proxy="proxy.example",
    proxy_address="192.0.2.2",
    engine="qh3",
    http_version=3,
    fallback_reason=None,
    interface="masque0",
    offload="off",
    addresses=("10.89.0.2/32",),
    routes=("10.99.0.0/24",),
    excluded=(),
    unsupported_rules=(),
    dns=DnsConfiguration(),
    mtu=1440,
    path_mtu=1500,
    probe_rtt_s=0.01,
    full_ipv6=None,
    traffic=Traffic(),
    connection=EngineStatistics(0.01, 0, 0, 0, 0, 1472, 0, 0, 0),
    liveness=LivenessStatistics(0.0, 0),
    drops={},
    violations={},
)
BACK = replace(UP, reconnects=1, down_s=3.25)


def down(reason: str, attempt: int) -> TunnelStatus:
    return replace(UP, state=TunnelState.RECONNECTING, outage=Outage(reason, attempt, 0.0), probe_rtt_s=None)


def test_a_person_hears_of_a_reason_once(capsys: pytest.CaptureFixture[str]) -> None:
    news = _News(as_json=False)
    for status in (UP, down("gone", 1), down("nobody there", 2), down("nobody there", 3), BACK):
        news.tell(status)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("the tunnel")]
    assert lines == [
        "the tunnel is down: gone; reconnecting, and nothing leaves outside of it",
        "the tunnel is down: nobody there; reconnecting, and nothing leaves outside of it",
        "the tunnel is back after 3.2 s",
    ]


def test_addresses_that_are_gone_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    news = _News(as_json=False)
    for status in (UP, down("gone", 1), replace(BACK, addresses=("10.89.0.7/32",))):
        news.tell(status)
    assert "the proxy took back 10.89.0.2/32: connections from there end" in capsys.readouterr().err


def test_a_program_hears_of_every_attempt(capsys: pytest.CaptureFixture[str]) -> None:
    news = _News(as_json=True)
    for status in (UP, down("gone", 1), down("gone", 2), BACK):
        news.tell(status)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    said = [[line[key] for key in ("state", "reason", "attempt", "reconnects", "down_s", "verified")] for line in lines]
    assert said == [
        ["connected", None, None, 0, None, True],
        ["reconnecting", "gone", 1, 0, None, False],
        ["reconnecting", "gone", 2, 0, None, False],
        ["connected", None, None, 1, 3.25, True],
    ]
