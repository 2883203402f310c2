"""A SOCKS5 server for the programs of this machine (RFC 1928): UDP by CONNECT-UDP, TCP only directly.

One association (a TCP connection with UDP ASSOCIATE) has one UDP socket and, for each destination, one flow with a
path of its own. Where a destination goes is not decided here: the dialer knows the rules. The association lives as
long as its TCP connection (RFC 1928 §6).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from ipaddress import ip_address
from typing import Protocol

from masque_client.engine.interface import Address
from masque_client.errors import (
    AddressInUse,
    AuthenticationRefused,
    ConfigurationError,
    ConnectError,
    MasqueError,
    NameResolutionError,
    PrivilegeError,
    TlsError,
)
from masque_client.netio.clock import Clock
from masque_client.netio.udp import UdpSocket
from masque_client.sockets.flows import FlowStatistics, FlowTable
from masque_client.sockets.paths import UdpDialer
from masque_client.sockets.socks5_wire import (
    Command,
    Credentials,
    Endpoint,
    Reply,
    SocksError,
    SocksHandshake,
    UdpMessage,
    encode_reply,
)

logger = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT_S = 10.0
MAX_CLIENTS = 256
"""TCP connections served at once."""
MAX_FLOWS_PER_ASSOCIATION = 256
_CHUNK_BYTES = 65_536


class TcpDialer(Protocol):
    """Opens TCP connections for CONNECT."""

    async def open_tcp(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a name or IP literal.

        Raises:
            DestinationBlocked: the rules and the user allow none.
            NameResolutionError, ConnectError: it cannot be had.
        """


class Dialer(UdpDialer, TcpDialer, Protocol):
    """Both."""


class SocksServer:
    """Listens for SOCKS clients between `start` and `close`.

    Args:
        dialer: opens the ways to targets.
        credentials: what clients must present; None lets in everybody who reaches `listen`.
        on_error: told why flows and connections could not be served.
    """

    def __init__(
        self,
        dialer: Dialer,
        clock: Clock,
        *,
        credentials: Credentials | None = None,
        on_error: Callable[[MasqueError], None] = lambda error: None,
    ) -> None:
        self.dialer = dialer
        self.clock = clock
        self.on_error = on_error
        self.statistics = FlowStatistics()
        self._credentials = credentials
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self, listen: Address) -> Address:
        """Listen on a TCP address; port 0 takes a free one. Returns the address bound.

        Raises:
            AddressInUse: it is taken, or not ours.
            PrivilegeError: the port needs a privilege.
        """
        try:
            self._server = await asyncio.start_server(self._accept, *listen, limit=_CHUNK_BYTES)
        except PermissionError as error:
            raise PrivilegeError(f"cannot listen on port {listen[1]}: {error.strerror}") from error
        except OSError as error:
            raise AddressInUse(f"cannot listen on {listen[0]} port {listen[1]}: {error.strerror}") from error
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    @property
    def clients(self) -> int:
        """TCP connections served now."""
        return len(self._clients)

    async def close(self) -> None:
        """Stop listening and end every client. Idempotent."""
        if self._server is not None:
            self._server.close()
        for task in list(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if len(self._clients) <= MAX_CLIENTS:
                await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # a client that left, or `close`; asyncio's streams would log a cancelled handler as an error
        except SocksError as error:
            logger.info("a SOCKS client was refused: %s", error)
            writer.write(error.answer)
        finally:
            self._clients.discard(task)
            await _close(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handshake = SocksHandshake(self._credentials)
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):  # TimeoutError is an OSError
            while (request := handshake.next_event()) is None:
                data = await reader.read(_CHUNK_BYTES)
                if not data:
                    return
                handshake.receive_data(data)
                writer.write(handshake.data_to_send())
        match request.command:
            case Command.CONNECT:
                await self._connect(request.endpoint, handshake.trailing_data(), reader, writer)
            case Command.UDP_ASSOCIATE:
                await self._associate(request.endpoint, reader, writer)
            case other:
                raise SocksError(f"command {other} is not supported", encode_reply(Reply.COMMAND_NOT_SUPPORTED))

    async def _connect(
        self, target: Endpoint, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            far_reader, far_writer = await self.dialer.open_tcp(target.host, target.port)
        except MasqueError as error:
            self.on_error(error)
            raise SocksError(str(error), encode_reply(_reply_to(error))) from error
        try:
            host, port = far_writer.get_extra_info("sockname")[:2]
            writer.write(encode_reply(Reply.SUCCEEDED, Endpoint(host, port)))
            far_writer.write(first)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(_pump(reader, far_writer))
                pumps.create_task(_pump(far_reader, writer))
        except* OSError:
            pass  # one of the two ends went away
        finally:
            await _close(far_writer)

    async def _associate(self, client: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        local_host, peer_host = writer.get_extra_info("sockname")[0], writer.get_extra_info("peername")[0]
        association = _Association(self, local_host, peer_host, client.port)
        try:
            bound = association.local_address
            writer.write(encode_reply(Reply.SUCCEEDED, Endpoint(*bound)))
            while await reader.read(_CHUNK_BYTES):
                pass  # the TCP connection only says, by ending, that the association is over
        finally:
            await association.close()


class _Association:
    """One client's UDP socket and its flows.

    Datagrams count only from the host that holds the TCP connection: from the port that the request named, or from
    the first one that sends (RFC 1928 §6).
    """

    def __init__(self, server: SocksServer, local_host: str, client_host: str, client_port: int) -> None:
        self._server = server
        self._client_host = ip_address(client_host)
        self._client: Address | None = (client_host, client_port) if client_port else None
        self._socket = UdpSocket.bound((local_host, 0))
        self._flows: FlowTable[Endpoint] = FlowTable(
            server.dialer,
            self._deliver,
            server.clock,
            on_error=server.on_error,
            max_flows=MAX_FLOWS_PER_ASSOCIATION,
            statistics=server.statistics,
        )
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._on_readable)

    @property
    def local_address(self) -> Address:
        return self._socket.local_address

    async def close(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        await self._flows.close()

    def _on_readable(self) -> None:
        """Client → targets."""
        by_target: dict[Endpoint, list[bytes]] = {}
        for data, source in self._socket.receive_datagrams():
            try:
                if not self._is_client(source):
                    raise SocksError("a datagram of somebody else")
                message = UdpMessage.parse(data)
            except SocksError as error:
                self._server.statistics.drops["not-for-relay"] += 1
                logger.debug("dropped %s from %s port %d", error, *source)
                continue
            by_target.setdefault(message.endpoint, []).append(message.payload)
        for target, payloads in by_target.items():
            self._flows.send(target, (target.host, target.port), payloads)

    def _is_client(self, source: Address) -> bool:
        if self._client is None and ip_address(source[0]) == self._client_host:
            self._client = source
        return source == self._client

    def _deliver(self, target: Endpoint, payloads: list[bytes]) -> int:
        """A target → client, from the name or address that the client had asked for."""
        if self._client is None or self._socket.fileno() < 0:
            return 0
        client = self._client
        return self._socket.send_batch([(UdpMessage(target, payload).encode(), client) for payload in payloads])


def _reply_to(error: MasqueError) -> Reply:
    match error:
        case NameResolutionError():
            return Reply.HOST_UNREACHABLE
        case ConfigurationError() | AuthenticationRefused() | TlsError():
            return Reply.NOT_ALLOWED
        case ConnectError():
            return Reply.CONNECTION_REFUSED
        case _:
            return Reply.GENERAL_FAILURE


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end, and pass the end on."""
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, asyncio.CancelledError):
        await writer.wait_closed()
