import pytest

from masque_client.protocol.quic_invariants import (
    QUIC_VERSION_1,
    QUIC_VERSION_2,
    LongHeader,
    encode_version_negotiation,
    parse_long_header,
    short_header_cid,
    version_number,
)


def long_header(first, version, destination_cid, source_cid):
    return b"".join(
        (
            bytes((first,)),
            version.to_bytes(4),
            len(destination_cid).to_bytes(1),
            destination_cid,
            len(source_cid).to_bytes(1),
            source_cid,
        )
    )


@pytest.mark.parametrize(
    ("first", "version", "is_initial"),
    [
        (0xC0, QUIC_VERSION_1, True),
        (0xD0, QUIC_VERSION_1, False),  # 0-RTT
        (0xE0, QUIC_VERSION_1, False),  # Handshake
        (0xD0, QUIC_VERSION_2, True),
        (0xC0, QUIC_VERSION_2, False),  # Retry
        (0xC0, 0x1A2A3A4A, False),  # unknown version: types mean nothing
        (0x80, 0, False),  # Version Negotiation
    ],
)
def test_long_header(first, version, is_initial):
    packet = long_header(first, version, b"destinat", b"src") + b"payload"
    assert parse_long_header(packet) == LongHeader(version, b"destinat", b"src", is_initial)


def test_empty_connection_ids():
    assert parse_long_header(long_header(0xC0, 1, b"", b"")) == LongHeader(1, b"", b"", True)


def test_cut_anywhere_is_none():
    packet = long_header(0xC0, 1, b"destinat", b"source")
    assert [parse_long_header(packet[:length]) for length in range(len(packet))] == [None] * len(packet)


def test_short_header():
    packet = b"\x4001234567rest"
    assert parse_long_header(packet) is None
    assert short_header_cid(packet) == b"01234567"
    assert short_header_cid(packet, 4) == b"0123"
    assert short_header_cid(packet[:3]) == b"01"


def test_version_negotiation_parses_as_one():
    packet = encode_version_negotiation(b"ours", b"theirs--", [QUIC_VERSION_1, QUIC_VERSION_2])
    assert parse_long_header(packet) == LongHeader(0, b"theirs--", b"ours", False)
    assert packet.endswith(bytes.fromhex("000000016b3343cf"))


def test_versions_as_people_count_them():
    assert [version_number(version) for version in (QUIC_VERSION_1, QUIC_VERSION_2, 0, 0x1A2A3A4A)] == [
        1,
        2,
        None,
        None,
    ]
