"""Packets may be sent before the response (RFC 9298 §5, RFC 9484 §7.1); this client sends none."""

from __future__ import annotations

import pytest

from masque_client.protocol.drops import DropReason
from masque_client.protocol.ip_session import ConnectIpSession
from masque_client.protocol.session import Role
from masque_client.protocol.udp_session import ConnectUdpSession
from tests.vectors import masque

PACKET = bytes.fromhex(masque.PACKET_V4_TTL_64)


@pytest.mark.parametrize("kind", [ConnectUdpSession, ConnectIpSession])
def test_nothing_is_sent_before_a_2xx(kind: type[ConnectUdpSession | ConnectIpSession]) -> None:
    session = kind(Role.CLIENT)
    assert session.encapsulate([PACKET, PACKET]) == ([], [])
    session.receive_headers([(b":status", b"103")], end_stream=False)
    assert session.encapsulate([PACKET]) == ([], [])
    assert session.drops == {DropReason.NOT_OPEN: 3}
    assert session.data_to_send() == b""
