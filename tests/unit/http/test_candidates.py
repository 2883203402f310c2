"""Addresses and HTTPS records together: what is tried, and what waiting for the DNS costs, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from masque_client.engine.interface import Address
from masque_client.errors import NameResolutionError
from masque_client.http.candidates import (
    MAX_CANDIDATES,
    RECORDS_DELAY_S,
    TARGETS_DELAY_S,
    Candidates,
    find_candidates,
)
from masque_client.netio.resolver import resolve_system
from tests.unit.http.test_service_records import CDN, H2, H3, PORT_8443, hint4, hint6, record
from tests.unit.pvd.virtual_time import run_virtually

HOST = "proxy.example"
V6, V4 = ("2001:db8::1", 443), ("192.0.2.1", 443)
CDN_V4 = "192.0.2.99"
ADDRESSES = {HOST: [V6[0], V4[0]], "cdn.example": [CDN_V4]}


def find(
    *rrset: bytes,
    host: str = HOST,
    addresses: Mapping[str, Sequence[str]] = ADDRESSES,
    dns_s: float = 0.01,
    records_s: float = 0.01,
    targets_s: float = 0.01,
    failure: Exception | None = None,
) -> tuple[Candidates, float, list[str]]:
    """The candidates, how long it took, and the names that were asked for records."""
    asked: list[str] = []

    async def query(name: str) -> Sequence[bytes]:
        asked.append(name)
        if failure is not None:
            raise failure
        await asyncio.sleep(records_s)
        return rrset

    async def resolve(name: str, port: int) -> Sequence[Address]:
        await asyncio.sleep(dns_s if name == host else targets_s)
        if name not in addresses:
            raise NameResolutionError(f"{name} does not resolve")
        return [(address, port) for address in addresses[name]]

    async def timed() -> tuple[Candidates, float]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        return await find_candidates(host, 443, query, resolve), loop.time() - started

    candidates, seconds = run_virtually(timed())
    return candidates, seconds, asked


def test_without_records_there_are_the_addresses() -> None:
    found, seconds, asked = find()
    assert found == Candidates((V6, V4), (V6, V4))
    assert asked == [HOST]
    assert seconds == pytest.approx(0.01)


def test_an_address_is_not_looked_up() -> None:
    found, _, asked = find(record(H2), host=V4[0], addresses={V4[0]: [V4[0]]})
    assert found == Candidates((V4,), (V4,))
    assert asked == []


@pytest.mark.parametrize("dns_s", [0.0, 0.5])
def test_records_that_do_not_come_cost_a_moment(dns_s: float) -> None:
    found, seconds, _ = find(record(H2), dns_s=dns_s, records_s=60.0)
    assert found == Candidates((V6, V4), (V6, V4))
    assert seconds == pytest.approx(dns_s + RECORDS_DELAY_S)


def test_records_that_fail_cost_nothing() -> None:
    found, seconds, _ = find(dns_s=0.02, failure=OSError("no resolver is reachable"))
    assert found == Candidates((V6, V4), (V6, V4))
    assert seconds == pytest.approx(0.02)


def test_another_port_comes_first_and_the_plain_one_stays() -> None:
    found, *_ = find(record(H3, PORT_8443))
    assert found.udp == found.tcp == ((V6[0], 8443), (V4[0], 8443), V6, V4)
    assert not found.prefers_tcp


def test_http2_alone_goes_first() -> None:
    found, *_ = find(record(H2))
    assert found == Candidates((V6, V4), (V6, V4), prefers_tcp=True)


def test_hints_are_extra() -> None:
    found, *_ = find(record(H3, hint4("192.0.2.7", V4[0]), hint6("2001:db8::7")))
    assert found.udp == (V6, V4, ("2001:db8::7", 443), ("192.0.2.7", 443))


def test_another_name_is_resolved_and_tried_first() -> None:
    found, *_ = find(record(H3, target=CDN))
    assert found.udp == ((CDN_V4, 443), V6, V4)


def test_another_name_that_is_slow_costs_a_moment_and_its_hints_are_used() -> None:
    found, seconds, _ = find(record(H3, hint4("192.0.2.7"), target=CDN), targets_s=60.0)
    assert found.udp == (("192.0.2.7", 443), V6, V4)
    assert seconds == pytest.approx(0.01 + TARGETS_DELAY_S)


def test_the_dns_costs_less_than_300_ms_beyond_the_addresses() -> None:
    assert RECORDS_DELAY_S + TARGETS_DELAY_S <= 0.3


def test_each_transport_has_its_own_endpoints() -> None:
    both = bytes.fromhex("0001 0003 026833"), bytes.fromhex("0002 0000")
    found, *_ = find(record(*both, target=CDN), record(H2, priority=2))
    assert found.udp == ((CDN_V4, 443), V6, V4)
    assert found.tcp == (V6, V4)
    assert not found.prefers_tcp


def test_a_name_without_addresses_can_be_reached_by_its_records() -> None:
    found, *_ = find(record(H3, target=CDN), addresses={"cdn.example": [CDN_V4]})
    assert found.udp == found.tcp == ((CDN_V4, 443),)
    with pytest.raises(NameResolutionError):
        find(addresses={})


def test_candidates_are_bounded() -> None:
    found, *_ = find(record(H3), addresses={HOST: [f"192.0.2.{n}" for n in range(200)]})
    assert len(found.udp) == len(found.tcp) == MAX_CANDIDATES


def test_the_system_resolves_names_of_the_hosts_file() -> None:
    async def look_up() -> Sequence[Address]:
        return await resolve_system("localhost", 4433)

    assert set(asyncio.run(look_up())) & {("127.0.0.1", 4433), ("::1", 4433)}
