"""Varints, the Quarter Stream ID of QUIC DATAGRAMs, and QUIC long headers as a listener sees them."""

from __future__ import annotations

from masque_client.errors import RemoteProtocolError
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.h3_datagram import encode_quarter_stream_id, parse_h3_datagram
from masque_client.protocol.quic_invariants import encode_version_negotiation, parse_long_header, short_header_cid
from masque_client.protocol.varint import encode_varint, parse_varint
from tests.fuzz.harness import FuzzOne


def make() -> FuzzOne:
    """Input: a UDP payload, and the content of a DATAGRAM frame."""
    return fuzz_one


def fuzz_one(data: bytes) -> None:
    if (parsed := parse_varint(data)) is not None:
        assert parse_varint(encode_varint(parsed[0])) == (parsed[0], len(encode_varint(parsed[0])))
        assert len(encode_varint(parsed[0])) <= parsed[1]
    try:
        stream_id, offset = parse_h3_datagram(data)
        assert parse_h3_datagram(encode_quarter_stream_id(stream_id) + data[offset:])[0] == stream_id
    except RemoteProtocolError as error:
        assert error.code == H3ErrorCode.H3_DATAGRAM_ERROR and error.connection_error
    if (header := parse_long_header(data)) is not None:
        assert len(header.destination_cid) + len(header.source_cid) + 7 <= len(data)
        answer = parse_long_header(encode_version_negotiation(header.destination_cid, header.source_cid, [1]))
        assert answer is not None and answer.destination_cid == header.source_cid
    assert len(short_header_cid(data)) <= 8
