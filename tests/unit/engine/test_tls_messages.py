"""TLS messages that cannot be read, in packets with the right keys: anyone on the path can send the first of them."""

from __future__ import annotations

import pytest

from masque_client.engine.interface import ConnectionClosed, EngineName, ReceivedBuffer
from masque_client.errors import TlsError
from tests.fuzz.quic_peer import INITIAL, crypto_frame, make_pair, seal
from tests.sim.link import CLIENT_ADDRESS, SERVER_ADDRESS
from tests.unit.engine import raw

DECODE_ERROR = 0x100 + 50
"""CRYPTO_ERROR with the alert decode_error (RFC 9001 §4.8, RFC 8446 §6.2)."""
SERVER_HELLO = 2


def message(body: bytes) -> bytes:
    return bytes((SERVER_HELLO,)) + len(body).to_bytes(3) + body


@pytest.mark.parametrize(
    "hello",
    [
        pytest.param(message(b""), id="empty"),
        pytest.param(message(b"\x03\x03" + bytes(8)), id="cut inside the random"),
        pytest.param(message(b"\x03\x03" + bytes(32) + b"\0\x13\x01\0" + b"\0\x08\0\x2b\0\x20"), id="cut extension"),
    ],
)
def test_a_cut_server_hello_ends_the_handshake(client_engine: EngineName, hello: bytes) -> None:
    pair = make_pair(client_engine)
    pair.client.engine.connect(SERVER_ADDRESS, pair.now)
    flight = [data for data, _ in pair.client.engine.datagrams_to_send(pair.now)]
    pair._accept(flight[0])
    pair.server.engine.receive_datagrams([ReceivedBuffer(data, len(data), CLIENT_ADDRESS) for data in flight], pair.now)
    packet = seal(raw.quic(pair.server), INITIAL, crypto_frame(0, hello))
    assert packet is not None
    pair.inject(pair.client, packet)
    pair.turn()
    (closed,) = pair.client.of_type(ConnectionClosed)
    assert closed.error_code == DECODE_ERROR
    assert isinstance(closed.error, TlsError)
    pair.run(for_s=0.2)
    assert pair.server.of_type(ConnectionClosed)[0].error_code == DECODE_ERROR
