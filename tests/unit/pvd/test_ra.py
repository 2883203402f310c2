"""Router advertisements: which are accepted, and what their PvD option says."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque_client.errors import RemoteProtocolError
from masque_client.pvd.ra import (
    Observation,
    PvdOption,
    RouterAdvertisement,
    SequenceNumbers,
    parse_router_advertisement,
)
from tests.vectors.ra import OTHER_PREFIX, R1, R2, R3, RA_HEADER

ROUTER = IPv6Address("fe80::1")
CAFE = IPv6Network("2001:db8:cafe::/64")
F00D = IPv6Network("2001:db8:f00d::/64")


def parse(*options: bytes, source: IPv6Address = ROUTER, hop_limit: int = 255) -> RouterAdvertisement:
    return parse_router_advertisement(RA_HEADER + b"".join(options), source=source, hop_limit=hop_limit)


def option(name: bytes, *, flags: int = 0x8000, sequence: int = 7, rest: bytes = b"") -> bytes:
    """A PvD option around a name in wire format, padded."""
    body = flags.to_bytes(2, "big") + sequence.to_bytes(2, "big") + name
    body += bytes(-(2 + len(body)) % 8) + rest
    return bytes([21, (2 + len(body)) // 8]) + body


def test_r1_a_document_with_a_delay() -> None:
    found = parse(R1)
    assert found == RouterAdvertisement(
        ROUTER, 1800, (), (), PvdOption("cafe.example.com", True, False, 5, 7, router_lifetime_s=None)
    )


def test_r2_options_within_the_pvd_belong_to_it() -> None:
    found = parse(OTHER_PREFIX, R2)
    assert found.pvd == PvdOption("example.org", True, False, 1, 123, None)
    assert found.prefixes == (F00D, CAFE)
    assert found.resolvers == (IPv6Address("2001:db8:cafe::53"), IPv6Address("2001:db8:f00d::53"))


def test_r3_a_nested_header_and_no_document() -> None:
    found = parse(R3)
    assert found.pvd == PvdOption("bar.example.org", False, False, 0, 0, router_lifetime_s=1600)
    assert (found.lifetime_s, found.prefixes) == (1800, (CAFE,))


def test_flags() -> None:
    found = parse(option(b"\1a\7example\0", flags=0xDFF3))  # H, L, all reserved bits, Delay 3; not R
    assert found.pvd == PvdOption("a.example", True, True, 3, 7, None)
    silent = parse(option(b"\1a\7example\0", flags=0x0003))
    assert silent.pvd == PvdOption("a.example", False, False, 0, 0, None)  # no document: neither delay nor number


def test_only_the_first_pvd_option_counts() -> None:
    assert (found := parse(R1, R2).pvd) and found.pvd_id == "cafe.example.com"
    nested = parse(option(b"\5outer\7example\0", rest=R1 + OTHER_PREFIX))
    assert nested.pvd and nested.pvd.pvd_id == "outer.example"
    assert nested.prefixes == (F00D,)


def test_an_advertisement_without_the_option() -> None:
    assert parse().pvd is None
    assert parse(OTHER_PREFIX, OTHER_PREFIX).prefixes == (F00D,)


@pytest.mark.parametrize(
    "bad",
    [
        option(b"\x3f" + b"a" * 20),  # the label reaches beyond the option
        option(b"\7example" * 2 + b"\7exampl"),  # no root label before the option's end
        option(b"\xc0\x0c"),  # a compression pointer
        option(b"\1a\xc0\x0c\0"),
        option(b"\x40" + b"a" * 64 + b"\0"),
        option((b"\x3f" + b"a" * 63) * 4 + b"\0"),  # 257 octets
        option(b"\0"),  # the root
        option(b"\3a.b\0"),
        option(b"\1\xff\0"),
        option(b"\003192\003168\1\x30\1\x39\0"),  # reads as an IPv4 address
        option(b"\1a\7example\0", flags=0xA000),  # R without a header
        option(b"\1a\7example\0", rest=b"\3\0" + bytes(6)),  # an inner option of length 0
        option(b"\1a\7example\0", rest=b"\3\4" + bytes(6)),  # an inner option that reaches beyond
    ],
)
def test_a_bad_option_is_ignored_but_not_the_advertisement(bad: bytes) -> None:
    found = parse(bad, OTHER_PREFIX)
    assert (found.pvd, found.prefixes) == (None, (F00D,))


def test_the_longest_name_is_read() -> None:
    longest = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"b" * 61 + b"\0"
    assert len(longest) == 255
    assert (found := parse(option(longest)).pvd) and len(found.pvd_id) == 253


@pytest.mark.parametrize("data", [b"\3\0" + bytes(6), b"\3", b"\3\2" + bytes(6), R1[:-1]])
def test_a_bad_length_drops_the_advertisement(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="bad length"):
        parse(data)


@pytest.mark.parametrize(
    ("message", "source", "hop_limit"),
    [
        (RA_HEADER, ROUTER, 254),
        (RA_HEADER, IPv6Address("2001:db8::1"), 255),
        (RA_HEADER, IPv6Address("::"), 255),
        (RA_HEADER[:-1], ROUTER, 255),
        (b"\x85" + RA_HEADER[1:], ROUTER, 255),
        (b"\x86\x01" + RA_HEADER[2:], ROUTER, 255),
        (b"", ROUTER, 255),
    ],
)
def test_acceptance(message: bytes, source: IPv6Address, hop_limit: int) -> None:
    with pytest.raises(RemoteProtocolError, match=r"RFC 4861 §6\.1\.2"):
        parse_router_advertisement(message, source=source, hop_limit=hop_limit)


def test_withdrawn_resolvers_and_odd_prefixes_are_left_out() -> None:
    withdrawn = bytes.fromhex("19030000 00000000 20010db8 cafe0000 00000000 00000053")
    too_long = bytearray(OTHER_PREFIX)
    too_long[2] = 129
    found = parse(withdrawn, bytes(too_long))
    assert (found.resolvers, found.prefixes) == ((), ())


def test_sequence_numbers_are_compared_for_inequality() -> None:
    numbers = SequenceNumbers()
    observed = [numbers.observe(PvdOption("a.example", True, False, 0, n, None)) for n in (65535, 65535, 0, 65535)]
    assert observed == [Observation.NEW, Observation.UNCHANGED, Observation.CHANGED, Observation.CHANGED]
    assert numbers.observe(PvdOption("b.example", True, False, 0, 0, None)) is Observation.NEW
    assert numbers.observe(PvdOption("c.example", False, False, 0, 9, None)) is Observation.UNCHANGED


@settings(derandomize=True, deadline=None, database=None, max_examples=500)
@given(
    st.binary(max_size=120)
    | st.tuples(st.sampled_from([R1, R2, R3]), st.integers(0, 95), st.integers(0, 255)).map(
        lambda spec: spec[0][: spec[1]] + bytes([spec[2]]) + spec[0][spec[1] + 1 :]
    )
)
def test_any_options_parse_or_are_refused(data: bytes) -> None:
    try:
        found = parse(data)
    except RemoteProtocolError:
        return
    assert found.pvd is None or found.pvd.pvd_id.isascii()
