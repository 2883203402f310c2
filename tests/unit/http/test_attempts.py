"""Which attempt starts when, on a network of injected delays and on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from masque_client.engine.interface import Address
from masque_client.errors import ConnectError
from masque_client.http import connector
from masque_client.http.candidates import Candidates
from masque_client.http.connector import (
    ATTEMPT_DELAY_S,
    DNS_PREFERS_HTTP2,
    HTTP2_HEAD_START_S,
    HTTP3_HEAD_START_S,
    HTTP3_PREFERENCE_S,
    QUIC_BLOCKED,
    ConnectOptions,
    HttpVersion,
    connect,
)
from masque_client.http.network_memory import RETRY_HTTP3_S, MemoryFile
from tests.unit.pvd.virtual_time import run_virtually

V6, V4 = ("2001:db8::1", 443), ("192.0.2.1", 443)
NEVER = 1000.0
EXTRA_S = 0.4
"""What a black-holed address family may cost at most."""


@dataclass
class FakeConnection:
    http_version: int
    address: Address
    up_at: float = NEVER
    """When `connect` returned it."""
    fallback_reason: str | None = None
    is_closed: bool = False

    def carries(self, packet: int) -> bool:
        return True

    def close(self, reason: str = "") -> None:
        self.is_closed = True


@dataclass
class Network:
    """How long a connect takes, by HTTP version and address; NEVER is a black hole, None a refusal at once."""

    delays: dict[tuple[int, Address], float | None]
    addresses: Sequence[Address] = (V6, V4)
    prefers_tcp: bool = False
    attempts: list[tuple[float, int, Address]] = field(default_factory=list)
    connections: list[FakeConnection] = field(default_factory=list)

    async def dial(self, version: int, address: Address) -> FakeConnection:
        loop = asyncio.get_running_loop()
        self.attempts.append((round(loop.time(), 3), version, address))
        delay = self.delays[version, address]
        if delay is None:
            raise ConnectError("refused")
        await asyncio.sleep(delay)
        self.connections.append(FakeConnection(version, address))
        return self.connections[-1]

    def connect(self, monkeypatch: pytest.MonkeyPatch, options: ConnectOptions | None = None) -> FakeConnection:
        """Connect, see to it that all others are closed, and start afresh."""

        async def dial_http3(address: Address, *_: Any) -> FakeConnection:
            return await self.dial(3, address)

        async def dial_http2(address: Address, *_: Any) -> FakeConnection:
            return await self.dial(2, address)

        async def as_it_is(connection: FakeConnection, _: str) -> FakeConnection:
            return connection

        async def found(*_: Any) -> Candidates:
            return Candidates(tuple(self.addresses), tuple(self.addresses), self.prefers_tcp)

        monkeypatch.setattr(connector, "dial_http3", dial_http3)
        monkeypatch.setattr(connector, "dial_http2", dial_http2)
        monkeypatch.setattr(connector, "require_masque", as_it_is)
        monkeypatch.setattr(connector, "find_candidates", found)
        monkeypatch.setattr(connector, "_packet_sizes", lambda _: (1350,))
        self.attempts.clear()
        self.connections.clear()

        async def timed() -> Any:
            connection: Any = await connect("proxy.example", 443, options or ConnectOptions())
            connection.up_at = asyncio.get_running_loop().time()
            return connection

        winner = run_virtually(timed())
        assert not winner.is_closed
        assert all(other.is_closed for other in self.connections if other is not winner)
        assert isinstance(winner, FakeConnection)
        return winner


def network(*, quic: float | None = 0.03, tcp: float | None = 0.05, v6: bool = True, **more: Any) -> Network:
    """Both families with these delays; without `v6` its packets vanish."""
    delays = {(3, V4): quic, (2, V4): tcp, (3, V6): quic if v6 else NEVER, (2, V6): tcp if v6 else NEVER}
    return Network(delays, **more)


# --- address families (RFC 8305 §5) ---------------------------------------------------------------------------------


def test_the_first_address_is_enough_when_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    assert net.connect(monkeypatch).address == V6
    assert net.attempts == [(0, 3, V6)]


@pytest.mark.parametrize("http", HttpVersion)
def test_black_holed_ipv6_costs_one_attempt_delay(monkeypatch: pytest.MonkeyPatch, http: HttpVersion) -> None:
    options = ConnectOptions(http=http)
    without = network(addresses=(V4,)).connect(monkeypatch, options)
    net = network(v6=False)
    winner = net.connect(monkeypatch, options)
    assert winner.address == V4
    version = winner.http_version
    assert version == without.http_version
    assert net.attempts == [(0, version, V6), (ATTEMPT_DELAY_S, version, V4)]
    assert winner.up_at == pytest.approx(without.up_at + ATTEMPT_DELAY_S)
    assert winner.up_at - without.up_at <= EXTRA_S


def test_black_holed_ipv6_where_quic_is_blocked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    without = network(quic=NEVER, addresses=(V4,)).connect(monkeypatch)
    net = network(quic=NEVER, v6=False)
    winner = net.connect(monkeypatch)
    assert (winner.http_version, winner.address) == (2, V4)
    assert winner.up_at - without.up_at <= EXTRA_S
    assert [attempt for attempt in net.attempts if attempt[1] == 2] == [
        (HTTP3_HEAD_START_S, 2, V6),
        (HTTP3_HEAD_START_S + ATTEMPT_DELAY_S, 2, V4),
    ]


def test_a_refusal_starts_the_next_attempt_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    net.delays[3, V6] = None
    assert net.connect(monkeypatch).address == V4
    assert net.attempts == [(0, 3, V6), (0, 3, V4)]


# --- HTTP versions ---------------------------------------------------------------------------------------------------


def test_records_that_list_http2_alone_put_tcp_first(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(prefers_tcp=True, addresses=(V4,))
    winner = net.connect(monkeypatch)
    assert (winner.http_version, winner.fallback_reason) == (2, DNS_PREFERS_HTTP2)
    assert net.attempts == [(0, 2, V4)]
    net = network(prefers_tcp=True, addresses=(V4,), tcp=NEVER)
    assert net.connect(monkeypatch).http_version == 3
    assert net.attempts == [(0, 2, V4), (HTTP2_HEAD_START_S, 3, V4)]


# --- memory ----------------------------------------------------------------------------------------------------------


class Remembering:
    """Options with a memory of one network, and its clock."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.options = ConnectOptions(memory=MemoryFile(None, lambda: "home", lambda: self.now))


def test_the_last_good_address_is_tried_beside_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    run, net = Remembering(), network(v6=False)
    net.connect(monkeypatch, run.options)
    winner = net.connect(monkeypatch, run.options)
    assert net.attempts == [(0, 3, V4), (0, 3, V6)]
    assert winner.up_at == pytest.approx(0.03)


def test_a_last_good_address_that_is_dead_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Remembering()
    network(v6=False).connect(monkeypatch, run.options)
    net = network()
    net.delays[3, V4] = NEVER
    assert net.connect(monkeypatch, run.options).up_at == pytest.approx(0.03)


def test_blocked_quic_is_met_without_a_head_start(monkeypatch: pytest.MonkeyPatch) -> None:
    run, net = Remembering(), network(quic=NEVER, addresses=(V4,))
    first = net.connect(monkeypatch, run.options)
    assert first.fallback_reason == QUIC_BLOCKED
    assert first.up_at == pytest.approx(HTTP3_PREFERENCE_S)
    assert net.connect(monkeypatch, run.options).up_at == pytest.approx(0.05)
    assert net.attempts == [(0, 3, V4), (0, 2, V4)], "HTTP/3 is tried beside it"


def test_http3_comes_back_when_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Remembering()
    network(quic=NEVER).connect(monkeypatch, run.options)
    net = network()
    assert net.connect(monkeypatch, run.options).http_version == 3
    assert net.connect(monkeypatch, run.options).http_version == 3
    assert net.attempts == [(0, 3, V6)], "and the memory has changed"


def test_http3_has_its_full_say_again_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    run, slow = Remembering(), network(quic=0.2, tcp=0.05, addresses=(V4,))
    network(quic=NEVER, addresses=(V4,)).connect(monkeypatch, run.options)
    assert slow.connect(monkeypatch, run.options).http_version == 2
    run.now += RETRY_HTTP3_S
    assert slow.connect(monkeypatch, run.options).http_version == 3
    assert slow.connect(monkeypatch, run.options).http_version == 3


@pytest.mark.parametrize("before", [0.03, NEVER, None])
@pytest.mark.parametrize("v6_before", [True, False])
@pytest.mark.parametrize(
    ("quic", "tcp"),
    [(quic, tcp) for quic in (0.03, 0.4, NEVER, None) for tcp in (0.05, 0.4, None) if tcp or quic not in (NEVER, None)],
)
@pytest.mark.parametrize("v6", [True, False])
@pytest.mark.parametrize("age_s", [1.0, RETRY_HTTP3_S])
def test_memory_makes_no_connect_slower(
    monkeypatch: pytest.MonkeyPatch,
    before: float | None,
    v6_before: bool,
    quic: float | None,
    tcp: float | None,
    v6: bool,
    age_s: float,
) -> None:
    run = Remembering()
    network(quic=before, v6=v6_before).connect(monkeypatch, run.options)
    run.now += age_s
    expected = network(quic=quic, tcp=tcp, v6=v6).connect(monkeypatch)
    actual = network(quic=quic, tcp=tcp, v6=v6).connect(monkeypatch, run.options)
    assert actual.up_at <= expected.up_at + 1e-9
