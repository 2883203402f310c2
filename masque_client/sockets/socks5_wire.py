"""SOCKS5 on the wire: greeting, password, request, reply, UDP header (RFC 1928, RFC 1929). Sans-IO, server side.

`SocksHandshake` reads the TCP stream up to and including the request:

    handshake.receive_data(data)  →  next_event() until None  →  data_to_send() until the stream is the caller's

Everything else are values with `parse` and `encode` side by side. Bad bytes raise `SocksError`, and nothing else.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, ip_address
from typing import Final, NamedTuple, Self

VERSION: Final = 5
PASSWORD_VERSION: Final = 1
NO_AUTHENTICATION: Final = 0x00
USERNAME_PASSWORD: Final = 0x02
NO_ACCEPTABLE_METHOD: Final = 0xFF


class Command(IntEnum):
    """What a client may ask for (RFC 1928 §4)."""

    CONNECT = 1
    BIND = 2
    UDP_ASSOCIATE = 3


class Reply(IntEnum):
    """What it is told (RFC 1928 §6)."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    CONNECTION_REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_TYPE_NOT_SUPPORTED = 8


class AddressType(IntEnum):
    """How a host is written (RFC 1928 §5)."""

    IPV4 = 1
    NAME = 3
    IPV6 = 4


class SocksError(Exception):
    """The client breaks RFC 1928 or 1929; `answer` is what to send before closing, empty for silence."""

    def __init__(self, message: str, answer: bytes = b"") -> None:
        super().__init__(message)
        self.answer = answer


class Credentials(NamedTuple):
    """A user name and a password, 1 to 255 bytes each (RFC 1929 §2)."""

    username: bytes
    password: bytes


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port. `host` is a name, or an IP literal without brackets."""

    host: str
    port: int

    @classmethod
    def parse(cls, data: bytes, offset: int = 0) -> tuple[Self, int] | None:
        """The endpoint at `offset`, from its address type on, and where it ends; None while bytes are missing.

        Raises:
            SocksError: an unknown address type, or a name that is not printable ASCII.
        """
        if len(data) < offset + 2:
            return None
        start = offset + 1
        match data[offset]:
            case AddressType.IPV4:
                end = start + 4
            case AddressType.IPV6:
                end = start + 16
            case AddressType.NAME:
                start, end = start + 1, start + 1 + data[start]
            case other:
                raise SocksError(f"address type {other} is unknown", encode_reply(Reply.ADDRESS_TYPE_NOT_SUPPORTED))
        if len(data) < end + 2:
            return None
        host = data[start:end]
        text = _name(host) if data[offset] == AddressType.NAME else str(ip_address(host))
        return cls(text, int.from_bytes(data[end : end + 2])), end + 2

    def encode(self) -> bytes:
        """Address type, address, port.

        Raises:
            ValueError: a name longer than 255 bytes or outside ASCII.
        """
        port = self.port.to_bytes(2)
        try:
            address = ip_address(self.host)
        except ValueError:
            name = self.host.encode("ascii")
            if not 1 <= len(name) <= 255:
                raise ValueError("a name has 1 to 255 bytes") from None
            return bytes([AddressType.NAME, len(name)]) + name + port
        kind = AddressType.IPV4 if isinstance(address, IPv4Address) else AddressType.IPV6
        return bytes([kind]) + address.packed + port


ANY_ENDPOINT: Final = Endpoint("0.0.0.0", 0)


@dataclass(frozen=True, slots=True)
class Request:
    """What the client wants. The credentials, where they were asked for, have been accepted."""

    command: int
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class UdpMessage:
    """A datagram between client and relay (RFC 1928 §7): whom it is for, or from, and its payload."""

    endpoint: Endpoint
    payload: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse one datagram of the client's.

        Raises:
            SocksError: cut short, malformed, or a fragment: reassembly is optional and we do not do it, so it is
                dropped, as RFC 1928 §7 wants.
        """
        if len(data) < 4 or data[:2] != b"\0\0":
            raise SocksError("a datagram without a SOCKS header")
        if data[2]:
            raise SocksError("a fragment")
        parsed = Endpoint.parse(data, 3)
        if parsed is None:
            raise SocksError("a datagram that ends within its header")
        endpoint, end = parsed
        return cls(endpoint, data[end:])

    def encode(self) -> bytes:
        """The datagram, header first."""
        return b"\0\0\0" + self.endpoint.encode() + self.payload


def encode_reply(reply: Reply, bound: Endpoint = ANY_ENDPOINT) -> bytes:
    """The answer to a request; `bound` is where the relay listens, or what a connection goes out from."""
    return bytes([VERSION, reply, 0]) + bound.encode()


class SocksHandshake:
    """The start of one client's TCP stream.

    Args:
        credentials: what the client must present; None lets everybody in.
    """

    def __init__(self, credentials: Credentials | None = None) -> None:
        self._credentials = credentials
        self._buffer = bytearray()
        self._to_send = bytearray()
        self._step = self._greeting
        self._request: Request | None = None

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the client. Then `data_to_send`, then `next_event`.

        Raises:
            SocksError: send its `answer` and close.
        """
        self._buffer += data  # bounded: no step waits for more than 513 bytes
        while self._request is None and (taken := self._step(bytes(self._buffer))):
            del self._buffer[:taken]

    def next_event(self) -> Request | None:
        """The request, once it is complete."""
        return self._request

    def data_to_send(self) -> bytes:
        """What to send now."""
        data, self._to_send = bytes(self._to_send), bytearray()
        return data

    def trailing_data(self) -> bytes:
        """What the client sent after its request; of a CONNECT, the first bytes for the target."""
        return bytes(self._buffer)

    # Each step returns how many bytes it has taken from the front, 0 while they are not all there.

    def _greeting(self, data: bytes) -> int:
        """RFC 1928 §3."""
        if data[:1] not in (b"", bytes([VERSION])):
            raise SocksError("not SOCKS version 5")
        if len(data) < 2 or len(data) < 2 + data[1]:
            return 0
        wanted = NO_AUTHENTICATION if self._credentials is None else USERNAME_PASSWORD
        if wanted not in data[2 : 2 + data[1]]:
            raise SocksError("no acceptable method", bytes([VERSION, NO_ACCEPTABLE_METHOD]))
        self._to_send += bytes([VERSION, wanted])
        self._step = self._command if self._credentials is None else self._password
        return 2 + data[1]

    def _password(self, data: bytes) -> int:
        """RFC 1929 §2."""
        if data[:1] not in (b"", bytes([PASSWORD_VERSION])):
            raise SocksError("not version 1 of the password exchange")
        if len(data) < 2 or len(data) < 3 + data[1]:
            return 0
        name_end = 2 + data[1]
        end = name_end + 1 + data[name_end]
        if len(data) < end:
            return 0
        assert self._credentials is not None
        same_name = hmac.compare_digest(data[2:name_end], self._credentials.username)
        same_password = hmac.compare_digest(data[name_end + 1 : end], self._credentials.password)
        if not (same_name and same_password):
            raise SocksError("wrong user name or password", bytes([PASSWORD_VERSION, 1]))
        self._to_send += bytes([PASSWORD_VERSION, 0])
        self._step = self._command
        return end

    def _command(self, data: bytes) -> int:
        """RFC 1928 §4."""
        if data[:1] not in (b"", bytes([VERSION])):
            raise SocksError("not a SOCKS version 5 request", encode_reply(Reply.GENERAL_FAILURE))
        parsed = Endpoint.parse(data, 3)
        if parsed is None:
            return 0
        endpoint, end = parsed
        self._request = Request(data[1], endpoint)
        return end


def _name(host: bytes) -> str:
    """A name in ASCII; programs that put an address into the name field mean the address."""
    text = host.decode("ascii", "replace")
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise SocksError("a host name that is none", encode_reply(Reply.GENERAL_FAILURE))
    return text
