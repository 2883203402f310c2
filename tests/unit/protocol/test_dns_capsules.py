from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest

from masque_client.errors import LocalProtocolError, RemoteProtocolError
from masque_client.protocol.capsule import CapsuleReader
from masque_client.protocol.dns_capsules import (
    DRAFT_TYPES,
    MAX_CAPSULE_BYTES,
    MAX_IGNORED,
    AssignedDns,
    DnsAssignment,
    DnsCapsuleTypes,
    Nameserver,
    Pref64,
    encode_dns_assign,
    encode_pref64,
    parse_dns_assign,
    parse_pref64,
)
from masque_client.protocol.service_parameters import ServiceParameters
from masque_client.protocol.varint import encode_varint
from tests.vectors import dns

PLAIN = Nameserver(1, (IPv4Address("192.0.2.53"),))


def value_of(encoded):
    (capsule,) = CapsuleReader(DRAFT_TYPES.limits).receive_data(bytes.fromhex(encoded))
    return capsule.value


def parse_one(nameserver: bytes, domains: bytes = b"\1\0", search: bytes = b"\0"):
    """A capsule with one configuration, built by hand where the encoder would refuse."""
    return parse_dns_assign(b"\1" + nameserver + domains + search)


def raw_nameserver(*, addresses: bytes = b"\1\xc0\0\2\x35\0", name: bytes = b"", parameters: bytes = b"") -> bytes:
    return b"\0\1" + addresses + domain(name) + encode_varint(len(parameters)) + parameters


def domain(name: bytes) -> bytes:
    return encode_varint(len(name)) + name


# --- vectors ---


@pytest.mark.parametrize(
    ("encoded", "configurations"),
    [
        (
            dns.FULL_TUNNEL,
            (
                AssignedDns(
                    (
                        Nameserver(
                            1,
                            name="masque.example.org",
                            parameters=ServiceParameters.of(alpn=("h2", "h3"), doh_path="/dns-query{?dns}"),
                        ),
                    ),
                    ("",),
                ),
            ),
        ),
        (
            dns.SPLIT_TUNNEL,
            (
                AssignedDns(
                    (Nameserver(1, (IPv4Address("192.0.2.33"),), (IPv6Address("2001:db8::1"),)),),
                    ("internal.corp.example",),
                    ("internal.corp.example", "corp.example"),
                ),
            ),
        ),
        (dns.NOTHING, ()),
        (
            dns.TWO_CONFIGURATIONS,
            (
                AssignedDns(
                    (
                        Nameserver(
                            1,
                            (IPv4Address("192.0.2.53"),),
                            name="dns.corp.example",
                            parameters=ServiceParameters.of(alpn=("dot",), no_default_alpn=True, port=853),
                        ),
                    ),
                    ("corp.example",),
                ),
                AssignedDns((Nameserver(2, (IPv4Address("198.51.100.53"),)),), ("lab.example",), ("lab.example",)),
            ),
        ),
    ],
    ids=["D1", "D2", "D3", "D4"],
)
def test_dns_assign(encoded, configurations):
    assert parse_dns_assign(value_of(encoded)) == DnsAssignment(configurations)
    assert encode_dns_assign(configurations).hex() == encoded


@pytest.mark.parametrize(
    ("encoded", "prefixes"),
    [
        (dns.WELL_KNOWN_PREFIX, ["64:ff9b::/96"]),
        (dns.THREE_PREFIXES, ["64:ff9b::/96", "2001:db8:64::/64", "2001:db8::/32"]),
        (dns.WITHDRAWN_PREFIXES, []),
    ],
    ids=["P1", "P2", "P3"],
)
def test_pref64(encoded, prefixes):
    networks = tuple(map(IPv6Network, prefixes))
    assert parse_pref64(value_of(encoded)) == Pref64(networks)
    assert encode_pref64(networks).hex() == encoded


@pytest.mark.parametrize("encoded", dns.MALFORMED_DNS.values(), ids=dns.MALFORMED_DNS.keys())
def test_malformed_dns_assign(encoded):
    with pytest.raises(RemoteProtocolError, match=r"connect-ip-dns-06 §3|RFC 9460 §2\.2"):
        parse_dns_assign(value_of(encoded))


@pytest.mark.parametrize("encoded", dns.MALFORMED_PREF64.values(), ids=dns.MALFORMED_PREF64.keys())
def test_malformed_pref64(encoded):
    with pytest.raises(RemoteProtocolError, match=r"connect-ip-dns-06 §4\.1"):
        parse_pref64(value_of(encoded))


@pytest.mark.parametrize("encoded", [dns.FULL_TUNNEL, dns.SPLIT_TUNNEL, dns.TWO_CONFIGURATIONS])
def test_every_cut_is_malformed_but_those_between_configurations(encoded):
    value = value_of(encoded)
    first = len(AssignedDns.encode(parse_dns_assign(value).configurations[0]))
    for cut in range(1, len(value)):
        if cut == first:
            assert len(parse_dns_assign(value[:cut]).configurations) == 1
        else:
            with pytest.raises(RemoteProtocolError):
                parse_dns_assign(value[:cut])


# --- structure ---


@pytest.mark.parametrize(
    "value",
    [
        encode_varint((1 << 62) - 1),  # nameservers
        b"\1\0\1" + encode_varint(1 << 40),  # IPv4 addresses
        b"\1\0\1\0" + encode_varint(1 << 40) + bytes(16),  # IPv6 addresses
        b"\1\0\1\0\0" + encode_varint(1 << 40),  # octets of a name
        b"\1\0\1\0\0\0" + encode_varint(1 << 40),  # octets of parameters
        b"\0" + encode_varint(1 << 40),  # domains
        b"\0\0" + encode_varint(1 << 40),
    ],
)
def test_counts_beyond_the_capsule(value):
    with pytest.raises(RemoteProtocolError, match="too short for"):
        parse_dns_assign(value)


def test_long_integers_are_as_good_as_short_ones():
    value = b"\x40\1" + b"\0\1" + b"\x80\0\0\1\xc0\0\2\x35" + b"\xc0" + bytes(7) + b"\0\0" + b"\x40\1\0" + b"\0"
    assert parse_dns_assign(value) == DnsAssignment((AssignedDns((PLAIN,), ("",)),))


def test_no_domain_is_not_the_root():
    claims_nothing = parse_one(raw_nameserver(), domains=b"\0").configurations[0]
    claims_everything = parse_one(raw_nameserver(), domains=b"\1\0").configurations[0]
    assert (claims_nothing.internal_domains, claims_everything.internal_domains) == ((), ("",))


def test_both_capsules_are_bounded():
    for type in (DRAFT_TYPES.dns_assign, DRAFT_TYPES.pref64):
        reader = CapsuleReader(DRAFT_TYPES.limits)
        assert reader.receive_data(encode_varint(type) + encode_varint(MAX_CAPSULE_BYTES)) == []
        with pytest.raises(RemoteProtocolError, match="more than 32768"):
            CapsuleReader(DRAFT_TYPES.limits).receive_data(encode_varint(type) + encode_varint(MAX_CAPSULE_BYTES + 1))


def test_other_code_points():
    final = DnsCapsuleTypes(dns_assign=0x1F, pref64=0x20)
    assert encode_dns_assign([], final) == b"\x1f\0"
    assert encode_pref64([], final) == b"\x20\0"


# --- what is left out ---


@pytest.mark.parametrize(
    ("nameserver", "reason"),
    [
        (raw_nameserver(addresses=b"\0\0"), "has no address"),
        (raw_nameserver(name=b"b\xfccher"), "has the name 'b\\xfccher'"),
        (raw_nameserver(name=b"a" * 64), "which is none"),
        (raw_nameserver(parameters=ServiceParameters.of(alpn=("dot",)).encode()), "without a name to authenticate"),
        (raw_nameserver(name=b"a", parameters=b"\0\4\0\4\xc0\0\2\1"), "address hints"),
        (raw_nameserver(name=b"a", parameters=b"\0\2\0\0"), "no-default-alpn"),
    ],
)
def test_nameservers_that_must_not_be_used(nameserver, reason):
    dns_assignment = parse_one(nameserver)
    assert dns_assignment.configurations == (AssignedDns((), ("",)),)  # what it claims stays claimed
    assert reason in dns_assignment.ignored[0]


def test_a_server_without_addresses_can_be_asked_by_name():
    parameters = ServiceParameters.of(alpn=("dot",)).encode()
    (configuration,) = parse_one(
        raw_nameserver(addresses=b"\0\0", name=b"A.example.", parameters=parameters)
    ).configurations
    assert configuration.nameservers[0].name == "a.example"


def test_domains_that_are_none():
    names = b"\3" + domain(b"corp.example") + domain(b"b\xfccher.example") + domain(b"CORP.example.")
    search = b"\3" + domain(b"") + domain(b"lab.example") + domain(b"a" * 256)
    dns_assignment = parse_one(raw_nameserver(), names, search)
    (configuration,) = dns_assignment.configurations
    assert configuration.internal_domains == ("corp.example",)
    assert configuration.search_domains == ("lab.example",)
    assert len(dns_assignment.ignored) == 3
    assert "internal domains is 'b\\xfccher.example'" in dns_assignment.ignored[0]
    assert all(len(reason) < 200 and reason.isprintable() for reason in dns_assignment.ignored)


def test_reasons_are_bounded():
    many = encode_varint(1000) + domain(b"..") * 1000
    assert len(parse_one(raw_nameserver(), many).ignored) == MAX_IGNORED
    reserved_bits = b"\x60" + bytes(8) + b"\1" + bytes(3)
    assert len(parse_pref64(reserved_bits * 1000).ignored) == MAX_IGNORED


def test_prefixes_are_masked_or_left_out():
    host_bits = b"\x40" + bytes.fromhex("20010db80064000001ffffff")
    reserved_bits = b"\x60" + bytes.fromhex("20010db80064000001000000")
    pref64 = parse_pref64(host_bits + reserved_bits + host_bits)
    assert pref64.prefixes == (IPv6Network("2001:db8:64::/64"),)
    assert len(pref64.ignored) == 1


# --- what is not sent ---


@pytest.mark.parametrize(
    "configuration",
    [
        AssignedDns((Nameserver(0, PLAIN.ipv4),)),
        AssignedDns((Nameserver(1 << 16, PLAIN.ipv4),)),
        AssignedDns((Nameserver(1),)),
        AssignedDns((PLAIN,), ("Corp.example",)),
        AssignedDns((PLAIN,), ("bücher.example",)),
        AssignedDns((PLAIN,), (), ("",)),
        AssignedDns((Nameserver(1, PLAIN.ipv4, name="a."),)),
    ],
)
def test_what_clients_must_refuse_is_not_sent(configuration):
    with pytest.raises(LocalProtocolError):
        encode_dns_assign([configuration])


@pytest.mark.parametrize("prefix", ["64:ff9b::/95", "2001:db8:0:0:100::/96"])
def test_prefixes_that_cannot_translate_are_not_sent(prefix):
    with pytest.raises(LocalProtocolError, match="cannot be a NAT64 prefix"):
        encode_pref64([IPv6Network(prefix)])
