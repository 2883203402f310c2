"""Connection errors that a client owes its proxy, read at the proxy's end."""

from __future__ import annotations

import pytest
from aioquic.quic.connection import QuicConnection

from masque_client.engine.interface import ConnectionClosed, EngineName
from masque_client.errors import RemoteProtocolError
from masque_client.protocol.error_codes import H3ErrorCode
from tests.fuzz.quic_peer import ONE_RTT, seal
from tests.fuzz.quic_peer import make_pair as make_pair_with_aioquic
from tests.sim.link import Pair
from tests.unit.engine import raw
from tests.unit.engine.conftest import MakePair, open_tunnel, settle
from tests.unit.engine.test_http_rules import GOOD_SETTINGS, against_raw_server, close_code

TRANSPORT_PARAMETER_ERROR, PROTOCOL_VIOLATION = 0x08, 0x0A
QPACK_ENCODER_STREAM_ERROR, QPACK_DECODER_STREAM_ERROR = 0x201, 0x202


def transport_code(pair: Pair) -> int:
    """With which transport error did the client close, as the proxy heard it?"""
    pair.run(for_s=0.3)
    (closed,) = pair.server.of_type(ConnectionClosed)
    assert not closed.is_application
    assert isinstance(pair.client.of_type(ConnectionClosed)[0].error, RemoteProtocolError)
    return closed.error_code


@pytest.mark.parametrize(
    "datagram",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x40", id="cut"),
        pytest.param(bytes.fromhex("d00000000000000000"), id="over 2^60-1"),
    ],
)
def test_bad_quarter_stream_ids_from_the_proxy(make_pair: MakePair, datagram: bytes) -> None:
    """RFC 9297 §2.1."""
    pair = settle(make_pair())
    open_tunnel(pair)
    raw.quic(pair.server).send_datagram_frame(datagram)
    assert close_code(pair) == H3ErrorCode.H3_DATAGRAM_ERROR


def test_a_datagram_that_was_never_allowed(client_engine: EngineName) -> None:
    """RFC 9221 §3: we advertised no max_datagram_frame_size."""
    pair = settle(make_pair_with_aioquic(client_engine, h3_datagram=False))
    packet = seal(raw.quic(pair.server), ONE_RTT, b"\x31\x0b\0\0uninvited")
    assert packet is not None
    pair.inject(pair.client, packet)
    assert transport_code(pair) == PROTOCOL_VIOLATION


@pytest.mark.parametrize(
    ("stream", "garbage", "code"),
    [
        pytest.param(raw.QPACK_ENCODER, b"\x80\x00", QPACK_ENCODER_STREAM_ERROR, id="encoder stream"),
        pytest.param(raw.QPACK_ENCODER, b"\x3f\xe1\x1f", QPACK_ENCODER_STREAM_ERROR, id="a dynamic table"),
        pytest.param(raw.QPACK_DECODER, b"\x80", QPACK_DECODER_STREAM_ERROR, id="decoder stream"),
    ],
)
def test_qpack_streams_that_make_no_sense(make_pair: MakePair, stream: bytes, garbage: bytes, code: int) -> None:
    """RFC 9204 §6. Without a dynamic table there is nothing to reference or acknowledge."""
    pair = against_raw_server(make_pair(), GOOD_SETTINGS)
    raw.open_uni(pair.server, stream + garbage)
    assert close_code(pair) == code


@pytest.mark.parametrize(
    "information",
    [
        pytest.param(b"", id="empty"),
        pytest.param(bytes.fromhex("000000016b33"), id="cut"),
        pytest.param(bytes.fromhex("00000000"), id="version 0 chosen"),
        pytest.param(bytes.fromhex("0000000100000000"), id="version 0 available"),
    ],
)
def test_version_information_that_makes_no_sense(
    client_engine: EngineName, monkeypatch: pytest.MonkeyPatch, information: bytes
) -> None:
    """RFC 9368 §3."""
    serialize = QuicConnection._serialize_transport_parameters

    def misinform(connection: QuicConnection) -> bytes:
        parameters = serialize(connection)
        if connection.configuration.is_client:
            return parameters
        at = parameters.index(bytes.fromhex("1110 00000001 00000001 6b3343cf"))
        return parameters[:at] + bytes([0x11, len(information)]) + information + parameters[at + 18 :]

    monkeypatch.setattr(QuicConnection, "_serialize_transport_parameters", misinform)
    pair = make_pair_with_aioquic(client_engine)
    pair.connect()
    assert transport_code(pair) == TRANSPORT_PARAMETER_ERROR
