"""The DNS's hint that a host serves a PvD document: the key `pvd` of its HTTPS records (PROXY-CONFIG §2.1, RFC 9460).

A hint and nothing else: its presence adds no trust, its absence forbids no attempt. It can spare a useless fetch, and
it tells a person where to look when a fetch fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.resolver
from dns.rdtypes.svcbbase import GenericParam, MandatoryParam, ParamKey, SVCBBase

from masque_client.errors import RemoteProtocolError

PVD_KEY = 11
MAX_ALIASES = 4
QUERY_TIMEOUT_S = 3.0

_UNDERSTOOD_KEYS = frozenset(range(7)) | {PVD_KEY}
"""Keys a `mandatory` parameter may name without making the record useless to us (RFC 9460 §8)."""

QueryHttps = Callable[[str], Awaitable[Sequence[bytes]]]
"""A host name to the RDATA of its HTTPS records, uncompressed; empty when there are none. Raises `DNSException`."""


class Hint(StrEnum):
    """What the DNS says about a host's document."""

    PRESENT = "present"
    ABSENT = "absent"
    MALFORMED = "malformed"
    """The record set breaks RFC 9460 and was discarded as a whole (§2.2)."""
    UNKNOWN = "unknown"
    """The DNS did not answer."""


async def query_system(host: str) -> Sequence[bytes]:
    """Ask the system's resolver, without its search list."""
    try:
        answer = await dns.asyncresolver.resolve(
            dns.name.from_text(host), dns.rdatatype.HTTPS, search=False, lifetime=QUERY_TIMEOUT_S
        )
    except (dns.resolver.NoAnswer, dns.resolver.NXDOMAIN):
        return []
    return [record.to_wire() or b"" for record in answer]


async def look_up_hint(host: str, query: QueryHttps = query_system) -> Hint:
    """What the HTTPS records of `host` (a canonical name) say; aliases are followed. Raises nothing."""
    for _ in range(MAX_ALIASES + 1):
        try:
            records = parse_records(await query(host))
        except (RemoteProtocolError, dns.exception.FormError):
            return Hint.MALFORMED
        except (dns.exception.DNSException, OSError):
            return Hint.UNKNOWN
        aliases = [record for record in records if record.priority == 0]
        if not aliases:
            is_present = any(PVD_KEY in record.params and _is_usable(record) for record in records)
            return Hint.PRESENT if is_present else Hint.ABSENT
        if aliases[0].target == dns.name.root:
            return Hint.ABSENT  # "this service does not exist" (RFC 9460 §2.5.1)
        host = aliases[0].target.to_text(omit_final_dot=True)
    return Hint.UNKNOWN


def parse_records(rrset: Sequence[bytes]) -> list[SVCBBase]:
    """Parse the RDATA of one record set.

    Raises:
        RemoteProtocolError: any record is malformed; none may be used then (RFC 9460 §2.2).
    """
    return [_parse_record(rdata) for rdata in rrset]


def _parse_record(rdata: bytes) -> SVCBBase:
    try:
        record = dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.HTTPS, rdata, 0, len(rdata))
    except (dns.exception.DNSException, ValueError) as error:
        raise RemoteProtocolError("an HTTPS record is malformed", clause="RFC 9460 §2.2") from error
    assert isinstance(record, SVCBBase)
    parameter = record.params.get(ParamKey.make(PVD_KEY))
    if isinstance(parameter, GenericParam) and parameter.value:
        raise RemoteProtocolError("the value of the key pvd is not empty", clause="RFC 9460 §2.2")
    return record


def _is_usable(record: SVCBBase) -> bool:
    mandatory = record.params.get(ParamKey.MANDATORY)
    return not isinstance(mandatory, MandatoryParam) or _UNDERSTOOD_KEYS.issuperset(mandatory.keys)
