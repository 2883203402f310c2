"""A proxy that gives up in the middle of its answer, at every byte of it: the session ends, the connection stays."""

from __future__ import annotations

import pytest

from masque_client.engine.interface import (
    ConnectionClosed,
    DatagramsReceived,
    DataReceived,
    Event,
    HeadersReceived,
    StreamReset,
)
from masque_client.errors import RemoteProtocolError
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.ip_session import ConnectIpSession
from masque_client.protocol.session import Role, SessionState
from tests.sim.link import Pair
from tests.unit.engine import raw
from tests.unit.engine.conftest import CONNECT_IP, MakePair
from tests.unit.engine.test_http_rules import GOOD_SETTINGS, OK_HEADERS, against_raw_server
from tests.vectors import masque

CAPSULES = bytes.fromhex(masque.ASSIGN_V4_ID_1 + masque.ROUTES_ALL_V4 + masque.PACKET_V4_AS_CAPSULE)
ANSWER = OK_HEADERS + raw.frame(raw.DATA, CAPSULES)


def feed(session: ConnectIpSession, events: list[Event], stream_id: int) -> None:
    """What the owner of a session does with the events of its stream."""
    for event in events:
        match event:
            case HeadersReceived(id, headers, end_stream) if id == stream_id:
                session.receive_headers(headers, end_stream=end_stream)
            case DataReceived(id, data, end_stream) if id == stream_id:
                session.receive_data(data, end_stream=end_stream)
            case DatagramsReceived(id, datagrams, skip) if id == stream_id:
                session.receive_datagrams(datagrams, skip)
            case StreamReset(id, error_code) if id == stream_id:
                session.receive_reset(error_code)


def ask(pair: Pair) -> int:
    stream_id = pair.client.engine.open_request(CONNECT_IP)
    pair.run(for_s=0.03)
    pair.client.events.clear()
    return stream_id


@pytest.mark.parametrize("at_once", [False, True], ids=["after it arrived", "at once"])
def test_reset_at_every_byte(make_pair: MakePair, at_once: bool) -> None:
    pair = against_raw_server(make_pair(), GOOD_SETTINGS)
    pair.run(for_s=0.1)
    for sent in range(len(ANSWER) + 1):
        stream_id = ask(pair)
        raw.quic(pair.server).send_stream_data(stream_id, ANSWER[:sent])
        if not at_once:
            pair.run(for_s=0.03)
        raw.quic(pair.server).reset_stream(stream_id, H3ErrorCode.H3_INTERNAL_ERROR)
        pair.run(for_s=0.03)
        session = ConnectIpSession(Role.CLIENT)
        feed(session, pair.client.events, stream_id)
        assert session.state is SessionState.CLOSED
        assert not pair.client.of_type(ConnectionClosed)
        pair.client.engine.reset_stream(stream_id, H3ErrorCode.H3_REQUEST_CANCELLED)
    stream_id = ask(pair)
    raw.quic(pair.server).send_stream_data(stream_id, ANSWER)
    pair.run(for_s=0.03)
    session = ConnectIpSession(Role.CLIENT)
    feed(session, pair.client.events, stream_id)
    assert session.state is SessionState.OPEN and session.assigned and session.routes


def test_end_at_every_byte_of_the_capsules(make_pair: MakePair) -> None:
    """RFC 9297 §3.3: between capsules that is a clean close, inside one it is malformed."""
    pair = against_raw_server(make_pair(), GOOD_SETTINGS)
    pair.run(for_s=0.1)
    between = {
        0,
        len(masque.ASSIGN_V4_ID_1) // 2,
        len(masque.ASSIGN_V4_ID_1 + masque.ROUTES_ALL_V4) // 2,
        len(CAPSULES),
    }
    for sent in range(len(CAPSULES) + 1):
        stream_id = ask(pair)
        content = OK_HEADERS + raw.frame(raw.DATA, CAPSULES[:sent])
        raw.quic(pair.server).send_stream_data(stream_id, content, True)
        pair.run(for_s=0.03)
        session = ConnectIpSession(Role.CLIENT)
        if sent in between:
            feed(session, pair.client.events, stream_id)
        else:
            with pytest.raises(RemoteProtocolError, match=r"RFC 9297 §3\.3"):
                feed(session, pair.client.events, stream_id)
        assert session.state is SessionState.CLOSED
        pair.client.engine.reset_stream(stream_id, H3ErrorCode.H3_MESSAGE_ERROR)
    assert not pair.client.of_type(ConnectionClosed)
