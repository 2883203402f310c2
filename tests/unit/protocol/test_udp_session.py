import pytest

from masque_client.errors import RemoteProtocolError
from masque_client.protocol.drops import DropReason
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.session import CONTEXT_ID_0, Role, SessionState
from masque_client.protocol.udp_session import MAX_PAYLOAD, ConnectUdpSession
from tests.vectors import masque


def accepted():
    session = ConnectUdpSession(Role.PROXY)
    session.accept()
    return session


def test_batch_in_order_with_drops_counted():
    session = accepted()
    batch = [b"\0one", b"", b"\x02two", b"\x40", b"\x40\0three", CONTEXT_ID_0, b"\x80\0\0\0"]
    assert session.receive_datagrams(batch) == [b"one", b"three", b"", b""]
    assert session.drops == {DropReason.CONTEXT_CUT: 2, DropReason.CONTEXT_UNKNOWN: 1}
    assert session.state is SessionState.OPEN


def test_encapsulate():
    session = accepted()
    assert session.encapsulate([b"one", b"two"]) == ([b"one", b"two"], [])
    assert not session.drops
    result = session.encapsulate([b"", b"one", bytes(MAX_PAYLOAD), bytes(MAX_PAYLOAD + 1)])
    assert [len(payload) for payload in result.send] == [0, 3, MAX_PAYLOAD]
    assert result.replies == []
    assert session.drops == {DropReason.TOO_BIG: 1}


def test_largest_payload_in_a_capsule():
    data = bytes.fromhex(masque.DATAGRAM_LARGEST_UDP) + bytes(MAX_PAYLOAD)
    assert [len(payload) for payload in accepted().receive_data(data, end_stream=False)] == [MAX_PAYLOAD]


@pytest.mark.parametrize("way", ["capsule", "datagram"])
def test_overlong_payload_aborts_the_stream(way):
    session = accepted()
    with pytest.raises(RemoteProtocolError, match="RFC 9298 §5") as caught:
        if way == "capsule":
            session.receive_data(bytes.fromhex(masque.DATAGRAM_OVERLONG_UDP) + bytes(MAX_PAYLOAD + 1), end_stream=False)
        else:
            session.receive_datagrams([bytes(1 + MAX_PAYLOAD + 1)])
    assert caught.value.code == H3ErrorCode.H3_DATAGRAM_ERROR
    assert session.state is SessionState.CLOSED


def test_nothing_of_its_own_to_say():
    session = accepted()
    assert session.data_to_send() == b""
    assert session.next_event() is None
