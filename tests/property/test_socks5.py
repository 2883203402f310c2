"""The SOCKS5 codec: parse undoes encode, and any bytes, whole or in pieces, parse or raise `SocksError`."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque_client.sockets.socks5_wire import Credentials, Endpoint, Request, SocksError, SocksHandshake, UdpMessage

NAMES = st.from_regex(r"[a-z0-9-]{1,30}(\.[a-z0-9-]{1,30}){1,3}", fullmatch=True).filter(lambda name: not _is_ip(name))
HOSTS = st.one_of(
    NAMES,
    st.integers(0, 2**32 - 1).map(lambda number: str(IPv4Address(number))),
    st.integers(0, 2**128 - 1).map(lambda number: str(IPv6Address(number))),
)
ENDPOINTS = st.builds(Endpoint, HOSTS, st.integers(0, 65_535))
CREDENTIALS = st.none() | st.builds(
    Credentials, st.binary(min_size=1, max_size=255), st.binary(min_size=1, max_size=255)
)


def _is_ip(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


def client_bytes(credentials: Credentials | None, command: int, endpoint: Endpoint) -> bytes:
    """What a correct client sends up to its request."""
    if credentials is None:
        start = bytes([5, 1, 0])
    else:
        name, password = credentials
        start = bytes([5, 2, 0, 2, 1, len(name)]) + name + bytes([len(password)]) + password
    return start + bytes([5, command, 0]) + endpoint.encode()


def feed(handshake: SocksHandshake, pieces: Sequence[bytes]) -> tuple[Request | None, bytes]:
    sent = b""
    for piece in pieces:
        handshake.receive_data(piece)
        sent += handshake.data_to_send()
    return handshake.next_event(), sent


@given(ENDPOINTS, st.binary(max_size=50))
def test_endpoints_survive_the_wire(endpoint: Endpoint, trailing: bytes) -> None:
    wire = endpoint.encode()
    assert Endpoint.parse(wire + trailing) == (endpoint, len(wire))
    for end in range(len(wire)):
        assert Endpoint.parse(wire[:end]) is None


@given(ENDPOINTS, st.binary(max_size=2000))
def test_datagrams_survive_the_wire(endpoint: Endpoint, payload: bytes) -> None:
    message = UdpMessage(endpoint, payload)
    assert UdpMessage.parse(message.encode()) == message


@given(ENDPOINTS, st.integers(1, 255), st.binary(max_size=20))
def test_fragments_are_refused(endpoint: Endpoint, number: int, payload: bytes) -> None:
    wire = UdpMessage(endpoint, payload).encode()
    with pytest.raises(SocksError, match="fragment"):
        UdpMessage.parse(wire[:2] + bytes([number]) + wire[3:])


@given(CREDENTIALS, st.integers(0, 255), ENDPOINTS, st.binary(max_size=40), st.integers(1, 600))
def test_a_handshake_is_understood_in_pieces_of_any_size(
    credentials: Credentials | None, command: int, endpoint: Endpoint, trailing: bytes, size: int
) -> None:
    handshake = SocksHandshake(credentials)
    stream = client_bytes(credentials, command, endpoint)
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    request, sent = feed(handshake, [*pieces[:-1], pieces[-1] + trailing])
    assert request == Request(command, endpoint)
    assert sent == (bytes([5, 0]) if credentials is None else bytes([5, 2, 1, 0]))
    assert handshake.trailing_data() == trailing


@given(CREDENTIALS, CREDENTIALS.filter(bool), ENDPOINTS)
def test_nobody_gets_past_the_password(presented: Credentials | None, wanted: Credentials, endpoint: Endpoint) -> None:
    if presented == wanted:
        return
    handshake = SocksHandshake(wanted)
    with pytest.raises(SocksError) as caught:
        handshake.receive_data(client_bytes(presented, 1, endpoint))
    assert caught.value.answer in (bytes([5, 0xFF]), bytes([1, 1]))
    assert handshake.next_event() is None


@given(CREDENTIALS, st.binary(max_size=600))
def test_any_bytes_do_no_more_than_raise(credentials: Credentials | None, data: bytes) -> None:
    outcomes: list[tuple[Request | None, bytes | None]] = []
    for pieces in ([data], [data[index : index + 1] for index in range(len(data))]):
        handshake = SocksHandshake(credentials)
        try:
            outcomes.append((feed(handshake, pieces)[0], None))
        except SocksError as error:
            outcomes.append((None, error.answer))
    assert outcomes[0] == outcomes[1]


@given(st.binary(max_size=300))
def test_any_datagram_parses_or_raises(data: bytes) -> None:
    try:
        message = UdpMessage.parse(data)
    except SocksError:
        return
    assert UdpMessage.parse(message.encode()) == message
