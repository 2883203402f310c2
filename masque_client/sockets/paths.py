"""A UDP flow's way to its target: through a proxy's request stream, or, where the user allows it, directly.

`UdpDialer` is what the rest of this room asks for a way; who decides which one it is lives above (`tunnel.router`).
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Protocol, Self

from masque_client.engine.interface import Headers
from masque_client.errors import ConnectError, MasqueError, NameResolutionError
from masque_client.http.connection import HttpConnection
from masque_client.http.stream import SessionStream
from masque_client.netio.clock import Clock
from masque_client.netio.udp import UdpSocket
from masque_client.protocol.connect import udp_request_headers
from masque_client.protocol.session import Role
from masque_client.protocol.udp_session import ConnectUdpSession
from masque_client.protocol.uri_template import UdpTemplate

MAX_UDP_PAYLOAD = 65_507
"""Of one IPv4 packet. What the path cannot carry, the kernel refuses."""
RESOLVE_TIMEOUT_S = 5.0

_UNUSABLE = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH})

OnPayloads = Callable[[list[bytes]], None]


class UdpPath(Protocol):
    """An open way. It ends by itself (`wait_closed`) or by `close`, which is idempotent."""

    @property
    def max_payload(self) -> int:
        """The largest UDP payload that fits now, in bytes; 0 while nothing fits."""

    def send(self, payloads: list[bytes]) -> int:
        """Send towards the target; returns how many, from the front, were dealt with. The others did not fit now."""

    async def wait_closed(self) -> MasqueError | None:
        """Wait for the end; None when it was closed in order, else why it broke."""

    def close(self) -> None:
        """Give it back."""


class UdpDialer(Protocol):
    """Finds ways. `on_payloads` is called with what the target sends, a batch at a time, from the moment it is open."""

    async def open_udp(self, host: str, port: int, on_payloads: OnPayloads) -> UdpPath:
        """A way to a name or IP literal.

        Raises:
            DestinationBlocked: the rules and the user allow none.
            MasqueError: there should be one, but it cannot be had now.
        """


class ProxyPath:
    """A CONNECT-UDP request stream (RFC 9298). HTTP Datagrams carry no addresses, so it serves one target only."""

    def __init__(self, clock: Clock, on_payloads: OnPayloads, *, grease: bool = False) -> None:
        self._clock = clock
        self._stream = SessionStream(
            ConnectUdpSession(Role.CLIENT), on_payloads=on_payloads, on_event=lambda event: None, grease=grease
        )

    @classmethod
    async def open(
        cls,
        connection: HttpConnection,
        template: UdpTemplate,
        host: str,
        port: int,
        *,
        clock: Clock,
        on_payloads: OnPayloads,
        extra_headers: Headers = (),
        grease: bool = False,
    ) -> Self:
        """Send the request and wait for the proxy's answer. Raises as `SessionStream.open` does."""
        path = cls(clock, on_payloads, grease=grease)
        await path._stream.open(connection, udp_request_headers(template.expand(host, port), extra_headers))
        return path

    @property
    def max_payload(self) -> int:
        """See `UdpPath`."""
        return self._stream.max_payload if self._stream.is_open else 0

    def send(self, payloads: list[bytes]) -> int:
        """See `UdpPath`."""
        taken = self._stream.send_payloads(self._stream.session.encapsulate(payloads, self._clock.now()).send)
        self._stream.flush()
        return taken

    async def wait_closed(self) -> MasqueError | None:
        """See `UdpPath`."""
        return await self._stream.wait_closed()

    def close(self) -> None:
        """See `UdpPath`."""
        self._stream.close()


class ProxyDialer:
    """Every destination through one proxy.

    Args:
        connection: with extended CONNECT and HTTP Datagrams allowed (`http.connector.connect`).
        template: the proxy's CONNECT-UDP URI template.
        extra_headers: sent with each request, such as Authorization.
    """

    def __init__(
        self, connection: HttpConnection, template: UdpTemplate, clock: Clock, *, extra_headers: Headers = ()
    ) -> None:
        self._connection = connection
        self._template = template
        self._clock = clock
        self._extra_headers = extra_headers

    async def open_udp(self, host: str, port: int, on_payloads: OnPayloads) -> UdpPath:
        """See `UdpDialer`."""
        return await ProxyPath.open(
            self._connection,
            self._template,
            host,
            port,
            clock=self._clock,
            on_payloads=on_payloads,
            extra_headers=self._extra_headers,
        )


class DirectPath:
    """An ordinary connected UDP socket: the kernel drops what does not come from the target."""

    def __init__(self, udp: UdpSocket, on_payloads: OnPayloads) -> None:
        self._socket = udp
        self._on_payloads = on_payloads
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[MasqueError | None] = self._loop.create_future()
        self._loop.add_reader(udp.fileno(), self._on_readable)

    @classmethod
    async def open(cls, host: str, port: int, on_payloads: OnPayloads) -> Self:
        """Look the name up on this machine, and take the first address that has a route.

        Raises:
            NameResolutionError: there is no address.
            ConnectError: there is no route to any.
        """
        failure: ConnectError | None = None
        for address in await resolve(host, port, socket.SOCK_DGRAM):
            try:
                return cls(UdpSocket.connected((address, port)), on_payloads)
            except ConnectError as error:
                failure = error
        raise failure or NameResolutionError(f"{host} has no address")

    @property
    def max_payload(self) -> int:
        """See `UdpPath`."""
        return 0 if self._closed.done() else MAX_UDP_PAYLOAD

    def send(self, payloads: list[bytes]) -> int:
        """See `UdpPath`."""
        remote = self._socket.remote
        assert remote is not None
        taken = self._socket.send_batch([(payload, remote) for payload in payloads])
        self._check()
        return taken

    async def wait_closed(self) -> MasqueError | None:
        """See `UdpPath`."""
        return await asyncio.shield(self._closed)

    def close(self) -> None:
        """See `UdpPath`."""
        self._end(None)

    def _on_readable(self) -> None:
        if payloads := [payload for payload, _ in self._socket.receive_datagrams()]:
            self._on_payloads(payloads)
        self._check()

    def _check(self) -> None:
        """A target that the network says is not there ends the flow, as a proxy would end it (RFC 9298 §3.1)."""
        error = self._socket.last_error
        if error is not None and error.errno in _UNUSABLE:
            self._end(ConnectError(f"the target cannot be reached: {error.strerror}", hint="check the destination"))

    def _end(self, error: MasqueError | None) -> None:
        if self._closed.done():
            return
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._closed.set_result(error)


async def resolve(host: str, port: int, kind: socket.SocketKind) -> list[str]:
    """The addresses of a target that is reached without a proxy, in the system's order (RFC 6724).

    Raises:
        NameResolutionError: there is none, or the resolver took too long.
    """
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=kind)
    except TimeoutError as error:
        raise NameResolutionError(f"looking up {host} took too long") from error
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no host name"
        raise NameResolutionError(f"{host} does not resolve: {reason}") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
