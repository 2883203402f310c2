import pytest

from masque_client.protocol.varint import MAX_VARINT, encode_varint, parse_varint
from tests.vectors import masque


@pytest.mark.parametrize(("value", "encoded"), masque.VARINTS)
def test_vectors(value, encoded):
    data = bytes.fromhex(encoded)
    assert encode_varint(value) == data
    assert parse_varint(data) == (value, len(data))


def test_longer_than_needed_is_valid():
    assert parse_varint(bytes.fromhex(masque.VARINT_37_IN_TWO_BYTES)) == (37, 2)


def test_offset_counts_from_the_start_of_data():
    assert parse_varint(b"\xff\x7b\xbd\xff", 1) == (15293, 3)


@pytest.mark.parametrize("data", [b"", b"\x40", b"\x80\x00\x40", b"\xc0" + bytes(6)])
def test_cut_integer_asks_for_more(data):
    assert parse_varint(data) is None


def test_takes_any_buffer():
    assert parse_varint(bytearray(b"\x40\x25")) == parse_varint(memoryview(b"\x40\x25")) == (37, 2)


@pytest.mark.parametrize("value", [-1, MAX_VARINT + 1])
def test_encoder_never_truncates(value):
    with pytest.raises(ValueError, match=r"negative|62 bits"):
        encode_varint(value)
