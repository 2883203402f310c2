import pytest

from masque_client.errors import LocalProtocolError, RemoteProtocolError
from masque_client.protocol.h3_datagram import MAX_QUARTER_STREAM_ID, encode_quarter_stream_id, parse_h3_datagram
from tests.vectors import masque

HELLO = bytes.fromhex(masque.HTTP_DATAGRAM_HELLO)


@pytest.mark.parametrize(("stream_id", "encoded"), masque.H3_DATAGRAMS)
def test_vectors(stream_id, encoded):
    data = bytes.fromhex(encoded)
    assert encode_quarter_stream_id(stream_id) + HELLO == data
    parsed, offset = parse_h3_datagram(data)
    assert (parsed, data[offset:]) == (stream_id, HELLO)


def test_non_minimal_ids_mean_the_same():
    stream_id, encoded = masque.H3_DATAGRAM_LONG_IDS
    assert parse_h3_datagram(bytes.fromhex(encoded)) == (stream_id, 2)


@pytest.mark.parametrize("encoded", [masque.H3_DATAGRAM_QUARTER_TOO_LARGE, masque.H3_DATAGRAM_QUARTER_CUT, ""])
def test_bad_quarter_id_closes_the_connection(encoded):
    with pytest.raises(RemoteProtocolError) as caught:
        parse_h3_datagram(bytes.fromhex(encoded))
    assert caught.value.code == 0x33
    assert caught.value.connection_error


@pytest.mark.parametrize("stream_id", [1, 2, 3, -4, 4 * (MAX_QUARTER_STREAM_ID + 1)])
def test_only_request_streams_carry_datagrams(stream_id):
    with pytest.raises(LocalProtocolError):
        encode_quarter_stream_id(stream_id)


def test_largest_stream():
    stream_id = 4 * MAX_QUARTER_STREAM_ID
    assert parse_h3_datagram(encode_quarter_stream_id(stream_id)) == (stream_id, 8)
