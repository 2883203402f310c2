"""TLS connections whose socket options count from the first packet on.

httpx sets them when it is connected already: too late for those that decide which way packets go, such as
SO_BINDTODEVICE and SO_MARK. This is what it may connect with instead.
"""

# ruff: noqa: ASYNC109 - the timeouts are httpcore's interface

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

SocketOption = tuple[int, int, int] | tuple[int, int, bytes]


def transport(context: ssl.SSLContext, options: Iterable[SocketOption]) -> httpx.AsyncHTTPTransport:
    """A transport for https URLs with IP literals, whose sockets have `options` before they connect."""
    made = httpx.AsyncHTTPTransport(trust_env=False)
    # The only way in: httpx offers no parameter for httpcore's.
    made._pool = httpcore.AsyncConnectionPool(ssl_context=context, network_backend=_Backend(tuple(options)))
    return made


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self, options: tuple[SocketOption, ...]) -> None:
        self._options = options

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            for option in self._options:
                sock.setsockopt(*option)
            async with asyncio.timeout(timeout):
                await asyncio.get_running_loop().sock_connect(sock, (host, port))
        except BaseException as error:
            sock.close()
            raise _translated(error) from error
        return _Connected(sock)


class _Connected(httpcore.AsyncNetworkStream):
    """A TCP connection that has nothing to say before TLS."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                streams = await asyncio.open_connection(
                    sock=self._socket, ssl=ssl_context, server_hostname=server_hostname
                )
        except BaseException as error:
            self._socket.close()
            raise _translated(error) from error
        return _Stream(*streams)

    async def aclose(self) -> None:
        self._socket.close()

    def get_extra_info(self, info: str) -> Any:
        return None


class _Stream(httpcore.AsyncNetworkStream):
    """The same under TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        async with asyncio.timeout(timeout):
            return await self._reader.read(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._writer.write(buffer)
        async with asyncio.timeout(timeout):
            await self._writer.drain()

    async def aclose(self) -> None:
        self._writer.transport.abort()
        await asyncio.sleep(0)  # which is when it is closed

    def get_extra_info(self, info: str) -> Any:
        return self._writer.get_extra_info("ssl_object") if info == "ssl_object" else None


def _translated(error: BaseException) -> BaseException:
    """What httpcore's own backends raise in its place, as far as anybody looks."""
    if isinstance(error, TimeoutError):
        return httpcore.ConnectTimeout()
    return httpcore.ConnectError(str(error)) if isinstance(error, OSError) else error
