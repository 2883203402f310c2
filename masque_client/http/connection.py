"""One HTTP connection on an asyncio loop: the only driver of an engine.

It moves what the engine speaks downward, UDP payloads or the bytes inside TLS, between a link (`UdpLink`, `TcpLink`)
and the engine, keeps the engine's timer, and hands each stream's events to that stream's handler. It knows streams and
datagrams, not what they mean: sessions live above, in `stream.py`.

Order of work for every input (engine/interface.py asks for it): input → dispatch events → flush → timer. Nothing
awaits on that road. Commands (`RequestStream.send_…`) only queue; who sends a batch calls `flush` once after it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

from masque_client.engine.interface import (
    Address,
    ConnectionClosed,
    ConnectionIdIssued,
    ConnectionIdRetired,
    DatagramsReceived,
    DataReceived,
    Engine,
    EngineStatistics,
    Event,
    GoAwayReceived,
    HandshakeCompleted,
    Headers,
    HeadersReceived,
    HttpEngine,
    ProbeAcknowledged,
    ReceivedBuffer,
    SettingsReceived,
    StopSendingReceived,
    StreamEngine,
    StreamReset,
)
from masque_client.errors import ConnectionLost, MasqueError, RemoteProtocolError
from masque_client.http.liveness import LivenessStatistics
from masque_client.http.path_mtu import PathMtuKeeper, PathView
from masque_client.http.request_stream import RequestStream, StreamHandler
from masque_client.http.watchdog import Watchdog
from masque_client.netio.clock import Clock

logger = logging.getLogger(__name__)

TIMER_RESOLUTION_S = 0.001
"""The loop's own: what is due sooner comes no sooner for asking again."""


class HttpConnection:
    """An HTTP/3 or HTTP/2 connection, client or server side.

    Args:
        engine: driven by this object alone from now on.
        send: takes what the engine has to send, UDP payloads or bytes; `UdpLink.send` or `TcpLink.send`.
        clock: the engine's clock; must agree with the loop's (`loop.time`).
        on_request: server side: called with each new request stream and its headers; returns its handler.
        on_closed: called once, last, when the connection is gone; a client closes its link here.
        on_connection_id: server side: called with (connection id, True) when issued and (…, False) when retired.
        path: HTTP/3: what the kernel knows of the path. With it the packet size follows the path MTU.
        violations: where the rules that the peer broke are counted, by clause; its own when None.

    Attributes:
        on_packet_size: called when `datagram_capacity` has changed with the path; whoever depends on it adds itself.
        last_words: what went out when the peer was given up; empty while it was not.
        on_going_away: called, soon, when the peer says that it takes no new requests (RFC 9114 §5.2).
    """

    def __init__(
        self,
        engine: Engine | StreamEngine,
        send: Callable[[Any], None],
        clock: Clock,
        *,
        on_request: Callable[[RequestStream, Headers], StreamHandler] | None = None,
        on_closed: Callable[[HttpConnection], None] | None = None,
        on_connection_id: Callable[[HttpConnection, bytes, bool], None] | None = None,
        path: PathView | None = None,
        violations: Counter[str] | None = None,
    ) -> None:
        self.engine: HttpEngine = engine
        self.clock = clock
        self.handlers: dict[int, StreamHandler] = {}
        self.wants_writable = False
        self.handshake: HandshakeCompleted | None = None
        self.settings: SettingsReceived | None = None
        self.going_away = False
        self.closed: ConnectionClosed | None = None
        self.violations: Counter[str] = Counter() if violations is None else violations
        # All that HTTP/3 and HTTP/2 differ in here: the unit that link and engine exchange.
        self._take: Callable[[Any, float], None]
        self._output: Callable[[float], Any]
        if isinstance(engine, StreamEngine):
            self.http_version, self._take, self._output = 2, engine.receive_data, engine.data_to_send
        else:
            self.http_version, self._take, self._output = 3, engine.receive_datagrams, engine.datagrams_to_send
        self._send = send
        self.last_words: Any = ()
        self.on_packet_size: list[Callable[[], None]] = []
        self.on_going_away: list[Callable[[], None]] = []
        self._path = path
        self._path_mtu: PathMtuKeeper | None = None
        self._on_request = on_request
        self._on_closed = on_closed
        self._on_connection_id = on_connection_id
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._watchdog = Watchdog(
            engine, clock, http_version=self.http_version, flush=self.flush, on_dead=self._give_up
        )
        self._on_received = self._watchdog.liveness.received
        self._handshaken: asyncio.Future[None] = self._loop.create_future()
        self._settled: asyncio.Future[None] = self._loop.create_future()
        self._over: asyncio.Future[None] = self._loop.create_future()

    # --- input ------------------------------------------------------------------------------------------------------

    def connect(self, address: Address) -> None:
        """Start (see `HttpEngine.connect`); a client then awaits `wait_handshake` and `wait_settings`."""
        self.engine.connect(address, self.clock.now())
        self.flush()

    def receive(self, batch: Sequence[ReceivedBuffer] | bytes) -> None:
        """Take a batch, or bytes, from the link; everything it causes happens before this returns."""
        now = self.clock.now()
        self._on_received(now)
        self._take(batch, now)
        self._dispatch()
        self.flush()
        self._dispatch()  # sending may have issued connection IDs, and the peer may use them at once

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, math.inf
        now, deadline = self.clock.now(), self.engine.next_timeout()
        if deadline is None or deadline > now:
            self._arm_timer(now)  # what it was for has happened meanwhile
            return
        self.engine.handle_timeout(now)
        self._dispatch()
        self.flush()

    def _give_up(self, silent_s: float) -> None:
        self.engine.close(reason="no answer")  # it may hear us, though we do not hear it
        self.fail(ConnectionLost(f"no packet from the proxy for {silent_s:.0f} s"))

    # --- commands ---------------------------------------------------------------------------------------------------

    async def wait_handshake(self) -> None:
        """Wait until the peer is authenticated.

        Raises:
            MasqueError: why the connection failed instead; see `ConnectionClosed.error`.
        """
        await asyncio.shield(self._handshaken)

    async def wait_settings(self) -> SettingsReceived:
        """Wait until the peer's SETTINGS are known, so that requests may be opened.

        Raises:
            MasqueError: why the connection failed instead; see `ConnectionClosed.error`.
        """
        await asyncio.shield(self._settled)
        assert self.settings is not None
        return self.settings

    async def wait_closed(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of the connection, at most `timeout_s`; returns whether it is over."""
        await asyncio.wait([self._over], timeout=timeout_s)
        return self._over.done()

    def open_request(self, headers: Headers, handler: StreamHandler) -> RequestStream:
        """Client: send an extended CONNECT; `handler` hears the rest. Call `flush` after.

        Raises:
            LocalProtocolError: the peer's SETTINGS do not allow it, see `Engine.open_request`.
            ConnectionLost: the connection is gone, or the proxy sent GOAWAY (RFC 9114 §5.2).
        """
        if self.closed is not None:
            raise self.closed_error()
        if self.going_away:
            raise ConnectionLost("the proxy is going away and takes no new tunnels")
        stream_id = self.engine.open_request(headers)
        self.handlers[stream_id] = handler
        return RequestStream(self, stream_id)

    def flush(self) -> None:
        """Send what the engine allows now, and arm its timer. Once per batch, after the commands of that batch."""
        if self.closed is not None:
            return
        now = self.clock.now()
        output = self._output(now)
        if output:
            self._send(output)
            self._watchdog.on_sent(now)
            if self._path_mtu is not None:
                self._path_mtu.on_sent(now)
        if self.wants_writable and not self.engine.is_datagram_queue_full:
            self.wants_writable = False
            self._loop.call_soon(self._notify_writable)
        self._arm_timer(now)

    def close(self, error_code: int = 0x100, reason: str = "") -> None:
        """Say goodbye (CONNECTION_CLOSE) and release everything at once; the draining period is not waited for."""
        if self.closed is not None:
            return
        self.engine.close(error_code, reason)
        self.flush()
        self._finish(ConnectionClosed(error_code, reason, True, None))

    def fail_handshake(self, error: MasqueError) -> None:
        """Client: what is below us knows that no answer will come. Later than the handshake, TLS knows better."""
        if self.handshake is None:
            self.fail(error)

    def fail(self, error: MasqueError) -> None:
        """What is below us broke: there is nobody left to say goodbye to."""
        if self.closed is None:
            self._finish(ConnectionClosed(0, str(error), False, error))

    def statistics(self) -> EngineStatistics:
        """The engine's numbers now."""
        return self.engine.statistics()

    def liveness(self) -> LivenessStatistics:
        """How long the peer has been silent, and how often it was asked."""
        return self._watchdog.statistics()

    @property
    def last_received_at(self) -> float:
        """When the peer was last heard, on `clock`."""
        return self._watchdog.liveness.last_received_at

    # --- events -----------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        next_event = self.engine.next_event
        while self.closed is None and (event := next_event()) is not None:
            if isinstance(event, DatagramsReceived):
                if (handler := self.handlers.get(event.stream_id)) is not None:
                    handler.on_datagrams(event.datagrams, event.skip)
            else:
                self._dispatch_control(event)

    def _dispatch_control(self, event: Event) -> None:
        match event:
            case DataReceived(stream_id, data, end_stream):
                if (handler := self.handlers.get(stream_id)) is not None:
                    handler.on_data(data, end_stream=end_stream)
            case HeadersReceived(stream_id, headers, end_stream):
                if (handler := self._handler_for(stream_id, headers)) is not None:
                    handler.on_headers(headers, end_stream=end_stream)
            case StreamReset(stream_id, error_code, error):
                if error is not None:
                    self.count_violation(error)
                if (handler := self.handlers.get(stream_id)) is not None:
                    handler.on_reset(error_code, error)
            case StopSendingReceived(stream_id, error_code):
                if (handler := self.handlers.get(stream_id)) is not None:
                    handler.on_stop_sending(error_code)
            case SettingsReceived():
                self.settings = event
                if not self._settled.done():
                    self._settled.set_result(None)
            case HandshakeCompleted():
                self.handshake = event
                if self._on_request is None:
                    self._watchdog.watch()  # a server has nobody to reconnect to: its engine's idle timeout will do
                if not self._handshaken.done():
                    self._handshaken.set_result(None)
                self._keep_path_mtu()
            case GoAwayReceived():
                self.going_away = True
                for listener in list(self.on_going_away):
                    self._loop.call_soon(listener)
            case ProbeAcknowledged(size):
                if self._path_mtu is not None:
                    self._path_mtu.on_acknowledged(size)
            case ConnectionIdIssued(connection_id):
                if self._on_connection_id is not None:
                    self._on_connection_id(self, connection_id, True)
            case ConnectionIdRetired(connection_id):
                if self._on_connection_id is not None:
                    self._on_connection_id(self, connection_id, False)
            case ConnectionClosed():
                self._finish(event)

    def _handler_for(self, stream_id: int, headers: Headers) -> StreamHandler | None:
        handler = self.handlers.get(stream_id)
        if handler is None and self._on_request is not None:
            handler = self._on_request(RequestStream(self, stream_id), headers)
            self.handlers[stream_id] = handler
        return handler

    def _keep_path_mtu(self) -> None:
        if self._path is not None and self.http_version == 3:
            engine = cast("Engine", self.engine)
            self._path_mtu = PathMtuKeeper(engine, self._path, self.clock, self.flush, self._notify_packet_size)

    def _notify_packet_size(self) -> None:
        logger.info("packets to the peer now have at most %d bytes", self.statistics().max_udp_payload)
        for listener in list(self.on_packet_size):
            listener()

    def _notify_writable(self) -> None:
        for handler in list(self.handlers.values()):
            handler.on_writable()

    # --- the end ----------------------------------------------------------------------------------------------------

    def _finish(self, event: ConnectionClosed) -> None:
        if event.error is not None or not event.is_application:
            # What the engine still wants to say, its CONNECTION_CLOSE, goes out before we let go.
            self.last_words = self._output(self.clock.now())
            self._send(self.last_words)
        self.closed = event
        if isinstance(event.error, RemoteProtocolError):
            self.count_violation(event.error)
        self._watchdog.close()
        if self._path_mtu is not None:
            self._path_mtu.close()
        if self._timer is not None:
            self._timer.cancel()
        error = self.closed_error()
        self._over.set_result(None)
        for milestone in (self._handshaken, self._settled):
            if not milestone.done():
                milestone.set_exception(error)
                milestone.exception()  # retrieved: nobody may be waiting
        handlers, self.handlers = list(self.handlers.values()), {}
        for handler in handlers:
            handler.on_connection_closed(error)
        if self._on_closed is not None:
            self._on_closed(self)

    def count_violation(self, error: RemoteProtocolError) -> None:
        """The peer broke a rule, and its stream or the connection ends for it."""
        logger.warning("the peer broke a rule: %s", error)
        self.violations[error.clause] += 1

    def closed_error(self) -> MasqueError:
        """Why the connection is gone, as an error to raise. Only once `closed` is set."""
        assert self.closed is not None
        if isinstance(self.closed.error, MasqueError):
            return self.closed.error
        return ConnectionLost(f"the connection was closed{': ' + self.closed.reason if self.closed.reason else ''}")

    def _arm_timer(self, now: float) -> None:
        """Keep one timer, no later than the deadline: one too early costs a look, re-arming costs every flush."""
        if self._timer_at <= now + TIMER_RESOLUTION_S:
            return
        deadline = self.engine.next_timeout()
        if deadline is None or self._timer_at <= deadline + TIMER_RESOLUTION_S / 2:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = self._loop.call_at(deadline, self._on_timer), deadline
