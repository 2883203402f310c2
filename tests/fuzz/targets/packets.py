"""IP packets in both directions: parsing, the filter, hop limits, and the ICMP that answers them."""

from __future__ import annotations

from ipaddress import ip_network

from masque_client.protocol import icmp
from masque_client.protocol.ip_capsules import AssignedAddress, encode_address_assign
from masque_client.protocol.ip_packet import checksum, decrement_ttl, parse_ip_header
from masque_client.protocol.ip_session import ConnectIpSession
from masque_client.protocol.session import Role
from tests.fuzz.harness import FuzzOne
from tests.vectors import masque

PROBLEMS = tuple(icmp.Problem)


def make() -> FuzzOne:
    """Input: one byte (problem and how open the tunnel is), two of MTU, the packet."""
    return Packets()


class Packets:
    """Two clients' filters: one is assigned and may reach everything, one next to nothing."""

    def __init__(self) -> None:
        anything = encode_address_assign([AssignedAddress(0, ip_network(text)) for text in ("0.0.0.0/0", "::/0")])
        self._sessions = [
            self._session(anything + bytes.fromhex(masque.ROUTES_ALL)),
            self._session(bytes.fromhex(masque.ASSIGN_V4_ID_1 + masque.ROUTES_UDP_HOSTS)),
        ]

    def _session(self, capsules: bytes) -> ConnectIpSession:
        session = ConnectIpSession(Role.CLIENT)
        session.receive_headers([(b":status", b"200")], end_stream=False)
        session.receive_data(capsules, end_stream=False)
        return session

    def __call__(self, data: bytes) -> None:
        choice, mtu, packet = data[0] if data else 0, int.from_bytes(data[1:3]), data[3:]
        session = self._sessions[choice & 1]
        session.max_packet = mtu
        result = session.encapsulate([packet], now=float(choice))
        assert result.send in ([], [packet])
        delivered = session.receive_datagrams([b"\0" + packet, packet])
        for passed in (*result.send, *delivered, *result.replies):
            header = parse_ip_header(passed)
            assert header is not None and header.total_length == len(passed)
        self._answer(packet, PROBLEMS[(choice >> 1) % len(PROBLEMS)], mtu)

    def _answer(self, packet: bytes, problem: icmp.Problem, mtu: int) -> None:
        error = icmp.compose_error(packet, problem, mtu=mtu)
        if error is not None:
            assert is_sound(error)
            assert all(icmp.compose_error(error, other, mtu=mtu) is None for other in PROBLEMS)
        if (reply := icmp.compose_echo_reply(packet)) is not None:
            assert is_sound(reply)
            assert icmp.parse_echo_reply(reply) is not None
        icmp.parse_echo_reply(packet)
        if parse_ip_header(packet) is not None and (changed := decrement_ttl(packet)) is not None:
            assert len(changed) == len(packet)


def is_sound(packet: bytes) -> bool:
    """An answer of ours is one whole packet, of a size that needs no fragmentation, with a right IPv4 checksum."""
    header = parse_ip_header(packet)
    return (
        header is not None and header.total_length == len(packet) and (header.version == 6 or not checksum(packet[:20]))
    )
