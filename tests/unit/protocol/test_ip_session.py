import ipaddress

import pytest

from masque_client.errors import LocalProtocolError, RemoteProtocolError
from masque_client.protocol import ip_session
from masque_client.protocol.capsule import CapsuleType, encode_capsule
from masque_client.protocol.drops import DropReason
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.ip_capsules import (
    ANY_IPV4,
    ANY_IPV6,
    AssignedAddress,
    IpAddressRange,
    RequestedAddress,
    encode_address_assign,
    encode_address_request,
)
from masque_client.protocol.ip_ranges import AddressSet
from masque_client.protocol.ip_session import (
    AddressesAssigned,
    AddressesRequested,
    ConnectIpSession,
    RoutesAdvertised,
)
from masque_client.protocol.session import Encapsulated, Role, SessionClosed, SessionOpened, SessionState
from tests.unit.protocol.packets import build
from tests.vectors import masque

net = ipaddress.ip_network
ALL_V4 = IpAddressRange.from_prefix(net("0.0.0.0/0"))
CLIENT_V4 = AssignedAddress(1, net("192.0.2.11/32"))
PACKET = bytes.fromhex(masque.PACKET_V4_TTL_64)
ANSWER = build("198.51.100.2", "192.0.2.11")


def opened(role=Role.CLIENT, **options):
    session = ConnectIpSession(role, **options)
    if role is Role.CLIENT:
        session.receive_headers([(b":status", b"200")], end_stream=False)
        assert isinstance(session.next_event(), SessionOpened)
    else:
        session.accept()
    return session


def receive(session, encoded):
    assert session.receive_data(bytes.fromhex(encoded), end_stream=False) == []


def pair():
    """A client and a proxy, and a function that carries capsules both ways until there are none."""
    client, proxy = opened(), opened(Role.PROXY)

    def exchange():
        while (up := client.data_to_send()) + (down := proxy.data_to_send()):
            proxy.receive_data(up, end_stream=False)
            client.receive_data(down, end_stream=False)

    return client, proxy, exchange


# --- the expected exchange of RFC 9484 §8.1 ---


def test_remote_access():
    client, proxy, exchange = pair()
    client.request_addresses([RequestedAddress(1, ANY_IPV4), RequestedAddress(2, ANY_IPV6)])
    exchange()
    event = proxy.next_event()
    assert event == AddressesRequested((RequestedAddress(1, ANY_IPV4), RequestedAddress(2, ANY_IPV6)))
    proxy.assign_addresses([CLIENT_V4, event.requests[1].reject()])
    proxy.advertise_routes([ALL_V4])
    exchange()
    assert client.next_event() == AddressesAssigned((CLIENT_V4, AssignedAddress(2, ANY_IPV6)))
    assert client.next_event() == RoutesAdvertised((ALL_V4,))
    assert (client.assigned, client.routes) == ((CLIENT_V4,), (ALL_V4,))
    assert (proxy.granted, proxy.advertised) == ((CLIENT_V4,), (ALL_V4,))

    assert client.encapsulate([PACKET]) == Encapsulated([PACKET], [])
    assert proxy.receive_datagrams([b"\0" + PACKET]) == [PACKET]
    assert proxy.encapsulate([ANSWER]).send == [ANSWER]
    assert client.receive_datagrams([b"\0" + ANSWER]) == [ANSWER]

    proxy.assign_addresses([])
    exchange()
    assert client.next_event() == AddressesAssigned(())
    assert client.encapsulate([PACKET]).send == []
    assert proxy.receive_datagrams([b"\0" + PACKET]) == []
    assert client.drops == proxy.drops == {DropReason.SOURCE_NOT_ALLOWED: 1}


def test_packet_in_a_datagram_capsule():
    session = opened()
    receive(session, masque.ASSIGN_V4_ID_1)
    capsule = encode_capsule(CapsuleType.DATAGRAM, b"\0" + ANSWER)
    assert session.receive_data(capsule, end_stream=False) == [ANSWER]


def test_packet_vectors_through_a_proxy():
    session = opened(Role.PROXY)
    session.assign_addresses([CLIENT_V4])
    session.advertise_routes([ALL_V4])
    packet = bytes.fromhex(masque.PACKET_V4_TTL_63)
    assert session.receive_data(bytes.fromhex(masque.PACKET_V4_AS_CAPSULE), end_stream=False) == [packet]
    datagram = bytes.fromhex(masque.PACKET_V4_AS_H3_DATAGRAM_STREAM_44)
    assert session.receive_datagrams([datagram[1:]]) == [packet]


def test_ttl_is_not_touched():
    session = opened()
    receive(session, masque.ASSIGN_V4_ID_1 + masque.ROUTES_ALL_V4)
    assert session.encapsulate([PACKET]).send[0] is PACKET


def test_bad_packets_never_close():
    session = opened()
    receive(session, masque.ASSIGN_V4_ID_1)
    assert session.receive_datagrams([b"\0", b"\0junk", b"", b"\x40", b"\x05x", b"\x40\0" + ANSWER]) == [ANSWER]
    assert session.state is SessionState.OPEN
    assert session.drops == {
        DropReason.MALFORMED_PACKET: 2,
        DropReason.CONTEXT_CUT: 2,
        DropReason.CONTEXT_UNKNOWN: 1,
    }


def test_overlong_datagram_capsule_is_skipped():
    session = opened()
    receive(session, masque.ASSIGN_V4_ID_1)
    data = encode_capsule(CapsuleType.DATAGRAM, bytes(1 + 65_576)) + encode_capsule(0, b"\0" + ANSWER)
    assert session.receive_data(data, end_stream=False) == [ANSWER]
    assert session.drops == {DropReason.TOO_BIG: 1}


def test_max_packet_answers_with_too_big():
    session = opened()
    receive(session, masque.ASSIGN_V4_ID_1 + masque.ROUTES_ALL_V4)
    session.max_packet = 1300
    large = build("192.0.2.11", "198.51.100.2", bytes(1400), dont_fragment=True)
    result = session.encapsulate([large, PACKET], 5.0)
    assert result.send == [PACKET]
    assert result.replies[0][26:28] == (1300).to_bytes(2)


# --- capsules received ---


def test_every_list_replaces_the_last():
    session = opened()
    receive(session, masque.ASSIGN_V4_AND_REFUSED_V6 + masque.ROUTES_ALL)
    assert session.assigned == (CLIENT_V4,)
    assert len(session.routes) == 2
    receive(session, masque.ASSIGN_V6_UNPROMPTED + masque.ROUTES_NONE)
    assert [str(entry.prefix) for entry in session.assigned] == ["2001:db8:1234::a/128"]
    assert session.routes == ()


@pytest.mark.parametrize("encoded", masque.INVALID_IP_CAPSULES.values(), ids=masque.INVALID_IP_CAPSULES.keys())
def test_invalid_capsules_end_the_session(encoded):
    session = opened()
    with pytest.raises(RemoteProtocolError) as caught:
        session.receive_data(bytes.fromhex(encoded), end_stream=False)
    assert caught.value.code == H3ErrorCode.H3_MESSAGE_ERROR
    assert session.state is SessionState.CLOSED
    assert session.encapsulate([PACKET]).send == []


def test_request_ids_are_not_reused_on_a_stream():
    session = opened()
    receive(session, masque.REQUEST_ANY_V4)
    with pytest.raises(RemoteProtocolError, match="used twice"):
        receive(session, masque.REQUEST_ANY_V4)


def test_endless_requests_are_excessive():
    session = opened()
    with pytest.raises(RemoteProtocolError) as caught:
        for first in range(1, 70_000, 6000):
            ids = range(first, first + 6000)
            session.receive_data(
                encode_address_request(RequestedAddress(index, ANY_IPV4) for index in ids), end_stream=False
            )
    assert caught.value.code == H3ErrorCode.H3_EXCESSIVE_LOAD


def test_control_capsules_are_bounded():
    session = opened()
    with pytest.raises(RemoteProtocolError) as caught:
        session.receive_data(bytes.fromhex("0180010001"), end_stream=False)  # ADDRESS_ASSIGN, 65,537 bytes announced
    assert caught.value.code == H3ErrorCode.H3_EXCESSIVE_LOAD


def test_close_by_the_proxy():
    session = opened()
    session.receive_data(bytes.fromhex(masque.ASSIGN_NOTHING), end_stream=True)
    assert isinstance(session.next_event(), AddressesAssigned)
    assert isinstance(session.next_event(), SessionClosed)


# --- commands ---


def test_request_ids_of_ours():
    session = opened()
    assert session.next_request_id == 1
    session.request_addresses([RequestedAddress(1, ANY_IPV4)])
    assert session.data_to_send().hex() == masque.REQUEST_ANY_V4
    assert session.data_to_send() == b""
    assert session.next_request_id == 2
    for bad in (
        [],
        [RequestedAddress(1, ANY_IPV4)],
        [RequestedAddress(0, ANY_IPV4)],
        [RequestedAddress(5, ANY_IPV4)] * 2,
    ):
        with pytest.raises(LocalProtocolError):
            session.request_addresses(bad)
    assert session.data_to_send() == b""


def test_reject_repeats_what_is_granted_but_not_old_rejections():
    session = opened(Role.PROXY)
    session.assign_addresses([CLIENT_V4])
    session.reject_addresses([RequestedAddress(2, ANY_IPV6)])
    session.reject_addresses([RequestedAddress(3, ANY_IPV4)])
    assert session.granted == (CLIENT_V4,)
    assert session.data_to_send() == b"".join(
        encode_address_assign([CLIENT_V4, *rejected])
        for rejected in ([], [AssignedAddress(2, ANY_IPV6)], [AssignedAddress(3, ANY_IPV4)])
    )


def test_routes_are_checked_before_they_are_sent():
    session = opened(Role.PROXY)
    with pytest.raises(LocalProtocolError, match="sorts behind"):
        session.advertise_routes([IpAddressRange.from_prefix(net("::/0")), ALL_V4])
    assert session.data_to_send() == b""
    session.advertise_routes([ALL_V4])
    assert session.data_to_send().hex() == masque.ROUTES_ALL_V4


def test_no_capsules_before_the_tunnel_is_open():
    session = ConnectIpSession(Role.CLIENT)
    with pytest.raises(LocalProtocolError, match="requested"):
        session.request_addresses([RequestedAddress(1, ANY_IPV4)])
    assert session.next_request_id == 1
    with pytest.raises(LocalProtocolError):
        ConnectIpSession(Role.PROXY).assign_addresses([])


def test_site_to_site_client_is_a_network():
    client, proxy, exchange = pair()
    proxy.assign_addresses([CLIENT_V4])
    proxy.advertise_routes([ALL_V4])
    client.advertise_routes([IpAddressRange.from_prefix(net("10.1.0.0/16"))])
    exchange()
    from_site, to_site = build("10.1.2.3", "198.51.100.2"), build("198.51.100.2", "10.1.2.3")
    assert client.encapsulate([from_site]).send == [from_site]
    assert proxy.receive_datagrams([b"\0" + from_site]) == [from_site]
    assert proxy.encapsulate([to_site]).send == [to_site]
    assert client.receive_datagrams([b"\0" + to_site]) == [to_site]


def test_proxy_may_leave_destinations_to_its_routing():
    for enforce_routes, delivered in ((True, []), (False, [PACKET])):
        session = opened(Role.PROXY, enforce_routes=enforce_routes)
        session.assign_addresses([CLIENT_V4])
        assert session.receive_datagrams([b"\0" + PACKET]) == delivered


def test_a_cheap_capsule_does_not_cost_the_work_of_an_expensive_one(monkeypatch):
    """Two bytes withdraw the addresses; they must not rebuild tens of thousands of routes each time."""
    built = []

    class Counted(AddressSet):
        def __init__(self, prefixes=(), routes=()):
            prefixes, routes = list(prefixes), list(routes)
            built.append(len(prefixes) + len(routes))
            super().__init__(prefixes, routes)

    session = opened()
    receive(session, masque.ASSIGN_V4_AND_REFUSED_V6 + masque.ROUTES_SPLIT)
    monkeypatch.setattr(ip_session, "AddressSet", Counted)
    receive(session, masque.ASSIGN_NOTHING * 3 + masque.ASSIGN_V4_ID_1)
    assert built == [0, 0, 0, 1]
    assert session.receive_datagrams([b"\0" + ANSWER]) == [ANSWER]
