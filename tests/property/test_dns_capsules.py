"""DNS_ASSIGN and PREF64 for any input: parsing undoes encoding, and only the declared errors come out."""

from __future__ import annotations

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st

from masque_client.errors import RemoteProtocolError
from masque_client.protocol.capsule import CapsuleReader
from masque_client.protocol.dns_capsules import (
    DRAFT_TYPES,
    MAX_IGNORED,
    AssignedDns,
    DnsAssignment,
    Nameserver,
    Pref64,
    encode_dns_assign,
    encode_pref64,
    parse_dns_assign,
    parse_pref64,
)
from masque_client.protocol.nat64 import PREFIX_LENGTHS, extract, synthesize
from masque_client.protocol.service_parameters import ServiceParameters
from tests.vectors import dns

quick = settings(derandomize=True, deadline=None, max_examples=100, database=None)

names = st.from_regex(r"[a-z0-9_]{1,12}(\.[a-z0-9_]{1,12}){0,3}", fullmatch=True)
ipv4 = st.ip_addresses(v=4)
ipv6 = st.ip_addresses(v=6)


@st.composite
def parameters(draw):
    said = ServiceParameters.of(
        alpn=tuple(draw(st.lists(st.sampled_from(["dot", "doq", "h2", "h3", "\xff"]), min_size=1, max_size=4))),
        no_default_alpn=draw(st.booleans()),
        port=draw(st.none() | st.integers(1, 65535)),
        doh_path=draw(st.none() | st.just("/dns-query{?dns}") | st.text(max_size=5)),
    )
    others = draw(st.dictionaries(st.integers(8, 65535), st.binary(max_size=8), max_size=3))
    return ServiceParameters((*said.pairs, *sorted(others.items())))


encrypted = st.builds(
    Nameserver,
    st.integers(1, 65535),
    st.lists(ipv4, max_size=3).map(tuple),
    st.lists(ipv6, max_size=3).map(tuple),
    names,
    parameters(),
)
plain = st.builds(Nameserver, st.integers(1, 65535), st.lists(ipv4, min_size=1, max_size=3).map(tuple))
configurations = st.builds(
    AssignedDns,
    st.lists(encrypted | plain, max_size=3).map(tuple),
    st.lists(names | st.just(""), max_size=4, unique=True).map(tuple),
    st.lists(names, max_size=4, unique=True).map(tuple),
)


@st.composite
def translation_prefixes(draw):
    length = draw(st.sampled_from(PREFIX_LENGTHS))
    bits = bytearray(draw(st.binary(min_size=12, max_size=12)))
    bits[8] = 0
    return ipaddress.IPv6Network((bytes(bits) + bytes(4), length), strict=False)


@quick
@given(st.lists(configurations, max_size=3).map(tuple))
def test_dns_assign(assigned):
    (capsule,) = CapsuleReader(DRAFT_TYPES.limits).receive_data(encode_dns_assign(assigned))
    assert parse_dns_assign(capsule.value) == DnsAssignment(assigned)


@quick
@given(st.lists(translation_prefixes(), max_size=5, unique=True).map(tuple))
def test_pref64(prefixes):
    (capsule,) = CapsuleReader(DRAFT_TYPES.limits).receive_data(encode_pref64(prefixes))
    assert parse_pref64(capsule.value) == Pref64(prefixes)


@quick
@given(translation_prefixes(), ipv4)
def test_synthesis(prefix, address):
    embedded = synthesize(prefix, address)
    assert embedded in prefix
    assert extract([prefix], embedded) == address


def vector_values():
    encoded = [dns.FULL_TUNNEL, dns.SPLIT_TUNNEL, dns.TWO_CONFIGURATIONS, *dns.MALFORMED_DNS.values()]
    reader = CapsuleReader(DRAFT_TYPES.limits)
    return [capsule.value for one in encoded for capsule in reader.receive_data(bytes.fromhex(one))]


@st.composite
def nearly_valid(draw):
    """A good value with a few octets changed, taken out or put in: most of it still reads."""
    value = bytearray(draw(st.sampled_from(vector_values())))
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, len(value)))
        value[position : position + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(value)


@settings(quick, max_examples=400)
@given(st.binary(max_size=80) | nearly_valid())
def test_any_dns_assign(value):
    try:
        assignment = parse_dns_assign(value)
    except RemoteProtocolError as error:
        assert error.code == 0x10E
        return
    assert len(assignment.ignored) <= MAX_IGNORED
    assert all(reason.isprintable() for reason in assignment.ignored)
    # What is kept is what we would send ourselves, and reads the same again.
    (capsule,) = CapsuleReader(DRAFT_TYPES.limits).receive_data(encode_dns_assign(assignment.configurations))
    assert parse_dns_assign(capsule.value) == DnsAssignment(assignment.configurations)


@quick
@given(st.binary(max_size=80) | st.lists(st.binary(min_size=13, max_size=13), max_size=4).map(b"".join))
def test_any_pref64(value):
    try:
        pref64 = parse_pref64(value)
    except RemoteProtocolError as error:
        assert error.code == 0x10E
        return
    encode_pref64(pref64.prefixes)
