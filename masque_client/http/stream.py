"""A session on its request stream: where a sans-IO session meets an HTTP connection.

The one place that turns a protocol error into the wire's close (RFC 9297 §3.3, RFC 9114 §8), and a peer's close
into an error a person can read. Used by both sides: the client's tunnels and flows, and the test proxy.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Generic, Self

from masque_client.engine.interface import Headers
from masque_client.errors import ConnectionLost, MasqueError, RemoteProtocolError, TimedOut
from masque_client.http.connection import HttpConnection
from masque_client.http.grease import Greaser
from masque_client.http.request_stream import RequestStream
from masque_client.protocol.error_codes import H3ErrorCode, describe
from masque_client.protocol.session import (
    CONTEXT_ID_0,
    EventT,
    Session,
    SessionClosed,
    SessionOpened,
    SessionState,
)

logger = logging.getLogger(__name__)

RESPONSE_TIMEOUT_S = 10.0
"""How long a proxy may take to answer a request (digest §18)."""


class SessionStream(Generic[EventT]):
    """Drives one session over one request stream; itself the stream's handler.

    Args:
        session: owned by this object from now on.
        on_payloads: called with decapsulated packets or datagrams, a batch at a time. The hot path.
        on_event: called with each session event, in order, `SessionClosed` last.
        on_writable: called when a full datagram queue has room again.
        grease: client: send what means nothing, too (`http.grease`).
    """

    def __init__(
        self,
        session: Session[EventT],
        *,
        on_payloads: Callable[[list[bytes]], None],
        on_event: Callable[[EventT | SessionOpened | SessionClosed], None],
        on_writable: Callable[[], None] | None = None,
        grease: bool = False,
    ) -> None:
        self.session = session
        self.stream: RequestStream | None = None
        self.on_payloads = on_payloads
        self.on_event = on_event
        self.on_writable_again = on_writable
        self._wants_grease = grease
        self._greaser: Greaser | None = None
        loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = loop.create_future()
        self._closed: asyncio.Future[MasqueError | None] = loop.create_future()

    # --- life -------------------------------------------------------------------------------------------------------

    async def open(self, connection: HttpConnection, headers: Headers, timeout_s: float = RESPONSE_TIMEOUT_S) -> Self:
        """Client: send the request and wait for the proxy's 2xx.

        Raises:
            ProxyRefused, AuthenticationRefused: the proxy said no.
            RemoteProtocolError: its answer breaks a rule; the stream was reset with the clause's code.
            TimedOut: no final answer within `timeout_s`; the request was cancelled.
            ConnectError: the connection went away.
        """
        self.stream = connection.open_request(headers, self)
        connection.flush()
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._opened)
        except TimeoutError:
            self._abandon(TimedOut(f"the proxy did not answer the request within {timeout_s:g} s"))
        except asyncio.CancelledError:
            self._abandon(TimedOut("the request was cancelled"))
            raise
        await self._opened
        return self

    def attach(self, stream: RequestStream) -> Self:
        """Proxy: serve `stream`. The caller has judged the request and sent the response."""
        self.stream = stream
        if not self._opened.done():
            self._opened.set_result(None)
        self.pump()
        return self

    async def wait_closed(self) -> MasqueError | None:
        """Wait for the end; None when it was closed in order, else why it broke."""
        return await asyncio.shield(self._closed)

    @property
    def is_open(self) -> bool:
        """True between the proxy's 2xx and the end."""
        return self._opened.done() and not self._closed.done()

    @property
    def is_closed(self) -> bool:
        """True once the session is over."""
        return self._closed.done()

    def close(self) -> None:
        """End the session in order: FIN, no more datagrams (digest §18). Idempotent."""
        if self.is_closed or self.stream is None:
            return
        self.session.close()
        self._send_capsules(end_stream=True)
        self._end(None)

    def abort(self, error: MasqueError) -> None:
        """End the session at once and for `error`, which is ours: both halves of its stream are reset. Idempotent."""
        self._abandon(error)

    # --- outbound ---------------------------------------------------------------------------------------------------

    def send_payloads(self, payloads: Sequence[bytes]) -> int:
        """Queue payloads (of CONNECT-IP: buffers) that `session.encapsulate` let through; returns how many.

        Fewer than given: the queue is full; keep the rest and wait for `on_writable`. `flush` after the batch.
        """
        assert self.stream is not None
        return self.stream.send_datagrams(payloads, prefix=CONTEXT_ID_0, split=self.session.split)

    def flush(self) -> None:
        """Send what is queued on the connection."""
        assert self.stream is not None
        self.stream.connection.flush()

    @property
    def max_payload(self) -> int:
        """Largest packet or UDP payload that fits one datagram now, in bytes; 0 while nothing fits."""
        if self.stream is None:
            return 0
        return max(0, self.stream.datagram_capacity - len(CONTEXT_ID_0))

    def pump(self) -> None:
        """Send the capsules the session queued, deliver its events. After every command given to the session."""
        self._send_capsules()
        while (event := self.session.next_event()) is not None:
            if isinstance(event, SessionOpened) and event.proxy_status is not None:
                logger.info("the proxy opened the tunnel and says: %s", event.proxy_status.describe_success())
            self.on_event(event)
            if isinstance(event, SessionClosed):
                self._peer_closed(event)

    # --- StreamHandler ----------------------------------------------------------------------------------------------

    def on_datagrams(self, datagrams: list[bytes], skip: int) -> None:
        """See `StreamHandler`. The hot path."""
        try:
            packets = self.session.receive_datagrams(datagrams, skip)
        except RemoteProtocolError as error:
            self._violation(error)
            return
        if packets:
            self.on_payloads(packets)

    def on_headers(self, headers: Headers, *, end_stream: bool) -> None:
        """See `StreamHandler`."""
        self._guard(lambda: self.session.receive_headers(headers, end_stream=end_stream, now_wall=time.time()))

    def on_data(self, data: bytes, *, end_stream: bool) -> None:
        """See `StreamHandler`."""
        self._guard(lambda: self.session.receive_data(data, end_stream=end_stream))

    def on_reset(self, error_code: int, error: RemoteProtocolError | None = None) -> None:
        """See `StreamHandler`."""
        self._guard(lambda: self.session.receive_reset(error_code))
        self._abandon(error or self._why_reset(error_code))

    def on_stop_sending(self, error_code: int) -> None:
        """A proxy's normal close is STOP_SENDING next to FIN; before the response it means nothing yet (H-31, F-4)."""
        if self.session.state is SessionState.OPEN:
            self.on_reset(error_code)

    def on_writable(self) -> None:
        """See `StreamHandler`."""
        if self.on_writable_again is not None:
            self.on_writable_again()

    def on_connection_closed(self, error: MasqueError) -> None:
        """See `StreamHandler`."""
        self._end(error)

    # --- errors and the end -----------------------------------------------------------------------------------------

    def _why_reset(self, error_code: int) -> ConnectionLost:
        """What a reset means. Its code decides nothing: any may stand for a `:protocol` that the server does not know.

        RFC 9220 §3 asks for a 501 there, but hyperium's h3 resets with H3_MESSAGE_ERROR.
        """
        if self._opened.done():
            return ConnectionLost(f"the proxy reset the request stream: {describe(error_code)}")
        return ConnectionLost(
            f"the proxy reset the request without an answer: {describe(error_code)}",
            hint="it may not know this tunnel type, or have no room now; try again, or ask its operator",
        )

    def _guard(self, receive: Callable[[], list[bytes] | None]) -> None:
        try:
            packets = receive()
        except RemoteProtocolError as error:
            self._violation(error)
            return
        except MasqueError as error:  # the proxy's refusal, judged by the session
            logger.info("%s", error)
            self._abandon(error)
            return
        if self.session.state is SessionState.OPEN and not self._opened.done():
            self._opened.set_result(None)
            if self._wants_grease and self.stream is not None:
                self._greaser = Greaser(self.stream)
        self.pump()
        if packets:
            self.on_payloads(packets)

    def _violation(self, error: RemoteProtocolError) -> None:
        if self.stream is None or self.is_closed:
            return
        self.stream.connection.count_violation(error)
        if error.connection_error:
            self.stream.forget()
            self.stream.connection.close(error.code, str(error))
            self._end(error)
        else:
            self._abandon(error, error.code)

    def _abandon(self, error: MasqueError, code: int = H3ErrorCode.H3_REQUEST_CANCELLED) -> None:
        """Reset both halves (RFC 9114 §4.1.1) and end with `error`."""
        if self.is_closed or self.stream is None:
            return
        self.stream.reset(code)
        self.flush()
        self._end(error)

    def _peer_closed(self, event: SessionClosed) -> None:
        """The peer ended the stream; answer its FIN with ours (digest §18)."""
        if self.is_closed:
            return
        if self._opened.done() and event.error_code is None:
            self._send_capsules(end_stream=True)
            self._end(None)
        elif event.error_code is None:
            self._end(ConnectionLost("the proxy ended the request without an answer"))

    def _end(self, error: MasqueError | None) -> None:
        if self.is_closed:
            return
        if self._greaser is not None:
            self._greaser.close()
        if self.stream is not None:
            self.stream.forget()
        self._closed.set_result(error)
        if not self._opened.done():
            self._opened.set_exception(error or ConnectionLost("the proxy ended the request without an answer"))
            self._opened.exception()  # retrieved: nobody may be waiting

    def _send_capsules(self, *, end_stream: bool = False) -> None:
        data = self.session.data_to_send()
        if self.stream is not None and (data or end_stream):
            self.stream.send_data(data, end_stream=end_stream)
            self.flush()
