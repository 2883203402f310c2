"""HTTPS records: what the DNS says about reaching an origin besides its addresses (RFC 9460).

Records are untrusted: they lead to other addresses and ports, never to another identity. SNI, certificate name and
`:authority` stay those of the origin (§9.1). A record set that breaks the RFC is discarded as a whole (§2.2), a record
that we do not understand is skipped (§8), and without any the origin is reached as if there were none (§3).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.resolver
from dns.rdtypes.svcbbase import (
    ALPNParam,
    IPv4HintParam,
    IPv6HintParam,
    MandatoryParam,
    ParamKey,
    PortParam,
    SVCBBase,
)

from masque_client.errors import RemoteProtocolError
from masque_client.netio.resolver import query_marked

MAX_ALIASES = 8
MAX_ENDPOINTS = 4
MAX_HINTS = 4
"""Bounds on what a record set can make us try; RFC 9460 §2.4.2 asks for some limit on aliases."""
QUERY_TIMEOUT_S = 3.0
HTTPS_PORT = 443

_UNDERSTOOD = frozenset(
    {
        ParamKey.MANDATORY,
        ParamKey.ALPN,
        ParamKey.NO_DEFAULT_ALPN,
        ParamKey.PORT,
        ParamKey.IPV4HINT,
        ParamKey.IPV6HINT,
    }
)
"""Keys that a `mandatory` parameter may name; not `ech`, which we cannot do."""
_OVER_TCP = frozenset({"h2", "http/1.1"})
"""With either there is TLS over TCP at the endpoint; what we offer there is our own list all the same."""

QueryHttps = Callable[[str], Awaitable[Sequence[bytes]]]
"""A name to the RDATA of its HTTPS records, uncompressed; empty when there are none. May raise `DNSException` and
`OSError`."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One way to reach an origin, from one record in ServiceMode.

    Attributes:
        target: the name whose addresses serve it; the origin's own host as a rule.
        port: of UDP and of TCP.
        over_udp, over_tcp: whether HTTP/3, and HTTP/2, are worth trying.
        hints: addresses to try while those of `target` are not known, and beside them.
    """

    target: str
    port: int
    over_udp: bool
    over_tcp: bool
    hints: tuple[str, ...] = ()


async def query_system(name: str) -> Sequence[bytes]:
    """Ask the system's resolvers, without the search list; their addresses are read anew, for networks change."""
    try:
        answer = await dns.asyncresolver.Resolver().resolve(
            dns.name.from_text(name), dns.rdatatype.HTTPS, search=False, lifetime=QUERY_TIMEOUT_S
        )
    except (dns.resolver.NoAnswer, dns.resolver.NXDOMAIN):
        return []
    return [record.to_wire() or b"" for record in answer]


def query_marked_with(mark: int) -> QueryHttps:
    """As `query_system`, by packets with this firewall mark: past a tunnel that is down."""

    async def query(name: str) -> Sequence[bytes]:
        return [record.to_wire() or b"" for record in await query_marked(name, "HTTPS", mark)]

    return query


async def look_up_records(name: str, query: QueryHttps) -> tuple[str, Sequence[bytes]]:
    """Follow aliases (RFC 9460 §2.4.2): the last name, and the records in ServiceMode there.

    Raises:
        RemoteProtocolError: a record set is malformed.
        DNSException, OSError: see `QueryHttps`; also for a chain of aliases that is too long.
    """
    for _ in range(MAX_ALIASES + 1):
        rrset = await query(name)
        aliases = [record for record in parse_records(rrset) if record.priority == 0]
        if not aliases:
            return name, rrset
        if aliases[0].target == dns.name.root:
            return name, ()  # "this service does not exist" (§2.5.1), which forbids no attempt
        name = aliases[0].target.to_text(omit_final_dot=True)
    raise OSError("a chain of HTTPS aliases without end")


async def look_up_endpoints(
    host: str,
    port: int,
    query: QueryHttps = query_system,
    shuffle: Callable[[list[SVCBBase]], None] = random.shuffle,
) -> list[Endpoint]:
    """The endpoints of `https://host:port`, best first; empty when there are none, or none that can be used.

    Raises nothing: whatever is wrong with the DNS, the origin is reached without it. `shuffle` orders records of equal
    priority (§2.4.1).
    """
    name = host if port == HTTPS_PORT else f"_{port}._https.{host}"  # §9.1
    try:
        owner, rrset = await look_up_records(name, query)
        records = parse_records(rrset)
    except (RemoteProtocolError, dns.exception.DNSException, OSError, UnicodeError):
        return []
    shuffle(records)
    records.sort(key=lambda record: record.priority)
    # "." is the owner name (§2.5.2). With the labels of a port in front of it (§9.1) it can have no addresses: the host
    # is meant.
    own_target = host if owner == name else owner
    endpoints = [_endpoint(record, own_target, port) for record in records]
    return [endpoint for endpoint in endpoints if endpoint is not None][:MAX_ENDPOINTS]


def parse_records(rrset: Sequence[bytes]) -> list[SVCBBase]:
    """Parse the RDATA of one record set.

    Raises:
        RemoteProtocolError: any record is malformed; none may be used then (§2.2).
    """
    return [_parse_record(rdata) for rdata in rrset]


def _parse_record(rdata: bytes) -> SVCBBase:
    try:
        record = dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.HTTPS, rdata, 0, len(rdata))
    except (dns.exception.DNSException, ValueError) as error:
        raise RemoteProtocolError("an HTTPS record is malformed", clause="RFC 9460 §2.2") from error
    assert isinstance(record, SVCBBase)
    return record


def _endpoint(record: SVCBBase, own_target: str, default_port: int) -> Endpoint | None:
    """What a record in ServiceMode offers, or None for nothing of use to us."""
    params = record.params
    mandatory, alpn, port = params.get(ParamKey.MANDATORY), params.get(ParamKey.ALPN), params.get(ParamKey.PORT)
    if isinstance(mandatory, MandatoryParam) and not _UNDERSTOOD.issuperset(mandatory.keys):
        return None
    protocols = {id.decode("latin-1") for id in alpn.ids} if isinstance(alpn, ALPNParam) else set()
    if ParamKey.NO_DEFAULT_ALPN not in params:
        protocols.add("http/1.1")
    over_udp, over_tcp = "h3" in protocols, not protocols.isdisjoint(_OVER_TCP)
    if alpn is None:
        over_udp = True  # RFC 9460 §7.1 means http/1.1 alone, but a record for `pvd` or hints says nothing on protocols
    number = port.port if isinstance(port, PortParam) else default_port
    if not number or not (over_udp or over_tcp):
        return None
    target = own_target if record.target == dns.name.root else record.target.to_text(omit_final_dot=True)
    return Endpoint(target, number, over_udp, over_tcp, _hints(record))


def _hints(record: SVCBBase) -> tuple[str, ...]:
    """Address hints, IPv6 first as RFC 6724 mostly has it."""
    hints: list[str] = []
    for key, kind in ((ParamKey.IPV6HINT, IPv6HintParam), (ParamKey.IPV4HINT, IPv4HintParam)):
        if isinstance(value := record.params.get(key), kind):
            hints += value.addresses[:MAX_HINTS]
    return tuple(hints)
