"""What happened on an HTTP/2 connection, judged and told as `Event`s: the half of an engine that listens.

Translation of the library's events, the HTTP rules it leaves open, and the reason of every close; see `h3_listener`.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import h2.config
import h2.connection
import h2.events as events
import h2.exceptions
import h2.settings
from h2.settings import SettingCodes

from masque_client.engine import h3_rules
from masque_client.engine.datagram_queue import DatagramQueue
from masque_client.engine.h2_frames import FrameReader, GoAway
from masque_client.engine.h2_stream import H2Stream
from masque_client.engine.interface import (
    ConnectionClosed,
    DataReceived,
    EngineConfiguration,
    Event,
    GoAwayReceived,
    Headers,
    HeadersReceived,
    SettingsReceived,
    StopSendingReceived,
    StreamReset,
)
from masque_client.errors import ConnectionLost, MasqueError, RemoteProtocolError
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.h2_error_codes import H2ErrorCode, describe_http2, to_http2, to_http3

CONNECTION_WINDOW = 32 * 1024 * 1024
STREAM_WINDOW = 16 * 1024 * 1024
"""Flow-control windows in bytes (digest B-9). Nothing is buffered against them: they only need to outgrow the path."""
MAX_FRAME_BYTES = 64 * 1024
"""Largest frame we take. Frames cost by number; the default of 16,384 is eleven packets."""
MAX_HEADER_BYTES = 64 * 1024
MAX_REQUESTS = 128
"""Server: requests a client may have open at once."""
CLIENT_PREFACE_BYTES = 24

_HEADER_EVENTS = (
    events.RequestReceived,
    events.ResponseReceived,
    events.InformationalResponseReceived,
    events.TrailersReceived,
)


class H2Listener:
    """State and events of one HTTP/2 connection."""

    def __init__(self, configuration: EngineConfiguration, peer_certificate: bytes | None = None) -> None:
        self.configuration = configuration
        self._is_client = configuration.is_client
        self._peer_name = configuration.server_name if configuration.is_client else "the client"
        self._peer_certificate = peer_certificate
        # The library would close the connection over malformed headers; `h3_rules` ends the stream (RFC 9113 §8.1.1).
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=configuration.is_client,
                header_encoding=None,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
            )
        )
        self._h2.local_settings = h2.settings.Settings(
            client=configuration.is_client, initial_values=_settings_to_send(configuration)
        )
        self._h2.max_inbound_frame_size = MAX_FRAME_BYTES  # the library takes it from the settings we just replaced
        self._frames = FrameReader(MAX_FRAME_BYTES, 0 if configuration.is_client else CLIENT_PREFACE_BYTES)
        self._events: deque[Event] = deque()
        self._streams: dict[int, H2Stream] = {}
        self._settings: SettingsReceived | None = None
        self._goaway: int | None = None
        self._is_closed = False
        self._is_paused = False
        self._unsent_grease = b""
        self._too_large = self._expired = 0
        self._started_at = self._received_at = 0.0
        self._rtt_s: float | None = None
        self._wants_ping = False
        self._ping_sent_at: float | None = None

    # --- what happened on the connection ----------------------------------------------------------------------------

    def _receive_frames(self, data: bytes, now: float) -> None:
        try:
            found = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:  # the library has queued the GOAWAY for it
            code = int(getattr(error, "error_code", H2ErrorCode.PROTOCOL_ERROR))
            reason = str(error) or type(error).__name__
            self._finish(
                to_http3(code), reason, _broken_rule(reason, f"RFC 9113 §7 {describe_http2(code)}", to_http3(code))
            )
            return
        for event in found:
            if self._is_closed:
                return
            try:
                self._on_event(event, now)
            except RemoteProtocolError as error:
                self._punish(error, getattr(event, "stream_id", None))

    def _on_event(self, event: Any, now: float) -> None:
        if isinstance(event, events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self._on_data(event.stream_id, event.data, event.stream_ended is not None)
        elif isinstance(event, _HEADER_EVENTS):
            self._on_headers(event.stream_id, event.headers, getattr(event, "stream_ended", None) is not None)
        elif isinstance(event, events.StreamEnded):
            self._on_data(event.stream_id, b"", True)  # unless the frame has said so already
        elif isinstance(event, events.StreamReset):
            self._on_reset(event.stream_id, event.error_code)
        elif isinstance(event, events.RemoteSettingsChanged):
            self._on_settings()
        elif isinstance(event, events.SettingsAcknowledged):
            self._rtt_s = self._rtt_s or now - self._started_at
        elif isinstance(event, events.PingAckReceived) and self._ping_sent_at is not None:
            sample, self._ping_sent_at = now - self._ping_sent_at, None
            self._rtt_s = sample if self._rtt_s is None else 0.875 * self._rtt_s + 0.125 * sample  # RFC 6298 §2

    def _on_settings(self) -> None:
        value = self._h2.remote_settings.get(SettingCodes.ENABLE_CONNECT_PROTOCOL, 0)
        if self._settings is None:
            self._settings = SettingsReceived(extended_connect=value == 1, h3_datagram=False)
            self._events.append(self._settings)
        elif self._settings.extended_connect and not value:
            raise _broken_rule("extended CONNECT was offered and withdrawn", "RFC 8441 §3")

    def _on_goaway(self, frame: GoAway) -> None:
        if self._goaway is not None and frame.last_stream_id > self._goaway:
            raise _broken_rule(f"GOAWAY names {frame.last_stream_id}, more than before", "RFC 9113 §6.8")
        self._goaway = frame.last_stream_id
        self._events.append(GoAwayReceived(frame.last_stream_id + 1))
        if frame.error_code != H2ErrorCode.NO_ERROR:
            why = "".join(char for char in frame.debug_data[:200].decode("ascii", "replace") if char.isprintable())
            reason = f"{self._peer_name} closed the connection: {describe_http2(frame.error_code)}"
            error = ConnectionLost(f"{reason} ({why})" if why else reason)
            self._finish(to_http3(frame.error_code), str(error), error)
            return
        for stream in [stream for stream in self._streams.values() if stream.stream_id > frame.last_stream_id]:
            if self._is_client:  # not processed, so safe to ask again elsewhere (digest B-13)
                self._forget(stream)
                self._events.append(StreamReset(stream.stream_id, H3ErrorCode.H3_REQUEST_REJECTED))

    def _on_end(self) -> None:
        """The peer closed the byte stream; after a GOAWAY, or with nothing open, that is a clean goodbye."""
        if self._is_closed:
            return
        reason = f"{self._peer_name} closed the connection"
        is_clean = self._goaway is not None or (self._settings is not None and not self._streams)
        self._finish(H3ErrorCode.H3_NO_ERROR, reason, None if is_clean else ConnectionLost(reason))

    def _punish(self, error: RemoteProtocolError, stream_id: int | None = None) -> None:
        """Turn a broken rule into the wire's close: the one place that does."""
        if self._is_closed:
            return
        if error.connection_error or not stream_id:
            self._say_goaway(error.code, str(error))
            self._finish(error.code, str(error), error)
        elif stream_id in self._streams:
            self.reset_stream(stream_id, error.code)
            self._events.append(StreamReset(stream_id, error.code, error))
        else:  # a request too malformed to become one
            self._reset(stream_id, error.code)

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """See `HttpEngine.reset_stream`."""
        stream = self._streams.pop(stream_id, None)
        if stream is None or self._is_closed:
            return
        self._count_out(stream)
        self._reset(stream_id, error_code)

    def _say_goaway(self, error_code: int, reason: str) -> None:
        self._h2.close_connection(int(to_http2(error_code)), reason.encode()[:200] or None)

    def _reset(self, stream_id: int, error_code: int) -> None:
        try:
            self._h2.reset_stream(stream_id, int(to_http2(error_code)))
        except h2.exceptions.StreamClosedError:
            pass  # both halves have ended, and the library has forgotten it

    def _finish(self, code: int, reason: str, error: MasqueError | None, *, is_application: bool = True) -> None:
        self._is_closed = True
        for stream in list(self._streams.values()):
            self._forget(stream)
        self._events.append(ConnectionClosed(code, reason, is_application, error))

    # --- what happened on a stream ----------------------------------------------------------------------------------

    def _on_headers(self, stream_id: int, headers: Headers, end_stream: bool) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            if self._is_client:
                if stream_id % 2 == 0:
                    raise _broken_rule("the server opened a stream", "RFC 9113 §5.1.1")
                return  # of a request we have given up
            h3_rules.check_request(headers)
            is_tunnel = any(name == b":protocol" for name, _ in headers)
            stream = self._add_stream(stream_id, is_tunnel=is_tunnel, has_final_headers=True)
        elif stream.has_final_headers:
            if stream.is_tunnel and (stream.is_established or not self._is_client):
                raise _malformed("HEADERS inside a tunnel", "RFC 9113 §8.5")
        else:
            status = h3_rules.check_response(headers)
            stream.has_final_headers = status >= 200
            stream.is_established = 200 <= status < 300
            if end_stream and status < 200:
                raise _malformed("the response ended before its headers", "RFC 9113 §8.1")
        self._events.append(HeadersReceived(stream_id, tuple((bytes(n), bytes(v)) for n, v in headers), end_stream))
        if end_stream:
            self._close_receiving(stream)

    def _on_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        stream = self._streams.get(stream_id)
        if stream is None or not stream.can_receive:
            return  # content before the response never gets here: the library closes the connection
        last = self._events[-1] if self._events else None
        if isinstance(last, DataReceived) and last.stream_id == stream_id and not last.end_stream:
            self._events[-1] = DataReceived(stream_id, last.data + data, end_stream)  # one batch for the TUN device
        else:
            self._events.append(DataReceived(stream_id, data, end_stream))
        if end_stream:
            self._close_receiving(stream)

    def _on_reset(self, stream_id: int, error_code: int) -> None:
        """RST_STREAM ends both halves. After the peer's END_STREAM it means that it reads no more (RFC 9113 §8.1)."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        self._forget(stream)
        kind = StreamReset if stream.can_receive else StopSendingReceived
        self._events.append(kind(stream_id, to_http3(error_code)))

    # --- streams and their queues -----------------------------------------------------------------------------------

    def _add_stream(self, stream_id: int, *, is_tunnel: bool, has_final_headers: bool) -> H2Stream:
        queue = DatagramQueue(self.configuration.datagram_queue_bytes, self.configuration.datagram_queue_s)
        stream = H2Stream(stream_id, queue, is_tunnel=is_tunnel, has_final_headers=has_final_headers)
        self._streams[stream_id] = stream
        return stream

    def _close_sending(self, stream: H2Stream) -> None:
        stream.can_send = stream.is_ending = False
        if not stream.can_receive:
            self._forget(stream)

    def _close_receiving(self, stream: H2Stream) -> None:
        stream.can_receive = False
        if not stream.can_send:
            self._forget(stream)

    def _forget(self, stream: H2Stream) -> None:
        if self._streams.pop(stream.stream_id, None) is not None:
            self._count_out(stream)

    def _count_out(self, stream: H2Stream) -> None:
        self._too_large += stream.datagrams.too_large
        self._expired += stream.datagrams.expired

    def _expire(self, now: float) -> None:
        for stream in self._streams.values():
            stream.datagrams.expire(now)

    def _waiting_bytes(self) -> int:
        return sum(stream.datagrams.waiting_bytes for stream in self._streams.values())


def _settings_to_send(configuration: EngineConfiguration) -> dict[SettingCodes, int]:
    settings = {
        SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
        SettingCodes.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
        SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_BYTES,
    }
    if configuration.is_client:
        settings[SettingCodes.ENABLE_PUSH] = 0
    else:
        settings[SettingCodes.MAX_CONCURRENT_STREAMS] = MAX_REQUESTS
        settings[SettingCodes.ENABLE_CONNECT_PROTOCOL] = int(configuration.extended_connect)
    return settings


def _broken_rule(message: str, clause: str, code: int = H3ErrorCode.H3_GENERAL_PROTOCOL_ERROR) -> RemoteProtocolError:
    return RemoteProtocolError(message, clause=clause, code=code, connection_error=True)


def _malformed(message: str, clause: str) -> RemoteProtocolError:
    return RemoteProtocolError(message, clause=clause, code=H3ErrorCode.H3_MESSAGE_ERROR)
