"""Both ends of a request stream as `HttpConnection` sees it: who is told what happens, and what may be done with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from masque_client.engine.interface import Headers
from masque_client.errors import MasqueError, RemoteProtocolError
from masque_client.protocol.packing import Split

if TYPE_CHECKING:
    from masque_client.http.connection import HttpConnection


class StreamHandler(Protocol):
    """Who is told what happens on one request stream. Called in the loop; must not block."""

    def on_headers(self, headers: Headers, *, end_stream: bool) -> None:
        """A header section arrived."""

    def on_data(self, data: bytes, *, end_stream: bool) -> None:
        """Stream content arrived."""

    def on_datagrams(self, datagrams: list[bytes], skip: int) -> None:
        """HTTP Datagrams arrived, each with its payload behind `skip` bytes. The hot path."""

    def on_reset(self, error_code: int, error: RemoteProtocolError | None) -> None:
        """The peer abandoned its sending half, or we did over the rule in `error`: nothing more comes."""

    def on_stop_sending(self, error_code: int) -> None:
        """The peer reads no more of ours; a response may still come (RFC 9114 §4.1)."""

    def on_writable(self) -> None:
        """The datagram queue, reported full before, has room again."""

    def on_connection_closed(self, error: MasqueError) -> None:
        """The connection is gone, and this stream with it. Nothing else is called after this."""


class RequestStream:
    """What a handler may do with its stream. Commands queue; `HttpConnection.flush` sends."""

    __slots__ = ("connection", "stream_id")

    def __init__(self, connection: HttpConnection, stream_id: int) -> None:
        self.connection = connection
        self.stream_id = stream_id

    def send_headers(self, headers: Headers, *, end_stream: bool = False) -> None:
        """Answer a request (server side)."""
        self.connection.engine.send_headers(self.stream_id, headers, end_stream=end_stream)

    def send_data(self, data: bytes, *, end_stream: bool = False) -> None:
        """Queue stream content."""
        self.connection.engine.send_data(self.stream_id, data, end_stream=end_stream)

    def send_datagrams(self, payloads: Sequence[bytes], *, prefix: bytes = b"", split: Split | None = None) -> int:
        """Queue HTTP Datagrams; returns how many were dealt with (see `Engine.send_datagrams`).

        Fewer than given: stop reading the source and wait for `StreamHandler.on_writable`.
        """
        connection = self.connection
        now = connection.clock.now()
        taken = connection.engine.send_datagrams(self.stream_id, payloads, now, prefix=prefix, split=split)
        if taken < len(payloads):
            connection.wants_writable = True
        return taken

    @property
    def datagram_capacity(self) -> int:
        """Largest HTTP Datagram Payload that fits now, in bytes, Context ID included."""
        return self.connection.engine.datagram_capacity(self.stream_id)

    def reset(self, error_code: int) -> None:
        """Abandon both halves of the stream and forget its handler."""
        self.connection.engine.reset_stream(self.stream_id, error_code)
        self.forget()

    def forget(self) -> None:
        """Detach the handler: no further callbacks. Call when the stream is over."""
        self.connection.handlers.pop(self.stream_id, None)
