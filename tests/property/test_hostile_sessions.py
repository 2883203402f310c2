"""Whatever a peer sends, in whatever order and cut wherever: a session stays quiet, bounded and strict.

After every step of every sequence: nothing but `MasqueError` comes out; a broken rule closes the session for good;
what is buffered fits the stated bounds; a peer alone never makes us send; and no packet passes that `packet_rules`,
a second writing of the rules, forbids.
"""

from __future__ import annotations

import gc
import ipaddress
from collections import deque
from enum import Enum
from types import FunctionType, MethodType, ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque_client.errors import LocalProtocolError, MasqueError, RemoteProtocolError
from masque_client.protocol.capsule import encode_capsule
from masque_client.protocol.dns_capsules import DRAFT_TYPES, MAX_CAPSULE_BYTES
from masque_client.protocol.ip_capsules import (
    AssignedAddress,
    IpAddressRange,
    RequestedAddress,
    encode_address_assign,
    encode_address_request,
    encode_route_advertisement,
)
from masque_client.protocol.ip_filter import MAX_FLOWS
from masque_client.protocol.ip_session import ConnectIpSession
from masque_client.protocol.session import (
    MAX_EARLY_BYTES,
    MAX_EARLY_DATAGRAMS,
    MAX_REFUSAL_BODY,
    Role,
    SessionClosed,
    SessionState,
)
from masque_client.protocol.udp_session import MAX_PAYLOAD, ConnectUdpSession
from masque_client.protocol.varint import MAX_VARINT, encode_varint
from tests.property.packet_rules import find_inbound_problem, find_outbound_problem
from tests.unit.protocol.packets import build, extension, fragment
from tests.vectors import dns, masque

hostile = settings(derandomize=True, deadline=None, max_examples=200, database=None)

LONGEST_CAPSULE = 256 * 1024
MAX_BUFFERED = LONGEST_CAPSULE + 16 + MAX_EARLY_BYTES + MAX_REFUSAL_BODY
"""Of any session: a capsule that is not whole yet, datagrams that came too early, the text of a refusal."""

KINDS = [(kind, role) for kind in (ConnectUdpSession, ConnectIpSession) for role in Role]


# --- what a peer may send ---

PREFIXES = [ipaddress.ip_network(text) for text in ("192.0.2.11/32", "10.1.0.0/16", "2001:db8:1::a/128", "fd00::/64")]
RANGES = sorted(
    (
        IpAddressRange.from_prefix(ipaddress.ip_network(text), protocol)
        for text, protocol in [
            ("198.51.100.0/24", 0), ("203.0.113.0/24", 17), ("10.1.2.0/24", 6), ("169.254.0.0/16", 0),
            ("2001:db8:2::/48", 0), ("2001:db8:3::/48", 17), ("ff00::/8", 58), ("224.0.0.0/4", 17),
        ]
    ),
    key=lambda route: route.sort_key,
)  # fmt: skip
ADDRESSES = {
    4: ["192.0.2.11", "192.0.2.12", "10.1.2.3", "198.51.100.2", "203.0.113.9", "127.0.0.1", "0.0.0.0", "169.254.7.7",
        "224.0.0.251", "255.255.255.255"],
    6: ["2001:db8:1::a", "2001:db8:1::b", "fd00::7", "2001:db8:2::2", "2001:db8:3::9", "::1", "::", "fe80::1",
        "ff02::1", "ff05::2"],
}  # fmt: skip
TYPE_0_ROUTING = b"\x11\0\0" + bytes(5)
BEGINNINGS = [
    *((protocol, b"") for protocol in (1, 6, 17, 58, 132)),
    *((next_header, extension(17)) for next_header in (0, 60, 43)),
    (0, extension(58)),
    (0, extension(43) + TYPE_0_ROUTING),
    (43, TYPE_0_ROUTING),
    (44, fragment(17, 0)),
    (44, fragment(58, 9)),
    (51, extension(6)),
    (59, b""),
]
"""The protocol that the IP header names, and what the payload begins with."""


@st.composite
def packets(draw):
    """Mostly whole packets between addresses that matter, some with extension headers, some spoilt."""
    pool = ADDRESSES[draw(st.sampled_from([4, 6]))]
    source, destination = draw(st.sampled_from(pool)), draw(st.sampled_from(pool))
    protocol, beginning = draw(st.sampled_from(BEGINNINGS))
    packet = build(source, destination, beginning + draw(st.binary(max_size=12)), protocol)
    match draw(st.integers(0, 5)):
        case 0:
            return packet[: draw(st.integers(0, len(packet)))]
        case 1:
            return packet + draw(st.binary(min_size=1, max_size=4))
        case 2:
            position = draw(st.integers(0, len(packet) - 1))
            return packet[:position] + draw(st.binary(min_size=1, max_size=1)) + packet[position + 1 :]
        case _:
            return packet


contexts = st.sampled_from([b"\0"] * 6 + [b"\x40\0", b"\2", b"\x80", b""])
payloads = st.builds(bytes.__add__, contexts, packets() | st.binary(max_size=20))
prefix_lists = st.lists(st.sampled_from(PREFIXES), max_size=3, unique=True)
range_lists = st.sets(st.sampled_from(range(len(RANGES))), max_size=5).map(
    lambda chosen: [RANGES[i] for i in sorted(chosen)]
)
good_capsules = (
    prefix_lists.map(lambda prefixes: encode_address_assign(AssignedAddress(0, prefix) for prefix in prefixes))
    | range_lists.map(encode_route_advertisement)
    | st.integers(1, 9).map(lambda id: encode_address_request([RequestedAddress(id, PREFIXES[0])]))
    | payloads.map(lambda payload: encode_capsule(0, payload))
    | st.builds(encode_capsule, st.integers(4, MAX_VARINT), st.binary(max_size=20))
    | st.sampled_from([dns.FULL_TUNNEL, dns.SPLIT_TUNNEL, dns.NOTHING, dns.THREE_PREFIXES]).map(bytes.fromhex)
)
bad_capsules = st.sampled_from(
    [*masque.INVALID_IP_CAPSULES.values(), *dns.MALFORMED_DNS.values(), *dns.MALFORMED_PREF64.values()]
).map(bytes.fromhex)


@st.composite
def streams(draw):
    """Capsules one after another, in every second stream with a few octets changed, lost or put in."""
    stream = bytearray(b"".join(draw(st.lists(good_capsules, max_size=6))))
    if draw(st.integers(0, 3)) == 0:
        stream += draw(bad_capsules | st.binary(max_size=12))
    if draw(st.booleans()):
        for _ in range(draw(st.integers(1, 3))):
            position = draw(st.integers(0, len(stream)))
            stream[position : position + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(stream)


ANSWERS = [
    [(b":status", b"200"), (b"capsule-protocol", b"?1")],
    [(b":status", b"200")],
    [(b":status", b"103")],
    [(b":status", b"101")],
    [(b":status", b"403"), (b"proxy-status", b"p; error=denied")],
    [(b":status", b"2xx")],
    [(b":status", b"200"), (b":status", b"200")],
    [(b"server", b"x")],
    [],
]
codes = st.sampled_from([0, 0x100, 0x10C, MAX_VARINT])
peer_actions = (
    st.tuples(st.just("headers"), st.sampled_from(ANSWERS), st.booleans())
    | st.tuples(
        st.just("data"),
        streams(),
        st.sampled_from(["whole", "octets", "sevens"]),
        st.integers(0, 7).map(lambda n: n == 0),
    )
    | st.tuples(st.just("datagrams"), st.lists(payloads, max_size=6))
    | st.tuples(st.just("reset"), codes)
    | st.tuples(st.just("stop"), codes)
)
our_actions = (
    st.tuples(st.just("accept"))
    | st.tuples(st.just("assign"), prefix_lists)
    | st.tuples(st.just("advertise"), range_lists)
    | st.tuples(st.just("request"), st.integers(1, 5))
    | st.tuples(st.just("send"), st.lists(packets() | st.binary(max_size=30), max_size=6))
    | st.tuples(st.just("narrow"), st.sampled_from([30, 48, 1280, 65_575]))
    | st.tuples(st.just("close"))
)


# --- a session under watch ---


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
            for packet in inner:
                assert packet in delivered or self._inbound_problem(packet), f"{packet.hex()} was lost"

    def _reset(self, code: int) -> None:
        self.session.receive_reset(code)
        assert self.session.state is SessionState.CLOSED

    def _stop(self, code: int) -> None:
        self.session.receive_stop_sending(code)

    def _check_delivered(self, delivered: list[bytes]) -> None:
        assert not delivered or self.session.state is not SessionState.REQUESTED
        for packet in delivered:
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
        assert all(any(sent is given for given in batch) for sent in result.send), "whole and unchanged or not at all"
        if self.session.state is not SessionState.OPEN:
            assert result == ([], [])
        elif self.is_ip:
            for packet in batch:
                problem = find_outbound_problem(self.session, packet, is_proxy=self.is_proxy)
                assert (packet in result.send) is (problem is None), (packet.hex(), problem)

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


# --- any sequence ---


@hostile
@given(st.sampled_from(KINDS), st.booleans(), st.lists(peer_actions | our_actions, max_size=12))
def test_any_sequence(kind_and_role, is_open, actions):
    watched = Watched(*kind_and_role)
    if is_open:
        watched.open()
    for action in actions:
        watched.do(action)


@hostile
@given(
    st.sampled_from(list(Role)),
    prefix_lists,
    range_lists,
    prefix_lists,
    range_lists,
    st.lists(payloads, max_size=10),
    st.lists(packets(), max_size=10),
    st.sampled_from([32, 56, 1280]),
)
def test_packets_under_any_addresses_and_routes(
    role, ours, we_advertise, theirs, they_advertise, inbound, outbound, max_packet
):
    watched = Watched(ConnectIpSession, role).open()
    watched.do(("narrow", max_packet))
    told = encode_address_assign(AssignedAddress(0, prefix) for prefix in ours) + encode_route_advertisement(
        they_advertise
    )
    watched.do(("data", told, "octets", False))
    watched.do(("assign", theirs))
    watched.do(("advertise", we_advertise))
    watched.do(("datagrams", inbound))
    watched.do(("send", outbound))
    # Again, by remembered verdicts, and beside each packet a longer and a shorter one of its flow.
    inbound = [spoilt for payload in inbound for spoilt in (payload, payload + b"\0", payload[:-1])]
    outbound = [spoilt for packet in outbound for spoilt in (packet, packet + b"\0", packet[:-1])]
    watched.do(("datagrams", inbound))
    watched.do(("send", outbound))
    watched.do(("data", encode_address_assign([]) + encode_route_advertisement([]), "whole", False))
    watched.do(("datagrams", inbound))
    watched.do(("send", outbound))


@hostile
@given(st.sampled_from(KINDS), streams())
def test_cuts_do_not_matter(kind_and_role, stream):
    """To the control side: cuts decide neither state, nor what is assigned, nor whether something is an error."""
    outcomes = []
    for cut in ("whole", "octets", "sevens"):
        watched = Watched(*kind_and_role).open()
        watched.do(("data", stream, cut, False))
        session = watched.session
        known = (session.assigned, session.routes, session.dns, session.pref64) if watched.is_ip else ()
        is_error = bool(watched.errors)
        outcomes.append((session.state, is_error, *(() if is_error else (known, watched.events))))
    assert outcomes[0] == outcomes[1] == outcomes[2]


# --- floods: each bound, pushed at ---

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
