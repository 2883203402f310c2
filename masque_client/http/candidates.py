"""Where a proxy may be reached: its addresses, and what its HTTPS records add to them (RFC 9460 §3, RFC 8305 §3, §4).

Records only ever add: the plain addresses stay candidates, behind those of the records, and a DNS that does not answer
for records costs `RECORDS_DELAY_S` at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from masque_client.engine.interface import Address
from masque_client.errors import NameResolutionError
from masque_client.http.service_records import Endpoint, QueryHttps, look_up_endpoints
from masque_client.netio.resolver import Resolve, resolve_system

RECORDS_DELAY_S = 0.05
"""How long addresses that are known wait for records: the Resolution Delay of RFC 8305 §8."""
TARGETS_DELAY_S = 0.2
"""How long they wait for the addresses of other names that the records lead to."""
MAX_CANDIDATES = 16


@dataclass(frozen=True, slots=True)
class Candidates:
    """Addresses to try, best first, neither list empty. `prefers_tcp`: the records offer HTTP/2 and no HTTP/3."""

    udp: tuple[Address, ...]
    tcp: tuple[Address, ...]
    prefers_tcp: bool = False


async def find_candidates(
    host: str, port: int, query: QueryHttps | None, resolve: Resolve = resolve_system
) -> Candidates:
    """Ask for addresses and records at once. `query` None asks for no records; neither does an IP literal.

    Raises:
        NameResolutionError: neither gave an address.
    """
    if query is None or _is_literal(host):
        plain = tuple(await resolve(host, port))
        return Candidates(plain, plain)
    records = asyncio.create_task(look_up_endpoints(host, port, query))
    try:
        found = (await asyncio.gather(resolve(host, port), return_exceptions=True))[0]
        if isinstance(found, BaseException) and not isinstance(found, NameResolutionError):
            raise found
        await asyncio.wait([records], timeout=RECORDS_DELAY_S)
        endpoints = records.result() if records.done() else []
    finally:
        records.cancel()
    plain = () if isinstance(found, NameResolutionError) else tuple(found)
    others = await _resolve_targets({endpoint.target for endpoint in endpoints} - {host}, resolve)
    candidates = _compose(endpoints, plain, {**others, host: [address for address, _ in plain]})
    if isinstance(found, NameResolutionError) and not (candidates.udp and candidates.tcp):
        raise found
    return candidates


async def _resolve_targets(names: Iterable[str], resolve: Resolve) -> dict[str, list[str]]:
    """Addresses of other names, of those that answer in time."""
    tasks = {name: asyncio.create_task(_addresses(name, resolve)) for name in names}
    if tasks:
        try:
            await asyncio.wait(tasks.values(), timeout=TARGETS_DELAY_S)
        finally:
            for task in tasks.values():
                task.cancel()
    return {name: task.result() for name, task in tasks.items() if task.done()}


async def _addresses(name: str, resolve: Resolve) -> list[str]:
    try:
        return [address for address, _ in await resolve(name, 0)]
    except NameResolutionError:
        return []


def _compose(endpoints: Sequence[Endpoint], plain: tuple[Address, ...], known: dict[str, list[str]]) -> Candidates:
    """Each endpoint's addresses and hints with its port, then the plain addresses."""
    udp: list[Address] = []
    tcp: list[Address] = []
    for endpoint in endpoints:
        reachable = [(address, endpoint.port) for address in (*known.get(endpoint.target, ()), *endpoint.hints)]
        udp += reachable if endpoint.over_udp else []
        tcp += reachable if endpoint.over_tcp else []
    prefers_tcp = bool(endpoints) and not any(endpoint.over_udp for endpoint in endpoints)
    return Candidates(_unique((*udp, *plain) or tcp), _unique((*tcp, *plain) or udp), prefers_tcp)


def _unique(addresses: Iterable[Address]) -> tuple[Address, ...]:
    return tuple(dict.fromkeys(addresses))[:MAX_CANDIDATES]


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
