"""What all sessions share, shown on CONNECT-UDP, which adds least of its own."""

from collections.abc import Mapping
from typing import ClassVar

import pytest

from masque_client.errors import AuthenticationRefused, LocalProtocolError, ProxyRefused, RemoteProtocolError
from masque_client.protocol.capsule import encode_capsule
from masque_client.protocol.drops import DropReason
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.session import (
    MAX_EARLY_DATAGRAMS,
    Encapsulated,
    Role,
    SessionClosed,
    SessionOpened,
    SessionState,
)
from masque_client.protocol.udp_session import ConnectUdpSession
from tests.vectors import masque

OK = [(b":status", b"200"), (b"capsule-protocol", b"?1")]
HELLO = bytes.fromhex(masque.HTTP_DATAGRAM_HELLO)


def requested():
    return ConnectUdpSession(Role.CLIENT)


def opened():
    session = requested()
    session.receive_headers(OK, end_stream=False)
    assert isinstance(session.next_event(), SessionOpened)
    return session


def accepted():
    session = ConnectUdpSession(Role.PROXY)
    session.accept()
    return session


# --- from REQUESTED ---


def test_informational_then_success():
    session = requested()
    assert session.receive_headers([(b":status", b"103")], end_stream=False) == []
    assert session.next_event() is None
    session.receive_headers([*OK, (b"proxy-status", b"p;next-hop=x")], end_stream=False)
    assert session.state is SessionState.OPEN
    event = session.next_event()
    assert isinstance(event, SessionOpened)
    assert event.headers[0] == OK[1]
    assert event.proxy_status is not None
    assert event.proxy_status.text == "p;next-hop=x"


def test_datagrams_that_overtake_the_response_are_delivered_after_it():
    session = requested()
    assert session.receive_datagrams([HELLO, b"\0again"]) == []
    assert session.receive_headers(OK, end_stream=False) == [b"hello", b"again"]
    assert session.receive_datagrams([HELLO]) == [b"hello"]
    assert not session.drops


def test_early_datagrams_are_bounded_in_number():
    session = requested()
    session.receive_datagrams([HELLO] * (MAX_EARLY_DATAGRAMS + 3))
    assert len(session.receive_headers(OK, end_stream=False)) == MAX_EARLY_DATAGRAMS
    assert session.drops == {DropReason.EARLY_OVERFLOW: 3}


def test_early_datagrams_are_bounded_in_bytes():
    session = requested()
    session.receive_datagrams([b"\0" + bytes(65_527), b"\0" + bytes(8), HELLO, b"\0"])
    # 65,528 bytes with the Context ID leave 8: 9 are too many, 6 fit, and then 1 more.
    assert [len(payload) for payload in session.receive_headers(OK, end_stream=False)] == [65_527, 5, 0]
    assert session.drops == {DropReason.EARLY_OVERFLOW: 1}


def test_early_datagrams_are_forgotten_on_refusal():
    session = requested()
    session.receive_datagrams([HELLO])
    with pytest.raises(ProxyRefused):
        session.receive_headers([(b":status", b"404")], end_stream=False)
    assert session.receive_datagrams([HELLO]) == []
    assert session.drops == {DropReason.NOT_OPEN: 1}


def test_refusal_keeps_the_beginning_of_its_body():
    session = requested()
    with pytest.raises(ProxyRefused, match="403"):
        session.receive_headers([(b":status", b"403")], end_stream=False)
    assert session.state is SessionState.CLOSED
    assert session.receive_data(b"not you", end_stream=False) == []
    assert session.refusal_body == b"not you"
    session.receive_data(bytes(10_000), end_stream=True)
    assert len(session.refusal_body) == 4096


@pytest.mark.parametrize("status", [b"401", b"407"])
def test_authentication_refused(status):
    with pytest.raises(AuthenticationRefused):
        requested().receive_headers([(b":status", status)], end_stream=True)


def test_malformed_response_closes():
    session = requested()
    with pytest.raises(RemoteProtocolError):
        session.receive_headers([*OK, (b"content-length", b"0")], end_stream=False)
    assert session.state is SessionState.CLOSED


def test_content_before_the_response_is_a_connection_error():
    with pytest.raises(RemoteProtocolError, match="RFC 9114 §4") as caught:
        requested().receive_data(b"x", end_stream=False)
    assert (caught.value.code, caught.value.connection_error) == (H3ErrorCode.H3_FRAME_UNEXPECTED, True)


def test_end_without_an_answer():
    session = requested()
    session.receive_data(b"", end_stream=False)
    assert session.next_event() is None
    session.receive_data(b"", end_stream=True)
    assert session.next_event() == SessionClosed(None, "the proxy ended the stream without an answer")
    session = requested()
    session.receive_headers([(b":status", b"100")], end_stream=True)
    assert isinstance(session.next_event(), SessionClosed)


def test_stop_sending_before_the_answer_ends_nothing():
    session = requested()
    session.receive_stop_sending(0x100)
    with pytest.raises(ProxyRefused):
        session.receive_headers([(b":status", b"501")], end_stream=True)


def test_reset_before_the_answer():
    session = requested()
    session.receive_reset(H3ErrorCode.H3_REQUEST_REJECTED)
    event = session.next_event()
    assert isinstance(event, SessionClosed)
    assert event.error_code == 0x10B
    assert "H3_REQUEST_REJECTED" in event.reason


# --- from OPEN ---


def test_datagram_capsules_carry_payloads_too():
    data = bytes.fromhex(masque.RESERVED_THEN_HELLO + masque.DATAGRAM_EMPTY_PAYLOAD + masque.DATAGRAM_CONTEXT_2)
    session = opened()
    arrived = [payload for byte in data for payload in session.receive_data(bytes((byte,)), end_stream=False)]
    assert arrived == [b"hello", b""]
    assert session.drops == {DropReason.CONTEXT_UNKNOWN: 1}


def test_end_between_capsules_is_a_clean_close():
    session = opened()
    assert session.receive_data(bytes.fromhex(masque.DATAGRAM_HELLO), end_stream=True) == [b"hello"]
    assert session.next_event() == SessionClosed(None, "the peer closed the tunnel")
    assert session.state is SessionState.CLOSED
    session.receive_reset(0x100)
    assert session.next_event() is None


def test_end_inside_a_capsule_is_malformed():
    session = opened()
    with pytest.raises(RemoteProtocolError) as caught:
        session.receive_data(bytes.fromhex(masque.DATAGRAM_CUT), end_stream=True)
    assert caught.value.code == H3ErrorCode.H3_MESSAGE_ERROR
    assert session.state is SessionState.CLOSED


def test_second_header_section_is_a_connection_error():
    session = opened()
    with pytest.raises(RemoteProtocolError, match="RFC 9114 §4") as caught:
        session.receive_headers([(b"trailer", b"x")], end_stream=True)
    assert (caught.value.code, caught.value.connection_error) == (H3ErrorCode.H3_FRAME_UNEXPECTED, True)


def test_success_that_ends_the_stream_opens_and_closes():
    session = requested()
    session.receive_headers(OK, end_stream=True)
    assert isinstance(session.next_event(), SessionOpened)
    assert isinstance(session.next_event(), SessionClosed)


@pytest.mark.parametrize("input", ["receive_reset", "receive_stop_sending"])
def test_abandoned(input):
    session = opened()
    getattr(session, input)(0x107)
    event = session.next_event()
    assert isinstance(event, SessionClosed)
    assert event.error_code == 0x107
    assert "H3_EXCESSIVE_LOAD" in event.reason
    assert session.receive_datagrams([HELLO]) == []
    assert session.encapsulate([b"x", b"y"]) == Encapsulated([], [])
    assert session.drops == {DropReason.NOT_OPEN: 3}


def test_close_is_silent_and_final():
    session = opened()
    session.close()
    assert session.next_event() is None
    assert session.receive_data(bytes.fromhex(masque.DATAGRAM_HELLO), end_stream=True) == []
    assert session.next_event() is None


def test_a_capsule_type_nobody_handles_is_a_bug_of_ours():
    class Forgetful(ConnectUdpSession):
        known_capsules: ClassVar[Mapping[int, int]] = {0x77: 10}

    session = Forgetful(Role.PROXY)
    session.accept()
    with pytest.raises(LocalProtocolError, match="119"):
        session.receive_data(encode_capsule(0x77, b"x"), end_stream=False)


def test_the_first_end_counts():
    session = opened()
    session.receive_data(b"", end_stream=True)
    session.receive_stop_sending(0x100)
    assert session.next_event() == SessionClosed(None, "the peer closed the tunnel")
    assert session.next_event() is None


# --- proxy ---


def test_proxy_takes_what_overtakes_its_answer():
    session = ConnectUdpSession(Role.PROXY)
    assert session.receive_datagrams([HELLO]) == []
    assert session.receive_data(bytes.fromhex(masque.DATAGRAM_HELLO), end_stream=False) == []
    assert session.accept() == [b"hello", b"hello"]


def test_proxy_accepts_once_and_clients_never():
    with pytest.raises(LocalProtocolError):
        accepted().accept()
    with pytest.raises(LocalProtocolError):
        requested().accept()


def test_trailers_from_a_client_are_a_connection_error():
    with pytest.raises(RemoteProtocolError) as caught:
        accepted().receive_headers([(b"a", b"b")], end_stream=True)
    assert caught.value.connection_error
