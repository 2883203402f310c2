"""The way back to HTTP/3: when it is tried, and what a failure means."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from masque_client.errors import ConnectError, MasqueError, TimedOut
from masque_client.http.connector import ConnectOptions, HttpVersion, ProxyConnection
from masque_client.netio.clock import Clock, VirtualClock
from masque_client.tunnel import upgrade


class Connection:
    """What is asked of a connection here."""

    def __init__(self, largest_packet: int) -> None:
        self.largest_packet = largest_packet
        self.fallback_reason: str | None = None
        self.is_closed = False

    def carries(self, packet: int) -> bool:
        return packet <= self.largest_packet

    def close(self, reason: str = "") -> None:
        self.is_closed = True


CONNECTION = cast(ProxyConnection, Connection(1440))


class Network:
    """Answers connection attempts with `outcomes`, in order; the last one for ever."""

    def __init__(self, outcomes: list[ProxyConnection | MasqueError], moves: list[MasqueError | None]) -> None:
        self.outcomes = outcomes
        self.moves = moves
        self.slept: list[float] = []
        self.options: list[ConnectOptions] = []
        self.moved = 0

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def connect(self, host: str, port: int, options: ConnectOptions, clock: Clock) -> ProxyConnection:
        assert (host, port) == ("proxy.example", 443)
        self.options.append(options)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, MasqueError):
            raise outcome
        return outcome

    async def move(self, connection: ProxyConnection) -> None:
        assert connection is CONNECTION
        self.moved += 1
        if (failure := self.moves.pop(0)) is not None:
            raise failure


def run(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "connect", network.connect)
    options = ConnectOptions(mark=7, timeout_s=60.0, min_packet=1280)
    asyncio.run(
        upgrade.return_to_http3("proxy.example", 443, options, VirtualClock(), network.move, sleep=network.sleep)
    )


def test_it_tries_until_it_works_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network([*[ConnectError("blocked")] * 9, CONNECTION], [None])
    run(network, monkeypatch)
    assert network.slept == [10, 20, 40, 80, 160, 320, 600, 600, 600, 600]
    assert network.moved == 1


def test_it_asks_for_http3_only_and_briefly_with_the_same_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network([CONNECTION], [None])
    run(network, monkeypatch)
    assert network.options == [ConnectOptions(mark=7, timeout_s=5.0, http=HttpVersion.HTTP_3, min_packet=1280)]


def test_a_move_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network([CONNECTION, CONNECTION], [TimedOut("no answer"), None])
    run(network, monkeypatch)
    assert network.slept == [10, 20]
    assert network.moved == 2


def test_a_path_that_is_still_too_narrow_is_no_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = Connection(1279)
    network = Network([cast(ProxyConnection, narrow), CONNECTION], [None])
    run(network, monkeypatch)
    assert network.slept == [10, 20]
    assert narrow.is_closed
    assert network.moved == 1


@pytest.mark.parametrize("outcome", [None, ConnectError("no TCP"), TimedOut("no answer to the request")])
def test_a_narrow_path_is_left_over_http2(outcome: MasqueError | None, monkeypatch: pytest.MonkeyPatch) -> None:
    connected = outcome if isinstance(outcome, ConnectError) else CONNECTION
    network = Network([connected], [outcome])
    monkeypatch.setattr(upgrade, "connect", network.connect)
    left = upgrade.leave_narrow_path("proxy.example", 443, ConnectOptions(mark=7), VirtualClock(), network.move)
    assert asyncio.run(left) is (outcome is None)
    assert network.options == [ConnectOptions(mark=7, http=HttpVersion.HTTP_2)]
    assert connected is not CONNECTION or CONNECTION.fallback_reason == "path-mtu"
