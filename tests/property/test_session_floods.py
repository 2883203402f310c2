"""Each bound of a session, pushed at: megabytes from a peer leave no more behind than the bound says."""

from __future__ import annotations

import ipaddress

import pytest

from masque_client.errors import MasqueError, RemoteProtocolError
from masque_client.protocol.dns_capsules import DRAFT_TYPES, MAX_CAPSULE_BYTES
from masque_client.protocol.ip_capsules import RequestedAddress, encode_address_request
from masque_client.protocol.ip_filter import MAX_FLOWS
from masque_client.protocol.ip_session import ConnectIpSession
from masque_client.protocol.session import MAX_EARLY_BYTES, MAX_EARLY_DATAGRAMS, MAX_REFUSAL_BODY, Role
from masque_client.protocol.udp_session import MAX_PAYLOAD, ConnectUdpSession
from masque_client.protocol.varint import MAX_VARINT, encode_varint
from tests.property.hostile_peers import PREFIXES
from tests.property.watched import KINDS, LONGEST_CAPSULE, Watched, buffered_bytes, entries
from tests.unit.protocol.packets import build
from tests.vectors import dns, masque

CHUNK = bytes(64 * 1024)


def flooded(session, head: bytes, *, chunks: int = 40) -> int:
    """The most that was ever buffered while `head` and then megabytes came in."""
    session.receive_data(head, end_stream=False)
    most = 0
    for _ in range(chunks):
        session.receive_data(CHUNK, end_stream=False)
        most = max(most, buffered_bytes(session))
    return most


@pytest.mark.parametrize(("kind", "role"), KINDS)
def test_unknown_capsules_are_not_kept(kind, role):
    watched = Watched(kind, role).open()
    assert flooded(watched.session, b"\x17" + encode_varint(MAX_VARINT)) < 100


@pytest.mark.parametrize(("kind", "role"), KINDS)
@pytest.mark.parametrize("context", [b"\2", b"\xff" * 8])
def test_datagram_capsules_of_other_contexts_are_not_kept(kind, role, context):
    watched = Watched(kind, role).open()
    assert flooded(watched.session, b"\0" + encode_varint(MAX_VARINT) + context) < 100


def test_long_datagram_capsules_are_skipped_or_refused():
    ip = Watched(ConnectIpSession, Role.CLIENT).open()
    assert flooded(ip.session, b"\0" + encode_varint(MAX_VARINT) + b"\0") < 100
    with pytest.raises(RemoteProtocolError):
        flooded(Watched(ConnectUdpSession, Role.CLIENT).open().session, b"\0" + encode_varint(MAX_VARINT) + b"\0")
    with pytest.raises(RemoteProtocolError):
        Watched(ConnectUdpSession, Role.CLIENT).open().session.receive_datagrams([b"\0" + bytes(MAX_PAYLOAD + 1)])


@pytest.mark.parametrize(
    ("type", "longest"),
    [
        (1, 64 * 1024), (2, 64 * 1024), (3, LONGEST_CAPSULE),
        (DRAFT_TYPES.dns_assign, MAX_CAPSULE_BYTES), (DRAFT_TYPES.pref64, MAX_CAPSULE_BYTES),
    ],
)  # fmt: skip
def test_known_capsules_are_refused_before_they_are_kept(type, longest):
    session = Watched(ConnectIpSession, Role.CLIENT).open().session
    session.receive_data(encode_varint(type) + encode_varint(longest) + bytes(longest - 1), end_stream=False)
    assert buffered_bytes(session) <= longest + 100
    session = Watched(ConnectIpSession, Role.CLIENT).open().session
    with pytest.raises(RemoteProtocolError):
        session.receive_data(encode_varint(type) + encode_varint(longest + 1), end_stream=False)


@pytest.mark.parametrize(("kind", "role"), KINDS)
def test_early_datagrams_and_refusals_are_bounded(kind, role):
    session = kind(role)
    for size in (0, 1, 1000, 30_000):
        for _ in range(200):
            session.receive_datagrams([b"\0" + bytes(size)] * 5)
    assert buffered_bytes(session) <= MAX_EARLY_BYTES + 100
    assert entries(session) <= MAX_EARLY_DATAGRAMS + 200
    if role is Role.CLIENT:
        with pytest.raises(MasqueError):
            session.receive_headers([(b":status", b"403")], end_stream=False)
        assert flooded(session, b"<html>") <= MAX_REFUSAL_BODY + 100


def test_remembered_flows_are_bounded():
    session = Watched(ConnectIpSession, Role.CLIENT).open().session
    session.receive_data(bytes.fromhex(masque.ASSIGN_ANY_V4_SOURCE + masque.ROUTES_ALL), end_stream=False)
    before = entries(session)
    for first in range(0, 3 * MAX_FLOWS, 4096):
        sources = [str(ipaddress.IPv4Address("10.0.0.0") + first + index) for index in range(4096)]
        batch = [build(source, "192.0.2.11") for source in sources]
        assert len(session.receive_datagrams([b"\0" + packet for packet in batch])) == 4096
        assert len(session.encapsulate(batch).send) == 4096
        assert entries(session) - before <= 2 * MAX_FLOWS * 3  # per flow: itself and the pair that names it


def test_what_is_told_is_replaced_not_collected():
    """The same and other lists for ever: no more is kept than of the longest ones."""
    session = Watched(ConnectIpSession, Role.CLIENT).open().session
    lists = [masque.ASSIGN_V4_AND_REFUSED_V6, masque.ASSIGN_NOTHING, masque.ROUTES_ALL, masque.ROUTES_SPLIT]
    lists += [dns.FULL_TUNNEL, dns.SPLIT_TUNNEL, dns.TWO_CONFIGURATIONS, dns.THREE_PREFIXES, dns.WELL_KNOWN_PREFIX]
    sizes = []
    for _ in range(50):
        session.receive_data(b"".join(map(bytes.fromhex, lists)), end_stream=False)
        while session.next_event() is not None:
            pass
        sizes.append((buffered_bytes(session), entries(session)))
    assert set(sizes[1:]) == {sizes[1]}


def test_request_ids_end_the_session_before_they_fill_the_memory():
    session = Watched(ConnectIpSession, Role.PROXY).open().session
    with pytest.raises(RemoteProtocolError):
        for first in range(1, 70_000, 2000):
            ids = range(first, first + 2000)
            capsule = encode_address_request(RequestedAddress(id, PREFIXES[0]) for id in ids)
            session.receive_data(capsule, end_stream=False)
            while session.next_event() is not None:
                pass
