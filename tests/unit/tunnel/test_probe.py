"""Pings through a tunnel whose other end answers as it likes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from ipaddress import ip_network
from typing import Any

import pytest

from masque_client.netio.clock import MonotonicClock
from masque_client.protocol.icmp import Problem, compose_echo_reply, compose_error
from masque_client.protocol.ip_capsules import AssignedAddress, IpAddressRange
from masque_client.protocol.ip_session import ConnectIpSession
from masque_client.protocol.session import Role
from masque_client.tunnel import probe as module
from masque_client.tunnel.probe import probe, probe_full_ipv6

V4, V6 = "192.0.2.11/32", "2001:db8::11/128"
ROUTES = {4: ip_network("0.0.0.0/0"), 6: ip_network("2001:db8::/32")}
Answer = Callable[[bytes], bytes | None]


def time_exceeded(ping: bytes) -> bytes | None:
    return compose_error(ping, Problem.TIME_EXCEEDED)


def cut(ping: bytes) -> bytes | None:
    """As a router that quotes less than it may."""
    return compose_error(ping[:200], Problem.TIME_EXCEEDED)


def only_small(ping: bytes) -> bytes | None:
    return None if len(ping) >= 1280 else time_exceeded(ping)


class Stream:
    """What a probe asks of a `SessionStream`."""

    is_closed = False

    def __init__(self, answer: Answer, max_payload: int) -> None:
        self.max_payload = max_payload
        self.pings: list[bytes] = []
        self.on_payloads: Callable[[list[bytes]], None] = lambda packets: None
        self._answer = answer

    def send_payloads(self, packets: Sequence[bytes]) -> int:
        self.pings += packets
        answers = [answer for packet in packets if (answer := self._answer(packet)) is not None]
        asyncio.get_running_loop().call_soon(self.on_payloads, answers)
        return len(packets)

    def flush(self) -> None:
        pass


def ask(answer: Answer, *assigned: str, max_payload: int = 1400) -> tuple[Any, bool | None, list[bytes]]:
    """The answers to both questions, and all pings."""
    session = ConnectIpSession(Role.CLIENT)
    session.assigned = tuple(AssignedAddress(0, ip_network(prefix)) for prefix in assigned)
    session.routes = tuple(IpAddressRange.from_prefix(ROUTES[entry.prefix.version]) for entry in session.assigned)
    stream: Any = Stream(answer, max_payload)

    async def both() -> tuple[Any, bool | None]:
        clock = MonotonicClock()
        return await probe(stream, session, clock), await probe_full_ipv6(stream, session, clock, 0.001)

    return (*asyncio.run(both()), stream.pings)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0.01)


@pytest.mark.parametrize("answer", [time_exceeded, compose_echo_reply])
def test_full_size_pings_come_back(answer: Answer) -> None:
    """RFC 9484 §7.2: 1232 bytes of data make 1280 of IPv6."""
    rtt_s, is_full, pings = ask(answer, V4, V6)
    assert rtt_s is not None and is_full is True
    assert [len(ping) for ping in pings if ping[0] >> 4 == 6][-1] == 1280
    assert all(ping[7] == 1 for ping in pings if ping[0] >> 4 == 6), "one hop: the proxy must answer"


@pytest.mark.parametrize("answer", [only_small, cut])
def test_full_size_pings_that_get_lost_or_prove_one_direction(answer: Answer) -> None:
    rtt_s, is_full, pings = ask(answer, V6)
    assert rtt_s is not None and is_full is False
    assert sum(len(ping) == 1280 for ping in pings) == module.FULL_ATTEMPTS


@pytest.mark.parametrize(("assigned", "max_payload"), [(V4, 1400), (V6, 1279)])
def test_nothing_to_ask(assigned: str, max_payload: int) -> None:
    _, is_full, pings = ask(time_exceeded, assigned, max_payload=max_payload)
    assert is_full is None
    assert all(len(ping) < 1280 for ping in pings)


def test_silence() -> None:
    rtt_s, is_full, _ = ask(lambda ping: None, V4, V6)
    assert rtt_s is None and is_full is False
