"""The TCP companion of the UDP relay: bytes pass unharmed. Not for production."""

from __future__ import annotations

import asyncio

from masque_client.engine.interface import Address


class TcpRelay:
    """TCP on the same address, passed on unharmed: so that a proxy's PvD document is found where its QUIC is.

    Await `start`, then `close`.

    Attributes:
        swallows: while True what arrives goes nowhere, in both directions: a path that died, and TCP does not know.
    """

    def __init__(self, to: Address) -> None:
        self.swallows = False
        self._to = to
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._is_closed = False

    async def start(self, listen: Address) -> Address:
        """Listen on `listen`, port 0 for any; returns what it is.

        Raises:
            OSError: it is taken.
        """
        self._server = await asyncio.start_server(self._serve, *listen)
        host, port, *_ = self._server.sockets[0].getsockname()
        return host, port

    async def close(self) -> None:
        """Stop listening and cut what is connected."""
        self._is_closed = True
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_closed:  # it was accepted before, and its task only starts now
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            there, back = await asyncio.open_connection(*self._to)
            try:
                await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
            finally:
                back.close()
        except (OSError, asyncio.CancelledError):
            pass  # either side is gone, or `close`: nobody is left to tell
        finally:
            self._connections.discard(task)
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not self.swallows:
                writer.write(data)
                await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
