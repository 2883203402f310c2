"""DNS_ASSIGN and PREF64 in a session: order, replacement, and who listens."""

from ipaddress import IPv4Address, IPv6Network

import pytest

from masque_client.errors import LocalProtocolError, RemoteProtocolError
from masque_client.protocol.dns_capsules import AssignedDns, DnsAssignment, DnsCapsuleTypes, Nameserver, Pref64
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.ip_session import ConnectIpSession, DnsAssigned, Pref64Assigned, RoutesAdvertised
from masque_client.protocol.session import Role, SessionOpened, SessionState
from tests.vectors import dns, masque

CORP = AssignedDns((Nameserver(1, (IPv4Address("192.0.2.53"),)),), ("corp.example",))
NAT64 = IPv6Network("64:ff9b::/96")


def opened(role=Role.CLIENT, **options):
    session = ConnectIpSession(role, **options)
    if role is Role.CLIENT:
        session.receive_headers([(b":status", b"200")], end_stream=False)
        assert isinstance(session.next_event(), SessionOpened)
    else:
        session.accept()
    return session


def receive(session, *encoded):
    for capsule in encoded:
        assert session.receive_data(bytes.fromhex(capsule), end_stream=False) == []
    events = []
    while (event := session.next_event()) is not None:
        events.append(event)
    return events


def test_assigned_after_routes():
    session = opened()
    routes, assigned = receive(session, masque.ROUTES_ALL, dns.SPLIT_TUNNEL)
    assert isinstance(routes, RoutesAdvertised)
    assert isinstance(assigned, DnsAssigned)
    assert assigned.dns == session.dns
    assert session.dns.configurations[0].internal_domains == ("internal.corp.example",)


def test_held_until_there_are_routes():
    session = opened()
    assert receive(session, dns.FULL_TUNNEL, dns.SPLIT_TUNNEL) == []
    assert session.dns == DnsAssignment()
    routes, assigned = receive(session, masque.ROUTES_NONE)  # no routes is an answer too
    assert isinstance(routes, RoutesAdvertised)
    assert assigned.dns.configurations[0].internal_domains == ("internal.corp.example",)
    assert receive(session, masque.ROUTES_ALL) == [RoutesAdvertised(session.routes)]  # told once


def test_the_last_one_counts():
    session = opened()
    receive(session, masque.ROUTES_ALL, dns.TWO_CONFIGURATIONS)
    assert len(session.dns.configurations) == 2
    receive(session, dns.FULL_TUNNEL)
    assert len(session.dns.configurations) == 1
    assert receive(session, dns.NOTHING) == [DnsAssigned(DnsAssignment())]
    assert session.dns == DnsAssignment()


def test_pref64_needs_no_routes_and_is_withdrawn():
    session = opened()
    assert receive(session, dns.WELL_KNOWN_PREFIX) == [Pref64Assigned(Pref64((NAT64,)))]
    receive(session, dns.THREE_PREFIXES)
    assert len(session.pref64.prefixes) == 3
    assert receive(session, dns.WITHDRAWN_PREFIXES) == [Pref64Assigned(Pref64())]
    assert session.pref64 == Pref64()


MALFORMED = dns.MALFORMED_DNS | dns.MALFORMED_PREF64


@pytest.mark.parametrize("encoded", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_capsules_end_the_session(encoded):
    session = opened()
    with pytest.raises(RemoteProtocolError) as caught:
        receive(session, encoded)
    assert caught.value.code == H3ErrorCode.H3_MESSAGE_ERROR
    assert not caught.value.connection_error
    assert session.state is SessionState.CLOSED


def test_a_proxy_skips_what_clients_assign():
    session = opened(Role.PROXY)
    assert receive(session, masque.ROUTES_ALL, dns.FULL_TUNNEL, *MALFORMED.values())[1:] == []
    assert session.dns == DnsAssignment()


def test_from_a_proxy_to_a_client():
    client, proxy = opened(), opened(Role.PROXY)
    proxy.advertise_routes([])
    proxy.assign_dns([CORP])
    proxy.assign_pref64([NAT64])
    client.receive_data(proxy.data_to_send(), end_stream=False)
    assert client.dns == DnsAssignment((CORP,))
    assert client.pref64 == Pref64((NAT64,))


def test_code_points_can_be_others():
    types = DnsCapsuleTypes(dns_assign=0x1F, pref64=0x20)
    client, proxy, draft = opened(dns_types=types), opened(Role.PROXY, dns_types=types), opened()
    proxy.advertise_routes([])
    proxy.assign_dns([CORP])
    proxy.assign_pref64([NAT64])
    data = proxy.data_to_send()
    client.receive_data(data, end_stream=False)
    draft.receive_data(data, end_stream=False)
    assert (client.dns, client.pref64) == (DnsAssignment((CORP,)), Pref64((NAT64,)))
    assert (draft.dns, draft.pref64) == (DnsAssignment(), Pref64())


def test_commands_are_checked():
    client, proxy = opened(), opened(Role.PROXY)
    with pytest.raises(LocalProtocolError, match="a client does not assign"):
        client.assign_dns([CORP])
    with pytest.raises(LocalProtocolError, match="a client does not assign"):
        client.assign_pref64([NAT64])
    with pytest.raises(LocalProtocolError, match="after routes"):
        proxy.assign_dns([CORP])
    proxy.advertise_routes([])
    proxy.data_to_send()
    with pytest.raises(LocalProtocolError, match="no address"):
        proxy.assign_dns([AssignedDns((Nameserver(1),))])
    assert proxy.data_to_send() == b""
