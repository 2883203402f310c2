"""DNS_ASSIGN and PREF64: what is read without complaint is written back as the same bytes mean the same."""

from __future__ import annotations

from masque_client.errors import RemoteProtocolError
from masque_client.protocol.dns_capsules import (
    encode_dns_assign,
    encode_pref64,
    parse_dns_assign,
    parse_pref64,
)
from masque_client.protocol.varint import parse_varint
from tests.fuzz.harness import FuzzOne

WORDS = (b"\0\1\0\3\2h3", b"\0\7\0\x10/dns-query{?dns}", b"corp.example", b"\x60\0\x64\xff\x9b")


def make() -> FuzzOne:
    """Input: one byte (odd: PREF64), the value of the capsule."""
    return fuzz_one


def fuzz_one(data: bytes) -> None:
    value = data[1:]
    try:
        if data[:1] and data[0] & 1:
            pref64 = parse_pref64(value)
            assert parse_pref64(value_of(encode_pref64(pref64.prefixes))).prefixes == pref64.prefixes
        else:
            dns = parse_dns_assign(value)
            again = parse_dns_assign(value_of(encode_dns_assign(dns.configurations)))
            assert again.configurations == dns.configurations
            assert not again.ignored
            assert all(reason.isprintable() for reason in dns.ignored)
    except RemoteProtocolError as error:
        assert error.clause.startswith(("draft-ietf-masque-connect-ip-dns", "RFC 9460"))


def value_of(capsule: bytes) -> bytes:
    kind = parse_varint(capsule)
    assert kind is not None
    length = parse_varint(capsule, kind[1])
    assert length is not None
    return capsule[length[1] :]
