from collections import Counter

import pytest

from masque_client.errors import RemoteProtocolError
from masque_client.protocol.capsule import Capsule, CapsuleReader, CapsuleType, encode_capsule
from masque_client.protocol.drops import DropReason
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.varint import encode_varint
from tests.vectors import masque

HELLO = Capsule(CapsuleType.DATAGRAM, bytes.fromhex(masque.HTTP_DATAGRAM_HELLO))
KNOWN: dict[int, int] = {CapsuleType.DATAGRAM: 65527, CapsuleType.ADDRESS_ASSIGN: 64 * 1024}


def read(encoded, **options):
    reader = CapsuleReader(KNOWN, **options)
    capsules = reader.receive_data(bytes.fromhex(encoded))
    reader.receive_end()
    return capsules


@pytest.mark.parametrize(
    ("encoded", "capsules"),
    [
        (masque.DATAGRAM_HELLO, [HELLO]),
        (masque.DATAGRAM_HELLO_LONG_IDS, [HELLO]),
        (masque.DATAGRAM_EMPTY_PAYLOAD, [Capsule(0, b"\0")]),
        (masque.DATAGRAM_CONTEXT_2, []),
        (masque.RESERVED_THEN_HELLO, [HELLO]),
        (masque.DATAGRAM_HELLO * 3, [HELLO] * 3),
        ("", []),
    ],
)
def test_whole_and_byte_by_byte(encoded, capsules):
    assert read(encoded) == capsules
    reader = CapsuleReader(KNOWN)
    data = bytes.fromhex(encoded)
    arrived = [capsule for index in range(len(data)) for capsule in reader.receive_data(data[index : index + 1])]
    reader.receive_end()
    assert arrived == capsules


def test_data_frame_boundaries_mean_nothing():
    reader = CapsuleReader(KNOWN)
    data = bytes.fromhex(masque.DATAGRAM_HELLO)
    assert reader.receive_data(data[:3]) == []
    assert reader.receive_data(data[3:]) == [HELLO]


def test_encode():
    assert HELLO.encode().hex() == masque.DATAGRAM_HELLO
    assert encode_capsule(0x17, bytes.fromhex("010203")).hex() == masque.RESERVED_THEN_HELLO[:10]


@pytest.mark.parametrize("encoded", [masque.DATAGRAM_CUT, "40", "00", "0140", "1703aabb", "000302aa"])
def test_end_inside_a_capsule_is_malformed(encoded):
    reader = CapsuleReader(KNOWN)
    assert reader.receive_data(bytes.fromhex(encoded)) == []
    with pytest.raises(RemoteProtocolError) as caught:
        reader.receive_end()
    assert caught.value.code == H3ErrorCode.H3_MESSAGE_ERROR


def test_unknown_capsule_of_any_length_is_counted_not_kept():
    reader = CapsuleReader(KNOWN)
    length = 3_000_000
    reader.receive_data(encode_varint(0x17) + encode_varint(length))
    for _ in range(length // 1000):
        assert reader.receive_data(bytes(1000)) == []
        assert len(reader._buffer) == 0
    assert reader.receive_data(HELLO.encode()) == [HELLO]
    reader.receive_data(encode_varint(0x17) + encode_varint((1 << 62) - 1) + b"and so on")
    assert len(reader._buffer) == 0


def test_known_capsule_over_its_limit_is_refused_before_its_content_comes():
    reader = CapsuleReader(KNOWN)
    with pytest.raises(RemoteProtocolError) as caught:
        reader.receive_data(b"\x01" + encode_varint(64 * 1024 + 1))
    assert caught.value.code == H3ErrorCode.H3_EXCESSIVE_LOAD
    reader = CapsuleReader(KNOWN)
    assert len(reader.receive_data(encode_capsule(1, bytes(64 * 1024)))) == 1


def test_largest_udp_payload():
    largest = bytes.fromhex(masque.DATAGRAM_LARGEST_UDP) + bytes(65527)
    assert [len(capsule.value) for capsule in CapsuleReader(KNOWN).receive_data(largest)] == [65528]


def test_overlong_udp_payload_aborts_the_stream():
    with pytest.raises(RemoteProtocolError) as caught:
        CapsuleReader(KNOWN).receive_data(bytes.fromhex(masque.DATAGRAM_OVERLONG_UDP))
    assert caught.value.code == H3ErrorCode.H3_DATAGRAM_ERROR
    assert "RFC 9298 §5" in str(caught.value)


def test_overlong_datagram_is_skipped_where_that_is_the_rule():
    drops: Counter[DropReason] = Counter()
    reader = CapsuleReader(KNOWN, drops=drops, skip_long_datagrams=True)
    data = bytes.fromhex(masque.DATAGRAM_OVERLONG_UDP) + bytes(65528) + HELLO.encode()
    assert reader.receive_data(data) == [HELLO]
    assert drops == {DropReason.TOO_BIG: 1}


def test_unknown_context_is_skipped_without_waiting_for_its_content():
    drops: Counter[DropReason] = Counter()
    reader = CapsuleReader(KNOWN, drops=drops)
    reader.receive_data(b"\x00" + encode_varint(1 << 40) + b"\x02" + bytes(5000))
    assert drops == {DropReason.CONTEXT_UNKNOWN: 1}
    assert len(reader._buffer) == 0


def test_context_id_is_awaited_before_a_decision():
    reader = CapsuleReader(KNOWN)
    assert reader.receive_data(b"\x00\x03\x40") == []  # a 2-byte Context ID 0 is coming
    assert reader.receive_data(b"\x00h") == [Capsule(0, b"\x40\x00h")]


@pytest.mark.parametrize("encoded", ["0000", "000140"])
def test_datagram_without_context_is_left_to_the_session(encoded):
    assert [capsule.type for capsule in read(encoded)] == [CapsuleType.DATAGRAM]


def test_several_capsules_one_cut():
    reader = CapsuleReader(KNOWN)
    assert reader.receive_data(HELLO.encode() * 2 + HELLO.encode()[:4]) == [HELLO, HELLO]
    assert reader.receive_data(HELLO.encode()[4:]) == [HELLO]
