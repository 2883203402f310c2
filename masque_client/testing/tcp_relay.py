"""The TCP companion of the UDP relay: bytes pass unharmed. Not for production."""

from __future__ import annotations

import asyncio

from masque_client.engine.interface import Address


class TcpRelay:
    """TCP on the same address, passed on unharmed: so that a proxy's PvD document is found where its QUIC is.

    Await `start`, then `close`.
    """

    def __init__(self, to: Address) -> None:
        self._to = to
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, listen: Address) -> None:
        """Listen on `listen`.

        Raises:
            OSError: it is taken.
        """
        self._server = await asyncio.start_server(self._serve, *listen)

    async def close(self) -> None:
        """Stop listening and cut what is connected."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            there, back = await asyncio.open_connection(*self._to)
            try:
                await asyncio.gather(_pump(reader, back), _pump(there, writer))
            finally:
                back.close()
        except (OSError, asyncio.CancelledError):
            pass  # either side is gone, or `close`: nobody is left to tell
        finally:
            self._connections.discard(task)
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
