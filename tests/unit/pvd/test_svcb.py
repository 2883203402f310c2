"""The `pvd` key of HTTPS records, in wire format."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import dns.exception
import dns.resolver
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque_client.errors import RemoteProtocolError
from masque_client.http.service_records import MAX_ALIASES
from masque_client.pvd.svcb import Hint, look_up_hint, parse_records

HOST = "masque.example.net"

# HTTPS 1 . alpn="h3,h2" pvd  (PROXY-CONFIG §2.1; 17 octets)
WITH_KEY = bytes.fromhex("0001 00 0001 0006 026833 026832 000b 0000")
WITHOUT_KEY = bytes.fromhex("0001 00 0001 0006 026833 026832")
WITH_VALUE = bytes.fromhex("0001 00 0001 0006 026833 026832 000b 0001 01")
# HTTPS 1 . mandatory=key9999 pvd key9999 (a key we do not understand)
FOREIGN_MANDATORY = bytes.fromhex("0001 00 0000 0002 270f 000b 0000 270f 0000")
# HTTPS 1 . mandatory=key11 pvd
OUR_MANDATORY = bytes.fromhex("0001 00 0000 0002 000b 000b 0000")
# HTTPS 0 cdn.example
ALIAS = bytes.fromhex("0000") + b"\x03cdn\x07example\x00"
NOWHERE = bytes.fromhex("0000 00")


def hint(answers: Mapping[str, Sequence[bytes] | Exception], host: str = HOST) -> tuple[Hint, list[str]]:
    """The hint, and the names that were asked."""
    asked = []

    async def query(name: str) -> Sequence[bytes]:
        asked.append(name)
        answer = answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return asyncio.run(look_up_hint(host, query)), asked


@pytest.mark.parametrize(
    ("rrset", "expected"),
    [
        ([WITH_KEY], Hint.PRESENT),
        ([WITHOUT_KEY], Hint.ABSENT),
        ([], Hint.ABSENT),
        ([WITHOUT_KEY, WITH_KEY], Hint.PRESENT),
        ([WITH_VALUE], Hint.MALFORMED),
        ([WITH_KEY, WITH_VALUE], Hint.MALFORMED),  # one bad record discards the whole set
        ([WITH_KEY[:-1]], Hint.MALFORMED),
        ([WITH_KEY + b"\x00"], Hint.MALFORMED),
        ([b""], Hint.MALFORMED),
        ([bytes.fromhex("0001 00 000b 0000 0001 0003 026833")], Hint.MALFORMED),  # keys out of order
        ([bytes.fromhex("0001 00 000b 0000 000b 0000")], Hint.MALFORMED),  # twice
        ([FOREIGN_MANDATORY], Hint.ABSENT),
        ([OUR_MANDATORY], Hint.PRESENT),
        ([NOWHERE], Hint.ABSENT),
    ],
)
def test_record_sets(rrset: list[bytes], expected: Hint) -> None:
    assert hint({HOST: rrset})[0] is expected


def test_an_alias_is_followed_and_beats_other_records() -> None:
    assert hint({HOST: [WITH_KEY, ALIAS], "cdn.example": [WITHOUT_KEY]}) == (Hint.ABSENT, [HOST, "cdn.example"])
    assert hint({HOST: [ALIAS], "cdn.example": [WITH_KEY]}) == (Hint.PRESENT, [HOST, "cdn.example"])


def test_a_loop_of_aliases_ends() -> None:
    found, asked = hint({HOST: [ALIAS], "cdn.example": [ALIAS]})
    assert (found, len(asked)) == (Hint.UNKNOWN, MAX_ALIASES + 1)


@pytest.mark.parametrize("failure", [dns.exception.Timeout(), dns.resolver.NoNameservers(), OSError("down")])
def test_a_dns_that_fails_is_no_error(failure: Exception) -> None:
    assert hint({HOST: failure})[0] is Hint.UNKNOWN


@settings(derandomize=True, deadline=None, database=None, max_examples=300)
@given(st.binary(max_size=60) | st.binary(max_size=8).map(lambda tail: WITH_KEY + tail))
def test_any_bytes_parse_or_are_malformed(rdata: bytes) -> None:
    try:
        parse_records([rdata])
    except RemoteProtocolError:
        pass
