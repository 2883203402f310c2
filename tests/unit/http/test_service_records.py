"""What HTTPS records lead to, rule by rule (RFC 9460), in wire format."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address

import dns.asyncresolver
import dns.exception
import dns.resolver
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from masque_client.http.service_records import (
    MAX_ALIASES,
    MAX_ENDPOINTS,
    MAX_HINTS,
    Endpoint,
    look_up_endpoints,
    query_system,
)

HOST = "proxy.example"
H3 = bytes.fromhex("0001 0003 026833")
H2 = bytes.fromhex("0001 0003 026832")
BOTH = bytes.fromhex("0001 0006 026833 026832")
FOREIGN = bytes.fromhex("0001 0004 03666f6f")
NO_DEFAULT_ALPN = bytes.fromhex("0002 0000")
PORT_8443 = bytes.fromhex("0003 0002 20fb")
ROOT = b"\0"
CDN = b"\x03cdn\x07example\0"


def record(*params: bytes, priority: int = 1, target: bytes = ROOT) -> bytes:
    return priority.to_bytes(2) + target + b"".join(params)


def hint4(*addresses: str) -> bytes:
    value = b"".join(IPv4Address(address).packed for address in addresses)
    return b"\0\x04" + len(value).to_bytes(2) + value


def hint6(*addresses: str) -> bytes:
    value = b"".join(IPv6Address(address).packed for address in addresses)
    return b"\0\x06" + len(value).to_bytes(2) + value


def look_up(answers: Mapping[str, Sequence[bytes] | Exception], port: int = 443) -> tuple[list[Endpoint], list[str]]:
    """The endpoints, and the names that were asked. Ties are reversed instead of shuffled."""
    asked = []

    async def query(name: str) -> Sequence[bytes]:
        asked.append(name)
        answer = answers.get(name, ())
        if isinstance(answer, Exception):
            raise answer
        return answer

    return asyncio.run(look_up_endpoints(HOST, port, query, shuffle=list.reverse)), asked


def endpoints(*rrset: bytes) -> list[Endpoint]:
    return look_up({HOST: rrset})[0]


def test_the_port_is_part_of_the_question() -> None:
    assert look_up({}, 443)[1] == [HOST]
    assert look_up({}, 8443)[1] == [f"_8443._https.{HOST}"]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ((), Endpoint(HOST, 443, over_udp=True, over_tcp=True)),
        ((H3,), Endpoint(HOST, 443, over_udp=True, over_tcp=True)),
        ((H2,), Endpoint(HOST, 443, over_udp=False, over_tcp=True)),
        ((BOTH,), Endpoint(HOST, 443, over_udp=True, over_tcp=True)),
        ((H3, NO_DEFAULT_ALPN), Endpoint(HOST, 443, over_udp=True, over_tcp=False)),
        ((FOREIGN,), Endpoint(HOST, 443, over_udp=False, over_tcp=True)),
        ((FOREIGN, NO_DEFAULT_ALPN), None),
        ((H3, PORT_8443), Endpoint(HOST, 8443, over_udp=True, over_tcp=True)),
        ((H3, bytes.fromhex("0003 0002 0000")), None),
        ((bytes.fromhex("0000 0002 0001"), H3), Endpoint(HOST, 443, over_udp=True, over_tcp=True)),
        ((bytes.fromhex("0000 0002 0005"), bytes.fromhex("0005 0004 0002fe0d")), None),  # ech demanded
        ((bytes.fromhex("0000 0002 270f"), H3, bytes.fromhex("270f 0000")), None),  # a key nobody knows demanded
        ((H3, bytes.fromhex("270f 0000")), Endpoint(HOST, 443, over_udp=True, over_tcp=True)),
    ],
)
def test_what_a_record_offers(params: tuple[bytes, ...], expected: Endpoint | None) -> None:
    assert endpoints(record(*params)) == ([expected] if expected is not None else [])


def test_hints_are_bounded_and_ipv6_comes_first() -> None:
    many = [f"192.0.2.{n}" for n in range(9)]
    (found,) = endpoints(record(H3, hint4(*many), hint6("2001:db8::1")))
    assert found.hints == ("2001:db8::1", *many[:MAX_HINTS])


def test_lower_priorities_come_first_and_ties_are_shuffled() -> None:
    names = [bytes([1]) + name + b"\0" for name in (b"a", b"b", b"c")]
    found = endpoints(
        record(H3, priority=2, target=names[0]),
        record(H3, target=names[1]),
        record(H3, target=names[2]),
    )
    assert [endpoint.target for endpoint in found] == ["c", "b", "a"]


def test_a_flood_of_records_is_cut() -> None:
    assert len(endpoints(*[record(H3, priority=n) for n in range(1, 50)])) == MAX_ENDPOINTS


def test_one_malformed_record_discards_the_set() -> None:
    assert endpoints(record(H3), record(H3)[:-1]) == []
    assert endpoints(record(PORT_8443, H3)) == []  # keys out of order


def test_aliases_lead_to_another_name_and_beat_other_records() -> None:
    alias = record(priority=0, target=CDN)
    found, asked = look_up({HOST: [record(H2), alias], "cdn.example": [record(H3)]})
    assert found == [Endpoint("cdn.example", 443, over_udp=True, over_tcp=True)]
    assert asked == [HOST, "cdn.example"]
    found, asked = look_up({HOST: [alias], "cdn.example": [alias]})
    assert (found, len(asked)) == ([], MAX_ALIASES + 1)
    assert look_up({HOST: [record(priority=0)]})[0] == []


def test_with_a_port_the_owner_means_the_host() -> None:
    assert look_up({f"_8443._https.{HOST}": [record(H3)]}, 8443)[0] == [Endpoint(HOST, 8443, True, True)]


@pytest.mark.parametrize("failure", [dns.exception.Timeout(), dns.resolver.NoNameservers(), OSError("down")])
def test_a_dns_that_fails_is_no_error(failure: Exception) -> None:
    assert look_up({HOST: failure})[0] == []


@settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow], max_examples=300
)
@given(st.lists(st.binary(max_size=60) | st.binary(max_size=30).map(lambda tail: record(H3) + tail), max_size=4))
def test_any_answer_is_survived(rrset: list[bytes]) -> None:
    for endpoint in endpoints(*rrset):
        assert endpoint.over_udp or endpoint.over_tcp
        assert 0 < endpoint.port < 65536


def test_the_systems_resolver_is_asked_for_the_very_name(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str, object]] = []

    class Resolver:
        async def resolve(self, name: object, kind: object, **options: object) -> object:
            seen.append((str(name), str(kind), options["search"]))
            raise dns.resolver.NXDOMAIN

    monkeypatch.setattr(dns.asyncresolver, "Resolver", Resolver)
    assert asyncio.run(query_system(HOST)) == []
    assert [(name, search) for name, _, search in seen] == [(f"{HOST}.", False)]


def test_a_machine_without_resolvers_has_no_records(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_configuration(*_: object) -> object:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.asyncresolver, "Resolver", no_configuration)
    assert asyncio.run(look_up_endpoints(HOST, 443)) == []
