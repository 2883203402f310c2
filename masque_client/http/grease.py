"""Greases one open session: a reserved capsule at once, and an HTTP Datagram on an unused Context ID now and then."""

from __future__ import annotations

import asyncio
import random

from masque_client.http.request_stream import RequestStream
from masque_client.protocol.grease import MAX_NUMBER, reserved_capsule, unused_context

INTERVAL_S = 20.0
MAX_FILLER = 16


class Greaser:
    """Works from its making to `close`. Not for every proxy: some end the tunnel on a capsule they do not know."""

    def __init__(self, stream: RequestStream) -> None:
        self._stream = stream
        stream.send_data(reserved_capsule(random.randrange(MAX_NUMBER), _filler()))
        self._timer = asyncio.get_running_loop().call_soon(self._send_datagram)

    def close(self) -> None:
        """Stop."""
        self._timer.cancel()

    def _send_datagram(self) -> None:
        self._stream.send_datagrams([_filler()], prefix=unused_context(random.randrange(MAX_NUMBER)))
        self._stream.connection.flush()
        self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._send_datagram)


def _filler() -> bytes:
    return random.randbytes(random.randrange(MAX_FILLER))
