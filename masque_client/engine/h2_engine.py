"""HTTP/2 as an engine: the h2 library behind the interface. This file is the half that acts, `h2_listener` the other.

For networks that block UDP. Extended CONNECT as RFC 8441, HTTP Datagrams as DATAGRAM capsules on the request stream
(RFC 9297 §3.5): outbound ones are framed here, inbound ones travel up as stream content, where sessions parse capsules
anyway. Over TCP the inner and the outer loss recovery get into each other's way, so HTTP/3 is preferred wherever it
works (RFC 9298 §6, RFC 9484 §10).

Flow control never stalls us: credit goes back the moment bytes are taken in, whatever they turn out to be (RFC 9297
§3.2). Towards the peer nothing waits without bound: see `h2_stream`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import h2.exceptions
from hpack import HeaderTuple, NeverIndexedHeaderTuple

from masque_client.engine import grease, h3_rules
from masque_client.engine.h2_frames import GoAway, encode_setting
from masque_client.engine.h2_listener import CONNECTION_WINDOW, MAX_FRAME_BYTES, H2Listener
from masque_client.engine.h2_stream import MAX_CONTENT_BYTES, H2Stream
from masque_client.engine.interface import (
    Address,
    EngineStatistics,
    Event,
    HandshakeCompleted,
    Header,
    Headers,
    StreamReset,
)
from masque_client.errors import ConnectionLost, LocalProtocolError, ProxyRefused, RemoteProtocolError
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.headers import may_be_secret
from masque_client.protocol.mtu import MAX_HTTP_DATAGRAM_IN_CAPSULE
from masque_client.protocol.packing import Split


class H2Engine(H2Listener):
    """See `StreamEngine`. The TLS connection below is up and verified: `connect` completes the handshake at once.

    Args:
        peer_certificate: the peer's leaf in DER, for `HandshakeCompleted`.
    """

    name = "h2"

    # --- input ------------------------------------------------------------------------------------------------------

    def connect(self, address: Address, now: float) -> None:
        """See `HttpEngine.connect`."""
        self._started_at = self._received_at = now
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - self._h2.inbound_flow_control_window)
        if self.configuration.grease:
            self._unsent_grease = encode_setting(*grease.http2_setting())  # the library cuts identifiers to eight bits
        self._events.append(HandshakeCompleted(self._peer_certificate))

    def receive_data(self, data: bytes, now: float) -> None:
        """See `StreamEngine.receive_data`."""
        self._received_at = now
        try:
            for piece in self._frames.receive_data(data):
                if self._is_closed:
                    return
                if isinstance(piece, GoAway):
                    self._on_goaway(piece)
                else:
                    self._receive_frames(piece, now)
        except RemoteProtocolError as error:
            self._punish(error)
        if not data:
            self._on_end()

    def handle_timeout(self, now: float) -> None:
        """See `HttpEngine.handle_timeout`."""
        self._expire(now)
        if not self._is_closed and now >= self._received_at + self.configuration.idle_timeout_s:
            reason = f"nothing has been heard from {self._peer_name} for the idle timeout"
            self._finish(H3ErrorCode.H3_NO_ERROR, reason, ConnectionLost(reason), is_application=False)

    # --- commands ---------------------------------------------------------------------------------------------------

    def open_request(self, headers: Headers) -> int:
        """See `HttpEngine.open_request`."""
        if self._is_closed or self._settings is None:
            raise LocalProtocolError("requests wait for the peer's SETTINGS (RFC 8441 §3)")
        is_tunnel = any(name == b":protocol" for name, _ in headers)
        if is_tunnel and not self._settings.extended_connect:
            raise LocalProtocolError("the peer's SETTINGS do not allow extended CONNECT (RFC 8441 §3)")
        if self._goaway is not None:
            raise LocalProtocolError("the peer sent GOAWAY: no new requests (RFC 9113 §6.8)")
        h3_rules.check_size(headers, self._h2.remote_settings.max_header_list_size, self._peer_name)
        stream_id = self._h2.get_next_available_stream_id()
        try:
            self._h2.send_headers(stream_id, [_with_secrets_marked(header) for header in headers])
        except h2.exceptions.TooManyStreamsError as error:
            raise ProxyRefused(f"{self._peer_name} allows no more tunnels on this connection") from error
        self._add_stream(stream_id, is_tunnel=is_tunnel, has_final_headers=False)
        return stream_id

    def send_headers(self, stream_id: int, headers: Headers, *, end_stream: bool = False) -> None:
        """See `HttpEngine.send_headers`."""
        stream = self._streams.get(stream_id)
        if stream is None or self._is_closed or not stream.can_send:
            return
        self._h2.send_headers(stream_id, list(headers), end_stream=end_stream)
        if end_stream:
            self._close_sending(stream)

    def send_data(self, stream_id: int, data: bytes, *, end_stream: bool = False) -> None:
        """See `HttpEngine.send_data`."""
        stream = self._streams.get(stream_id)
        if stream is None or self._is_closed or not stream.can_send or stream.is_ending:
            return
        stream.content += data
        if len(stream.content) > MAX_CONTENT_BYTES + MAX_FRAME_BYTES:
            self.reset_stream(stream_id, H3ErrorCode.H3_EXCESSIVE_LOAD)
            self._events.append(StreamReset(stream_id, H3ErrorCode.H3_EXCESSIVE_LOAD))
        elif end_stream:
            stream.end()

    def send_datagrams(
        self,
        stream_id: int,
        payloads: Sequence[bytes],
        now: float,
        *,
        prefix: bytes = b"",
        split: Split | None = None,
    ) -> int:
        """See `HttpEngine.send_datagrams`."""
        stream = self._streams.get(stream_id)
        if stream is None or self._is_closed or not stream.can_send or stream.is_ending:
            return len(payloads)
        if self.is_datagram_queue_full:
            return 0
        put = stream.datagrams.put if split is None else partial(stream.datagrams.put_split, split)
        return put(prefix, payloads, MAX_HTTP_DATAGRAM_IN_CAPSULE - len(prefix), now)

    def datagram_capacity(self, stream_id: int) -> int:
        """See `HttpEngine.datagram_capacity`."""
        stream = self._streams.get(stream_id)
        return MAX_HTTP_DATAGRAM_IN_CAPSULE if stream is not None and stream.can_send else 0

    @property
    def is_datagram_queue_full(self) -> bool:
        """See `HttpEngine.is_datagram_queue_full`. One bound for all streams: the peer decides which of them waits."""
        return self._waiting_bytes() >= self.configuration.datagram_queue_bytes

    def ping(self) -> None:
        """See `HttpEngine.ping`. It leaves with the next `data_to_send`, unless one is already on its way."""
        self._wants_ping = True

    def close(self, error_code: int = H3ErrorCode.H3_NO_ERROR, reason: str = "") -> None:
        """See `HttpEngine.close`. `ConnectionClosed` follows at once."""
        if not self._is_closed:
            self._say_goaway(error_code, reason)
            self._finish(error_code, reason, None)

    def pause_sending(self) -> None:
        """See `StreamEngine.pause_sending`."""
        self._is_paused = True

    def resume_sending(self) -> None:
        """See `StreamEngine.resume_sending`."""
        self._is_paused = False

    def waiting_content(self, stream_id: int) -> int:
        """Bytes of stream content that windows or a paused byte stream hold back. Who has much should wait for 0."""
        stream = self._streams.get(stream_id)
        return len(stream.content) if stream is not None else 0

    # --- output -----------------------------------------------------------------------------------------------------

    def next_event(self) -> Event | None:
        """See `HttpEngine.next_event`."""
        return self._events.popleft() if self._events else None

    def data_to_send(self, now: float) -> bytes:
        """See `StreamEngine.data_to_send`."""
        if not self._is_closed:
            self._expire(now)
            if not self._is_paused:
                for stream in [stream for stream in self._streams.values() if stream.has_output]:
                    self._send_stream(stream)
            if self._wants_ping and self._ping_sent_at is None:
                self._wants_ping, self._ping_sent_at = False, now
                self._h2.ping(bytes(8))
        data, self._unsent_grease = self._h2.data_to_send() + self._unsent_grease, b""
        return data

    def _send_stream(self, stream: H2Stream) -> None:
        """Frame as much as both windows let go."""
        window = self._h2.local_flow_control_window(stream.stream_id)
        frame_bytes = min(self._h2.max_outbound_frame_size, MAX_FRAME_BYTES)
        while window > 0 and (piece := stream.take(min(window, frame_bytes))):
            self._h2.send_data(stream.stream_id, piece)
            window -= len(piece)
        stream.datagrams.settle()
        if stream.is_ending and not stream.content:
            self._h2.end_stream(stream.stream_id)
            self._close_sending(stream)

    def next_timeout(self) -> float | None:
        """See `HttpEngine.next_timeout`."""
        if self._is_closed:
            return None
        timeout = self._received_at + self.configuration.idle_timeout_s
        for stream in self._streams.values():
            if (expiry := stream.datagrams.next_expiry()) is not None and expiry < timeout:
                timeout = expiry
        return timeout

    def statistics(self) -> EngineStatistics:
        """See `HttpEngine.statistics`."""
        queues = [stream.datagrams for stream in self._streams.values()]
        return EngineStatistics(
            rtt_s=self._rtt_s,
            packets_sent=0,
            packets_lost=0,
            congestion_window=self._h2.outbound_flow_control_window,
            bytes_in_flight=self._waiting_bytes(),
            max_udp_payload=0,
            datagrams_too_large=self._too_large + sum(queue.too_large for queue in queues),
            datagrams_expired=self._expired + sum(queue.expired for queue in queues),
            datagrams_stray=0,
        )


def _with_secrets_marked(header: Header) -> HeaderTuple:
    """What may be a credential is never indexed, here or further on (RFC 7541 §7.1.3)."""
    return (NeverIndexedHeaderTuple if may_be_secret(header[0]) else HeaderTuple)(*header)
