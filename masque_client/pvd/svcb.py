"""The DNS's hint that a host serves a PvD document: the key `pvd` of its HTTPS records (PROXY-CONFIG §2.1, RFC 9460).

A hint and nothing else: its presence adds no trust, its absence forbids no attempt. It can spare a useless fetch, and
it tells a person where to look when a fetch fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import dns.exception
from dns.rdtypes.svcbbase import GenericParam, MandatoryParam, ParamKey, SVCBBase

from masque_client.errors import RemoteProtocolError
from masque_client.http import service_records
from masque_client.http.service_records import QueryHttps, look_up_records, query_system

PVD_KEY = 11

_UNDERSTOOD_KEYS = frozenset(range(7)) | {PVD_KEY}
"""Keys a `mandatory` parameter may name without making the record useless to us (RFC 9460 §8)."""


class Hint(StrEnum):
    """What the DNS says about a host's document."""

    PRESENT = "present"
    ABSENT = "absent"
    MALFORMED = "malformed"
    """The record set breaks RFC 9460 and was discarded as a whole (§2.2)."""
    UNKNOWN = "unknown"
    """The DNS did not answer."""


async def look_up_hint(host: str, query: QueryHttps = query_system) -> Hint:
    """What the HTTPS records of `host` (a canonical name) say; aliases are followed. Raises nothing."""
    try:
        _, rrset = await look_up_records(host, query)
        records = parse_records(rrset)
    except (RemoteProtocolError, dns.exception.FormError):
        return Hint.MALFORMED
    except (dns.exception.DNSException, OSError):
        return Hint.UNKNOWN
    return Hint.PRESENT if any(PVD_KEY in record.params and _is_usable(record) for record in records) else Hint.ABSENT


def parse_records(rrset: Sequence[bytes]) -> list[SVCBBase]:
    """Parse the RDATA of one record set, the key `pvd` included.

    Raises:
        RemoteProtocolError: any record is malformed; none may be used then (RFC 9460 §2.2).
    """
    records = service_records.parse_records(rrset)
    for record in records:
        parameter = record.params.get(ParamKey.make(PVD_KEY))
        if isinstance(parameter, GenericParam) and parameter.value:
            raise RemoteProtocolError("the value of the key pvd is not empty", clause="RFC 9460 §2.2")
    return records


def _is_usable(record: SVCBBase) -> bool:
    mandatory = record.params.get(ParamKey.MANDATORY)
    return not isinstance(mandatory, MandatoryParam) or _UNDERSTOOD_KEYS.issuperset(mandatory.keys)
