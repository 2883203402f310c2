"""What happened on an HTTP/3 connection, judged and told as `Event`s: the half of an engine that listens.

Translation of a library's events, the datagram rules D-1 to D-7 (RFC 9297 §2), the HTTP/3 rules the libraries leave
open, and the reason of every close are decided here, once for both libraries.
"""

from __future__ import annotations

import abc
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

from masque_client.engine import h3_rules
from masque_client.engine.closing import CRYPTO_ERROR, CRYPTO_FRAME, NO_APPLICATION_PROTOCOL, Closing, Origin, explain
from masque_client.engine.datagram_queue import DatagramQueue
from masque_client.engine.h3_rules import ControlStreamWatcher, RequestStream
from masque_client.engine.interface import (
    Address,
    ConnectionClosed,
    ConnectionIdIssued,
    ConnectionIdRetired,
    DatagramsReceived,
    DataReceived,
    EngineConfiguration,
    EngineName,
    Event,
    GoAwayReceived,
    HandshakeCompleted,
    Headers,
    HeadersReceived,
    ReceivedBuffer,
    SettingsReceived,
    StopSendingReceived,
    StreamReset,
)
from masque_client.engine.library import H3Layer, QuicConnection
from masque_client.engine.trust import pin_mismatch
from masque_client.errors import MasqueError, RemoteProtocolError
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.h3_datagram import encode_quarter_stream_id, parse_h3_datagram

CONNECTION_ID_BYTES = 8
"""Length of the connection ids we issue; a listener finds connections by them."""
CONNECTION_WINDOW = 32 * 1024 * 1024
STREAM_WINDOW = 16 * 1024 * 1024
"""Flow-control windows in bytes: only capsules ride on streams, so they must never be what limits."""
MAX_REQUESTS = 128
"""No library allows more requests than this at first; each that closes allows one more (RFC 9000 §4.6)."""
ALPN = "h3"


class DatagramRun(NamedTuple):
    """Consecutive HTTP Datagrams of one stream: varints are prefix-free, so equal first bytes mean the same stream."""

    prefix: bytes
    append: Callable[[bytes], None]


class H3Listener(abc.ABC):
    """State and events of one HTTP/3 connection. A library's engine hands its events to the `_on_…` methods."""

    name: EngineName

    def __init__(self, configuration: EngineConfiguration) -> None:
        self.configuration = configuration
        self._is_client = configuration.is_client
        self._peer_name = configuration.server_name if configuration.is_client else "the client"
        self._events: deque[Event] = deque()
        self._streams: dict[int, RequestStream] = {}
        self._queue = DatagramQueue(configuration.datagram_queue_bytes, configuration.datagram_queue_s)
        self._control = ControlStreamWatcher()
        self._h3: H3Layer | None = None
        self._settings: SettingsReceived | None = None
        self._carries_capsules = False  # once the peer has said that it takes no DATAGRAM frames (digest D-14)
        self._goaway: int | None = None
        self._is_established = False
        self._is_closed = False
        self._datagrams_stray = 0
        self._requests_seen = 0
        self._pings = 0
        self._frame_at_last_send = (0, 0)

    # --- what a subclass provides -----------------------------------------------------------------------------------

    _quic: QuicConnection
    _library_error: ClassVar[type[Exception]]
    _datagram_event: ClassVar[Any]
    """The library's event that a DATAGRAM frame arrived."""

    @abc.abstractmethod
    def _create_h3(self) -> H3Layer:
        """Make the HTTP/3 layer, which sends our SETTINGS."""

    @abc.abstractmethod
    def _receive_quic(self, batch: Sequence[ReceivedBuffer], now: float) -> list[bytes] | None:
        """Feed the library; the contents of DATAGRAM frames if it can say that nothing else happened, else None."""

    @abc.abstractmethod
    def _send_quic(self, now: float) -> list[tuple[bytes, Address]]:
        """Let the library send: first what it has, then from the front of `_queue.items` what may leave."""

    @abc.abstractmethod
    def _closing(self) -> Closing | None:
        """Why the library is closing or closed, as soon as it knows."""

    @abc.abstractmethod
    def _peer_certificate(self) -> bytes | None:
        """The peer's leaf certificate in DER."""

    @abc.abstractmethod
    def _peer_max_datagram_frame(self) -> int:
        """The peer's max_datagram_frame_size (RFC 9221 §3), 0 when it did not send one."""

    @abc.abstractmethod
    def _max_frame(self) -> tuple[int, int]:
        """`(UDP payload size, length of the peer's connection id)` of packets built now."""

    @abc.abstractmethod
    def _refuse_peer(self) -> tuple[int, str] | None:
        """Server with mutual TLS: the TLS alert and reason to refuse the client's certificate with, or None."""

    @abc.abstractmethod
    def _may_open_request(self) -> bool:
        """Does the peer's MAX_STREAMS allow one more request now?"""

    # --- the library speaks -----------------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Translate what the library has to say; runs of datagrams of one stream become one event."""
        next_event, datagram_event = self._quic.next_event, self._datagram_event
        run: DatagramRun | None = None
        while (event := next_event()) is not None:
            if self._is_closed:
                continue
            try:
                if type(event) is not datagram_event:
                    run = None
                    self._on_quic_event(event)
                elif run is not None and event.data.startswith(run.prefix):
                    run.append(event.data)
                else:
                    run = self._on_datagram(event.data)
            except RemoteProtocolError as error:
                self._punish(error)
        if not self._is_closed and (closing := self._closing()) is not None:
            self._on_closing(closing)

    @abc.abstractmethod
    def _on_quic_event(self, event: Any) -> None:
        """Hand one of the library's other events to the `_on_…` method for it."""

    # --- what happened on the connection ----------------------------------------------------------------------------

    def _on_protocol_negotiated(self, alpn: str | None) -> None:
        if alpn != ALPN:
            reason = "no common ALPN protocol"
            self._refuse_handshake(NO_APPLICATION_PROTOCOL, reason)
            return
        self._h3 = self._create_h3()

    def _on_handshake_completed(self) -> None:
        certificate = self._peer_certificate()
        refusal = self._refuse_peer()
        if refusal is not None:
            self._refuse_handshake(*refusal)
            return
        pin = self.configuration.tls.pin
        if self._is_client and pin is not None and certificate is not None:
            error = pin_mismatch(certificate, pin, self._peer_name)
            if error is not None:
                self._close(CRYPTO_ERROR + 42, "public key pin mismatch", error, is_application=False)
                return
        self._is_established = True
        self._events.append(HandshakeCompleted(certificate))

    def _refuse_handshake(self, alert: int, reason: str) -> None:
        self._close_quic(CRYPTO_ERROR + alert, CRYPTO_FRAME, reason)
        self._on_closing(Closing(Origin.LOCAL, CRYPTO_ERROR + alert, CRYPTO_FRAME, reason))

    def _on_connection_id(self, connection_id: bytes, *, issued: bool) -> None:
        if not self._is_client:
            self._events.append((ConnectionIdIssued if issued else ConnectionIdRetired)(connection_id))

    def _on_closing(self, closing: Closing) -> None:
        error = explain(
            closing,
            peer=self._peer_name,
            is_client=self._is_client,
            is_established=self._is_established,
            certificate=self._peer_certificate(),
        )
        self._finish(ConnectionClosed(closing.error_code, closing.reason, closing.is_application, error))

    def _punish(self, error: RemoteProtocolError, stream_id: int | None = None) -> None:
        """Turn a broken rule into the wire's close: the one place that does."""
        if error.connection_error or stream_id is None:
            self._close(error.code, str(error), error)
        elif stream_id in self._streams:
            self.reset_stream(stream_id, error.code)
            self._events.append(StreamReset(stream_id, error.code, error))
        else:  # a request too malformed to become one
            self._abandon(stream_id, error.code)

    # --- what happened on a stream ----------------------------------------------------------------------------------

    def _through_h3(self, event: Any) -> Sequence[Any]:
        """Show a stream event to the library's HTTP/3 layer, which may close the connection over it."""
        if self._is_client and event.stream_id % 4 == 1:
            raise h3_rules.server_opened_stream()
        if self._h3 is None:
            return ()
        try:
            return self._h3.handle_event(event)
        except ValueError as error:  # qh3 lets the parse error of a cut control frame escape
            raise h3_rules.frame_error(str(error)) from error
        except self._library_error:  # qh3: the connection ended later in the same batch, so we cannot answer
            return ()

    def _on_stream_data(self, stream_id: int, event: Any) -> None:
        """Take stream data through the library's HTTP/3 layer and translate what it finds."""
        found = self._through_h3(event)
        if self._closing() is not None:
            return
        if stream_id % 4 >= 2:
            self._on_control_data(stream_id, event.data)
        try:
            for http_event in found:
                if getattr(http_event, "push_id", None) is not None:
                    raise h3_rules.push_received()
                self._on_http_event(http_event)
            if event.end_stream:
                self._on_data(stream_id, b"", True)  # unless the library has said so already
        except RemoteProtocolError as error:
            self._punish(error, stream_id)

    @abc.abstractmethod
    def _on_http_event(self, event: Any) -> None:
        """Hand one event of the library's HTTP/3 layer to the `_on_…` method for it."""

    def _on_malformed_message(self, stream_id: int, reason: str) -> None:
        """The library's HTTP/3 layer found a message malformed: the stream ends, not the connection (H-19)."""
        error = RemoteProtocolError(reason, clause="RFC 9114 §4.1.2", code=H3ErrorCode.H3_MESSAGE_ERROR)
        self._punish(error, stream_id)

    def _on_control_data(self, stream_id: int, data: bytes) -> None:
        if self._settings is None and self._h3 is not None and (settings := self._h3.received_settings) is not None:
            h3_datagram = bool(
                self.configuration.h3_datagram
                and settings.get(h3_rules.H3_DATAGRAM) == 1
                and self._peer_max_datagram_frame()
            )
            extended_connect = settings.get(h3_rules.ENABLE_CONNECT_PROTOCOL) == 1
            self._settings = SettingsReceived(extended_connect, h3_datagram)
            self._carries_capsules = not h3_datagram
            self._events.append(self._settings)
        for identifier in self._control.receive(stream_id, data):
            h3_rules.check_goaway(identifier, self._goaway, is_client=self._is_client)
            self._goaway = identifier
            self._events.append(GoAwayReceived(identifier))

    def _on_headers(self, stream_id: int, headers: Headers, end_stream: bool) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            if self._is_client:
                return  # of a request we have reset
            h3_rules.check_request(headers)
            is_tunnel = any(name == b":protocol" for name, _ in headers)
            stream = RequestStream(stream_id, encode_quarter_stream_id(stream_id), is_tunnel, has_final_headers=True)
            self._streams[stream_id] = stream
            self._requests_seen += 1
        elif stream.has_final_headers:
            if stream.is_tunnel and (stream.is_established or not self._is_client):
                raise h3_rules.trailers_in_tunnel()
        else:
            status = h3_rules.check_response(headers)
            stream.has_final_headers = status >= 200
            stream.is_established = 200 <= status < 300
            if end_stream and status < 200:
                raise h3_rules.incomplete_response()
        self._events.append(HeadersReceived(stream_id, tuple(headers), end_stream))
        if end_stream:
            self._close_receiving(stream)

    def _on_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        stream = self._streams.get(stream_id)
        if stream is None or not stream.can_receive:
            return
        if not stream.has_final_headers:
            raise h3_rules.incomplete_response()
        self._events.append(DataReceived(stream_id, data, end_stream))
        if end_stream:
            self._close_receiving(stream)

    def _on_stream_reset(self, event: Any, stream_id: int, error_code: int) -> None:
        self._through_h3(event)
        stream = self._streams.get(stream_id)
        if stream is not None and stream.can_receive:
            self._events.append(StreamReset(stream_id, error_code))
            self._close_receiving(stream)

    def _on_stop_sending(self, event: Any, stream_id: int, error_code: int) -> None:
        """The library has answered with RESET_STREAM; the response may still be on its way (RFC 9114 §4.1, H-31)."""
        self._through_h3(event)
        stream = self._streams.get(stream_id)
        if stream is not None and stream.can_send:
            self._events.append(StopSendingReceived(stream_id, error_code))
            self._close_sending(stream)

    def _on_datagrams(self, contents: list[bytes]) -> None:
        """Judge HTTP Datagrams in a row."""
        run: DatagramRun | None = None
        for data in contents:
            if run is not None and data.startswith(run.prefix):
                run.append(data)
            elif not self._is_closed:
                try:
                    run = self._on_datagram(data)
                except RemoteProtocolError as error:
                    self._punish(error)

    def _on_datagram(self, data: bytes) -> DatagramRun | None:
        """Judge one HTTP Datagram; the returned run takes further ones that start with the same bytes."""
        stream_id, offset = parse_h3_datagram(data)
        stream = self._streams.get(stream_id)
        if stream is None or not stream.can_receive:
            if not self._is_client and stream_id // 4 >= MAX_REQUESTS + self._requests_seen:
                raise h3_rules.datagram_beyond_limit(stream_id)
            self._datagrams_stray += 1
            return None
        if not stream.is_tunnel:
            self._punish(h3_rules.datagram_without_meaning(), stream_id)
            return None
        datagrams = [data]
        self._events.append(DatagramsReceived(stream_id, datagrams, offset))
        return DatagramRun(data[:offset], datagrams.append)

    def _close_sending(self, stream: RequestStream) -> None:
        stream.can_send = False
        if not stream.can_receive:
            self._streams.pop(stream.stream_id, None)

    def _close_receiving(self, stream: RequestStream) -> None:
        stream.can_receive = False
        if not stream.can_send:
            self._streams.pop(stream.stream_id, None)

    # --- ends -------------------------------------------------------------------------------------------------------

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """See `Engine.reset_stream`."""
        stream = self._streams.get(stream_id)
        if stream is None or self._is_closed:
            return
        del self._streams[stream_id]
        self._abandon(stream_id, error_code, sending=stream.can_send, receiving=stream.can_receive)

    def _abandon(self, stream_id: int, error_code: int, *, sending: bool = True, receiving: bool = True) -> None:
        quic = self._quic
        for wanted, abandon in ((sending, quic.reset_stream), (receiving, quic.stop_stream)):
            if wanted:
                try:
                    abandon(stream_id, error_code)
                except ValueError:
                    pass  # the library has already forgotten that half: everything on it was acknowledged

    def _close(self, error_code: int, reason: str, error: MasqueError | None, *, is_application: bool = True) -> None:
        if self._is_closed:
            return
        self._close_quic(error_code, None if is_application else CRYPTO_FRAME, reason)
        self._finish(ConnectionClosed(error_code, reason, is_application, error))

    def _close_quic(self, error_code: int, frame_type: int | None, reason: str) -> None:
        self._quic.close(error_code, frame_type, reason)

    def _finish(self, event: ConnectionClosed) -> None:
        self._is_closed = True
        self._streams.clear()
        self._queue.items.clear()
        self._queue.settle()
        self._events.append(event)
