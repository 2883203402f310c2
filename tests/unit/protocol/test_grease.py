"""What means nothing: always of the reserved kind, always skipped by our own readers."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from masque_client.protocol.capsule import CapsuleReader, CapsuleType, encode_capsule
from masque_client.protocol.drops import DropReason
from masque_client.protocol.grease import (
    reserved_capsule,
    reserved_http2_setting,
    reserved_http3_id,
    reserved_transport_parameter,
    reserved_version,
    unused_context,
)
from masque_client.protocol.session import Role
from masque_client.protocol.udp_session import ConnectUdpSession
from masque_client.protocol.varint import parse_varint

quick = settings(derandomize=True, deadline=None, max_examples=100, database=None)


def test_vectors() -> None:
    assert reserved_capsule(0, b"hello") == bytes.fromhex("170568656c6c6f")
    assert reserved_capsule(1, b"") == bytes.fromhex("404000")
    assert unused_context(0) == b"\x02"
    assert [reserved_http3_id(number) for number in (0, 1)] == [0x21, 0x40]
    assert reserved_transport_parameter(0, b"x") == bytes.fromhex("1b0178")
    assert reserved_version(0xFEDCBA98) == 0xFADABA9A
    assert reserved_http2_setting(0x12345) == 0x2A4A


@quick
@given(st.integers(0, 1 << 64), st.binary(max_size=40), st.integers(1, 9))
def test_reserved_capsules_are_skipped(number: int, filler: bytes, size: int) -> None:
    capsule = reserved_capsule(number, filler)
    kind = parse_varint(capsule)
    assert kind is not None and kind[0] % 0x29 == 0x17 and kind[0] < 0xFF37A0
    reader = CapsuleReader({CapsuleType.DATAGRAM: 1500})
    data = capsule + encode_capsule(CapsuleType.DATAGRAM, b"\0after")
    read = [each for at in range(0, len(data), size) for each in reader.receive_data(data[at : at + size])]
    assert [each.value for each in read] == [b"\0after"]


@quick
@given(st.integers(0, 1 << 64))
def test_unused_contexts_are_dropped(number: int) -> None:
    context = parse_varint(unused_context(number))
    assert context is not None and context[0] > 0 and context[0] % 2 == 0
    session = ConnectUdpSession(Role.PROXY)
    session.accept()
    assert session.receive_datagrams([unused_context(number) + b"x", b"\0real"]) == [b"real"]
    assert session.drops == Counter({DropReason.CONTEXT_UNKNOWN: 1})
