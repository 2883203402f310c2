"""A SOCKS5 client for demos and tests: one UDP association, blocking."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self

from masque_client.engine.interface import Address
from masque_client.errors import ConnectError, TimedOut
from masque_client.sockets.socks5_wire import (
    NO_AUTHENTICATION,
    USERNAME_PASSWORD,
    VERSION,
    Command,
    Credentials,
    Endpoint,
    Reply,
    UdpMessage,
)

TIMEOUT_S = 30.0


class SocksRefused(ConnectError):
    """The server said no. `reply` is its code, or None when it refused before the request."""

    def __init__(self, message: str, reply: Reply | None = None) -> None:
        super().__init__(message)
        self.reply = reply


def socks_request(
    server: Address, command: int, target: Endpoint, credentials: Credentials | None = None
) -> tuple[socket.socket, Endpoint]:
    """Send one request; returns the TCP connection and the endpoint of the reply.

    Raises:
        SocksRefused: the server refuses the credentials or the request.
        OSError: it cannot be reached, or hangs up.
    """
    connection = socket.create_connection(server, timeout=TIMEOUT_S)
    try:
        method = NO_AUTHENTICATION if credentials is None else USERNAME_PASSWORD
        connection.sendall(bytes([VERSION, 1, method]))
        if _exactly(connection, 2) != bytes([VERSION, method]):
            raise SocksRefused("the SOCKS server wants another kind of authentication")
        if credentials is not None:
            name, password = credentials
            connection.sendall(bytes([1, len(name)]) + name + bytes([len(password)]) + password)
            if _exactly(connection, 2) != b"\x01\x00":
                raise SocksRefused("the SOCKS server refuses the password")
        connection.sendall(bytes([VERSION, command, 0]) + target.encode())
        head = _exactly(connection, 5)
        rest = {1: 5, 4: 17, 3: head[4] + 2}[head[3]]
        if head[1] != Reply.SUCCEEDED:
            raise SocksRefused(f"the SOCKS server answers {Reply(head[1]).name}", Reply(head[1]))
        parsed = Endpoint.parse(head[3:] + _exactly(connection, rest))
        assert parsed is not None
        return connection, parsed[0]
    except BaseException:
        connection.close()
        raise


class SocksAssociation:
    """UDP through a SOCKS server, between entering and leaving."""

    def __init__(self, server: Address, credentials: Credentials | None = None) -> None:
        self._tcp, relay = socks_request(server, Command.UDP_ASSOCIATE, Endpoint("0.0.0.0", 0), credentials)
        self._udp = socket.socket(socket.AF_INET6 if ":" in relay.host else socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.connect((relay.host, relay.port))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._udp.close()
        self._tcp.close()

    @property
    def local_address(self) -> Address:
        """Where the association's UDP socket is bound: ours, not the relay's."""
        host, port = self._udp.getsockname()[:2]
        return host, port

    def send_raw(self, datagram: bytes) -> None:
        """Send bytes to the relay as they are."""
        self._udp.send(datagram)

    def send(self, target: Endpoint, payload: bytes) -> None:
        """Send one payload to a target."""
        self.send_raw(UdpMessage(target, payload).encode())

    def receive(self, timeout_s: float = TIMEOUT_S) -> UdpMessage:
        """The next datagram from any target.

        Raises:
            TimedOut: none within `timeout_s`.
        """
        self._udp.settimeout(timeout_s)
        try:
            return UdpMessage.parse(self._udp.recv(65_535))
        except TimeoutError as error:
            raise TimedOut(f"nothing came back through the SOCKS server within {timeout_s:g} s") from error


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise SocksRefused("the SOCKS server hung up")
        data += piece
    return data
