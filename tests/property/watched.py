"""A session under watch: it does what actions say, and checks after each one what must hold for any session.

Nothing but `MasqueError` comes out; a broken rule closes the session for good; what is buffered fits the stated bounds;
a peer alone never makes us send; and exactly those packets pass that `packet_rules` allows.
"""

from __future__ import annotations

import gc
from collections import deque
from enum import Enum
from types import FunctionType, MethodType, ModuleType

from masque_client.errors import LocalProtocolError, MasqueError
from masque_client.protocol.ip_capsules import AssignedAddress, RequestedAddress
from masque_client.protocol.ip_session import ConnectIpSession
from masque_client.protocol.session import MAX_EARLY_BYTES, MAX_REFUSAL_BODY, Role, SessionClosed, SessionState
from masque_client.protocol.udp_session import MAX_PAYLOAD, ConnectUdpSession
from tests.property.hostile_peers import ANSWERS, PREFIXES
from tests.property.packet_rules import find_inbound_problem, find_outbound_problem

KINDS = [(kind, role) for kind in (ConnectUdpSession, ConnectIpSession) for role in Role]

LONGEST_CAPSULE = 256 * 1024
MAX_BUFFERED = LONGEST_CAPSULE + 16 + MAX_EARLY_BYTES + MAX_REFUSAL_BODY
"""Of any session: a capsule that is not whole yet, datagrams that came too early, the text of a refusal."""


class Watched:
    """Does to a session what actions say, and checks after each what must hold."""

    def __init__(self, kind, role: Role) -> None:
        self.session = kind(role)
        self.is_ip = kind is ConnectIpSession
        self.is_proxy = role is Role.PROXY
        self.events: list[object] = []
        self.errors: list[MasqueError] = []

    def open(self):
        if self.is_proxy:
            self.session.accept()
        else:
            self.session.receive_headers(ANSWERS[0], end_stream=False)
        return self

    def do(self, action) -> None:
        name, *arguments = action
        state_before = self.session.state
        try:
            getattr(self, f"_{name}")(*arguments)
        except LocalProtocolError as error:
            assert name in ("accept", "assign", "advertise", "request"), error  # ours alone, never the peer's doing
        except MasqueError as error:
            self.errors.append(error)
            assert self.session.state is SessionState.CLOSED, "an error leaves the session closed"
            assert str(error).isprintable()
        if state_before is SessionState.CLOSED:
            assert self.session.state is SessionState.CLOSED, "closed is for ever"
        self._drain()
        assert buffered_bytes(self.session) <= MAX_BUFFERED
        if name in ("headers", "data", "datagrams", "reset", "stop"):
            assert self.session.data_to_send() == b"", "a peer alone makes us send nothing"
        self.session.data_to_send()

    def _drain(self) -> None:
        while (event := self.session.next_event()) is not None:
            assert not any(isinstance(earlier, SessionClosed) for earlier in self.events), "nothing follows the end"
            self.events.append(event)

    # the peer

    def _headers(self, headers, end_stream: bool) -> None:
        self._check_delivered(self.session.receive_headers(headers, end_stream=end_stream, now_wall=0.0))

    def _data(self, stream: bytes, cut: str, end_stream: bool) -> None:
        size = {"whole": len(stream) or 1, "octets": 1, "sevens": 7}[cut]
        for start in range(0, len(stream), size):
            self._check_delivered(self.session.receive_data(stream[start : start + size], end_stream=False))
            assert buffered_bytes(self.session) <= MAX_BUFFERED
        if end_stream:
            self._check_delivered(self.session.receive_data(b"", end_stream=True))
            assert self.session.state is SessionState.CLOSED

    def _datagrams(self, payloads: list[bytes]) -> None:
        was_open = self.session.state is SessionState.OPEN
        delivered = self.session.receive_datagrams(payloads)
        assert was_open or not delivered, "nothing passes a session that is not open"
        self._check_delivered(delivered)
        if was_open:
            inner = [payload[n:] for payload in payloads if (n := length_of_context_0(payload))]
            assert self.is_ip or delivered == inner
            lost = set(inner) - set(delivered)
            assert all(self._inbound_problem(packet) for packet in lost), "nothing is dropped without a rule"

    def _reset(self, code: int) -> None:
        self.session.receive_reset(code)
        assert self.session.state is SessionState.CLOSED

    def _stop(self, code: int) -> None:
        self.session.receive_stop_sending(code)

    def _check_delivered(self, delivered: list[bytes]) -> None:
        assert not delivered or self.session.state is not SessionState.REQUESTED
        for packet in set(delivered):
            if self.is_ip:
                assert self._inbound_problem(packet) is None, packet.hex()
            else:
                assert len(packet) <= MAX_PAYLOAD

    def _inbound_problem(self, packet: bytes) -> str | None:
        return find_inbound_problem(self.session, packet, is_proxy=self.is_proxy)

    # ourselves

    def _accept(self) -> None:
        self._check_delivered(self.session.accept())

    def _assign(self, prefixes) -> None:
        if self.is_ip:
            self.session.assign_addresses(AssignedAddress(0, prefix) for prefix in prefixes)

    def _advertise(self, ranges) -> None:
        if self.is_ip:
            self.session.advertise_routes(ranges)

    def _request(self, id: int) -> None:
        if self.is_ip:
            self.session.request_addresses([RequestedAddress(id, PREFIXES[0])])

    def _send(self, batch: list[bytes]) -> None:
        result = self.session.encapsulate(batch, 0.0)
        given, sent = set(batch), set(result.send)
        assert sent <= given, "unchanged or not at all"
        if self.session.state is not SessionState.OPEN:
            assert result == ([], [])
        elif self.is_ip:
            for packet in batch:
                problem = find_outbound_problem(self.session, packet, is_proxy=self.is_proxy)
                assert (packet in sent) is (problem is None), (packet.hex(), problem)

    def _narrow(self, max_packet: int) -> None:
        if self.is_ip:
            self.session.max_packet = max_packet

    def _close(self) -> None:
        self.session.close()


def length_of_context_0(payload: bytes) -> int:
    """How many octets the Context ID takes if it is 0 and whole, else 0."""
    if not payload:
        return 0
    length = 1 << (payload[0] >> 6)
    return length if len(payload) >= length and not any(payload[1:length]) and payload[0] & 0x3F == 0 else 0


def reachable(root: object):
    """Every object that `root` keeps alive, without code and what is shared by all sessions."""
    seen, waiting = set(), deque([root])
    while waiting:
        one = waiting.popleft()
        if id(one) in seen or isinstance(one, (type, Enum, ModuleType, FunctionType, MethodType)):
            continue
        seen.add(id(one))
        yield one
        waiting.extend(gc.get_referents(one))


def buffered_bytes(session) -> int:
    return sum(len(one) for one in reachable(session) if isinstance(one, (bytes, bytearray)))


def entries(session) -> int:
    return sum(len(one) for one in reachable(session) if isinstance(one, (list, dict, set, tuple, deque)))
