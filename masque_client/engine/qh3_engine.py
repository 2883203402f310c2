"""The fast engine: HTTP/3 over qh3, a fork of aioquic with a Rust core. With `qh3_quic.py` the only importer of qh3.

What qh3 2.1 does differently from what its interface suggests, found by running it:

- DATAGRAM frames ignore the congestion window and the pacer: everything handed over leaves at once. So nothing is
  handed over that the window does not allow (RFC 9221 §5.4); our own `Pacer` spreads it.
- A DATAGRAM that does not fit a packet makes every later `datagrams_to_send` fail; sizes are checked before.
- Initials are padded to 1280 bytes whatever the packet size. We pad the UDP payload up to it, behind the last packet,
  which receivers discard (RFC 9000 §12.2), so that the handshake proves the path carries full packets.
- A lost first flight makes it fall to 1200-byte packets for good; we repeat that flight ourselves (`FirstFlight`).
- Path MTU discovery stays off: it would change the packet size behind our back; sizes are chosen above us. The one way
  to change them on a living connection is the peer's max_udp_payload_size, told again: down, and never up again.
- It pads no packets after the handshake. A path probe is a PING and, in the same packet, an HTTP Datagram on a Context
  ID that nobody registered, which receivers drop (RFC 9298 §4, RFC 9484 §5). It repeats no PING that was lost, so the
  acknowledgement of the PING is the packet's.
- Without a max_datagram_frame_size a client advertises 65536: 0 has to be said to say nothing.
- A client follows a server to version 2 only if the server's first packet already is of it (see `_follow_version`).
- Its server cannot ask for client certificates, and miscounts the anti-amplification limit (see `_create_core`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qh3.h3 import connection as h3_connection
from qh3.h3 import events as h3_events
from qh3.quic import events as quic_events
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection, QuicConnectionError

from masque_client.engine import grease, h3_rules, trust
from masque_client.engine.closing import Closing
from masque_client.engine.first_flight import AmplificationLimit, FirstFlight
from masque_client.engine.h3_engine import H3Engine
from masque_client.engine.h3_listener import ALPN, CONNECTION_ID_BYTES, CONNECTION_WINDOW, STREAM_WINDOW
from masque_client.engine.interface import (
    Address,
    CongestionControl,
    ConnectionClosed,
    EngineConfiguration,
    EngineName,
    EngineStatistics,
    Headers,
    ProbeAcknowledged,
    ReceivedBuffer,
)
from masque_client.engine.library import choose_congestion_control
from masque_client.engine.pacing import Pacer, PathWindow
from masque_client.engine.qh3_quic import OpenQuicConnection
from masque_client.errors import ConfigurationError, ConnectionLost, RemoteProtocolError
from masque_client.protocol.qpack import encode_field_section
from masque_client.protocol.quic_invariants import parse_long_header

_CONGESTION_CONTROL = {CongestionControl.AUTO: None}
"""The core has one algorithm, and no way to choose another."""
_PING_FRAME = 1
_PROBE_CONTEXT_ID, _PROBE_CONTEXT_ID_OF_SERVER = b"\x3e", b"\x3f"
"""Context IDs of one byte that each side may allocate (RFC 9298 §4: even for clients) and that we never register."""


class _H3(h3_connection.H3Connection):
    """qh3's HTTP/3 layer with our SETTINGS, no push, and stream errors that stay on their stream."""

    def __init__(self, quic: QuicConnection, engine: Qh3Engine) -> None:
        self._engine = engine
        super().__init__(quic)

    def _init_connection(self) -> None:
        self._max_push_id = None
        # As our SETTINGS say; qh3's takes a dynamic table all the same.
        self._decoder = type(self._decoder)(0, 0, max_field_section_size=self._max_field_section_size)
        super()._init_connection()
        if self._engine.configuration.grease and self._local_control_stream_id is not None:
            grease.begin_http3(self._quic, self._local_control_stream_id)

    def _encode_headers(self, stream_id: int, headers: Headers) -> bytes:
        return encode_field_section(headers)

    def _get_local_settings(self) -> dict[int, int]:
        return h3_rules.settings_to_send(self._engine.configuration)

    def _validate_settings(self, settings: dict[int, int]) -> None:
        try:
            h3_rules.check_settings(settings)
        except RemoteProtocolError as error:
            raise h3_connection.SettingsError(str(error)) from error

    def _receive_request_or_push_data(
        self, stream: h3_connection.H3Stream, data: bytes, stream_ended: bool
    ) -> list[h3_events.H3Event]:
        try:
            events = super()._receive_request_or_push_data(stream, data, stream_ended)
        except h3_connection.MessageError as error:
            self._engine.on_malformed_message(stream.stream_id, error.reason_phrase)
            stream.buffer.clear()
            return []
        if stream_ended and not stream.blocked and (stream.buffer or stream.frame_size is not None):
            raise h3_connection.FrameError("a frame is cut by the end of the stream")  # qh3 passes it on as complete
        return events


class Qh3Engine(H3Engine):
    """One HTTP/3 connection over qh3. Make it with `engine.create_client_engine` or `create_server_engine`."""

    name = EngineName.QH3
    _library_error = QuicConnectionError
    _datagram_event = quic_events.DatagramFrameReceived

    def __init__(
        self, configuration: EngineConfiguration, *, original_destination_connection_id: bytes | None = None
    ) -> None:
        super().__init__(configuration)
        self._connection = self._quic = OpenQuicConnection(
            configuration=_quic_configuration(configuration),
            original_destination_connection_id=original_destination_connection_id,
        )
        self._pacer = Pacer(configuration.max_udp_payload)
        self._path = PathWindow(configuration.max_udp_payload)
        self._now = 0.0
        self._ready: list[tuple[bytes, Address]] = []
        self._first_flight: FirstFlight | None = None
        self._starts = 0
        self._is_past_handshake = False
        self._amplification = AmplificationLimit()
        self._largest_received = 0
        self._probes: dict[int, int] = {}
        self._on_connection_id(self._connection.host_cid, issued=True)

    # --- the road ---------------------------------------------------------------------------------------------------

    def connect(self, address: Address, now: float) -> None:
        """See `Engine.connect`."""
        self._now = now
        self._connection.connect(address, now)

    def _receive_quic(self, batch: Sequence[ReceivedBuffer], now: float) -> list[bytes] | None:
        self._now = now
        if not self._is_established:
            self._amplification.received += sum(len(data) for data, _, _ in batch)
            self._largest_received = max((min(len(data), size) for data, size, _ in batch), default=0)
        try:
            contents = self._connection.receive(batch, now)
        except QuicConnectionError as error:
            self._fail(error)
            return None
        for data, size, _ in batch:
            if len(data) <= size:
                self._path.lone_packets += 1
        return contents

    def _send_quic(self, now: float) -> list[tuple[bytes, Address]]:
        quic = self._connection
        if not (self._is_past_handshake or quic.is_started):
            return []
        self._now = now
        transmits, self._ready = self._ready, []
        queue, is_handed_over = self._queue, False
        try:
            if queue.items:
                room, spare = self._room(now)
                if min(queue.waiting_bytes, room) < spare / 2:
                    self._hand_over(room)  # early, so that an acknowledgement that is due may ride along
                    is_handed_over = True
            transmits += quic.datagrams_to_send(now)
            if queue.items and not is_handed_over:  # the window is short: whatever else was due has gone first
                self._hand_over(self._room(now)[0])
                transmits += quic.datagrams_to_send(now)
        except QuicConnectionError as error:
            self._fail(error)
        if not self._is_past_handshake:
            transmits = self._send_handshake(transmits)
        self._path.sent_packets += len(transmits)
        return transmits

    def _room(self, now: float) -> tuple[int, int]:
        """Bytes that may join those in flight, and bytes that qh3 would let; the pacer learns the rate on the way."""
        window, in_flight, smoothed, latest = self._connection.road
        self._pacer.update(window, smoothed, now)
        return self._path.limit(window, in_flight, latest, now) - in_flight, window - in_flight

    def _hand_over(self, room: int) -> None:
        """Give qh3 the datagrams that congestion window, path and pacer let leave now."""
        sent = self._connection.hand_over(self._queue.items, self._queue.waiting_bytes, room, self._pacer.tokens)
        self._pacer.tokens -= sent
        self._path.sent_bytes += sent

    @property
    def _awaits_answer(self) -> bool:
        return not (self._is_past_handshake or self._is_closed) and self._connection.is_unanswered

    def handle_timeout(self, now: float) -> None:
        """See `Engine.handle_timeout`."""
        flight = self._first_flight
        if flight is not None and now < flight.ends_at and self._awaits_answer:
            self._ready += flight.repeat(now)
        else:
            super().handle_timeout(now)

    def next_timeout(self) -> float | None:
        """See `Engine.next_timeout`."""
        if not self._is_past_handshake and self._first_flight is not None and self._awaits_answer:
            return self._first_flight.next_timeout
        timer = super().next_timeout()
        if self._queue.items and (paced := self._pacer.next_send_time()) is not None:
            return paced if timer is None else min(timer, paced)
        return timer

    def _close_quic(self, error_code: int, frame_type: int | None, reason: str) -> None:
        """Close; but first say what is due, for qh3 closes in a packet that the peer may need our Finished to read."""
        if not self._is_past_handshake and self._connection.is_started:
            self._ready += self._connection.datagrams_to_send(self._now)
        super()._close_quic(error_code, frame_type, reason)

    def _fail(self, error: QuicConnectionError) -> None:
        """The Rust core is in a state that it did not foresee: nothing can be saved but the process."""
        if not self._is_closed:
            lost = ConnectionLost(f"the qh3 engine failed: {error.reason_phrase}")
            lost.__cause__ = error
            self._finish(ConnectionClosed(error.error_code, error.reason_phrase, False, lost))

    def _send_handshake(self, transmits: list[tuple[bytes, Address]]) -> list[tuple[bytes, Address]]:
        padded = [(self._pad(data), address) for data, address in transmits]
        self._is_past_handshake = self._is_established
        if self._is_client and padded and self._starts != self._connection.starts:
            self._starts = self._connection.starts
            self._first_flight = FirstFlight(padded, self._now, self._now + self.configuration.idle_timeout_s)
        return self._amplification.release(padded, is_validated=self._is_client or self._is_established)

    def _pad(self, data: bytes) -> bytes:
        """Fill up a UDP payload with an Initial; a server only as far as it has received (RFC 9000 §8.1)."""
        header = parse_long_header(data)
        if header is None or not header.is_initial:
            return data
        size = self.configuration.max_udp_payload
        return data.ljust(size if self._is_client else min(size, self._largest_received), b"\0")

    def _create_h3(self) -> _H3:
        return _H3(self._connection, self)

    # --- events -----------------------------------------------------------------------------------------------------

    def _on_quic_event(self, event: Any) -> None:
        match event:
            case quic_events.StreamDataReceived():
                self._on_stream_data(event.stream_id, event)
            case quic_events.StreamReset():
                self._on_stream_reset(event, event.stream_id, event.error_code)
            case quic_events.StopSendingReceived():
                self._on_stop_sending(event, event.stream_id, event.error_code)
            case quic_events.ProtocolNegotiated():
                self._on_protocol_negotiated(event.alpn_protocol)
            case quic_events.HandshakeCompleted():
                self._on_handshake_completed()
            case quic_events.PingAcknowledged() if event.uid in self._probes:
                self._events.append(ProbeAcknowledged(self._probes.pop(event.uid)))
            case quic_events.ConnectionIdIssued():
                self._on_connection_id(event.connection_id, issued=True)
            case quic_events.ConnectionIdRetired():
                self._on_connection_id(event.connection_id, issued=False)

    def _on_http_event(self, event: Any) -> None:
        match event:
            case h3_events.InformationalHeadersReceived():
                self._on_headers(event.stream_id, event.headers, False)
            case h3_events.HeadersReceived():
                self._on_headers(event.stream_id, event.headers, event.stream_ended)
            case h3_events.DataReceived():
                self._on_data(event.stream_id, event.data, event.stream_ended)
            case h3_events.PushPromiseReceived():
                raise h3_rules.push_received()

    def on_malformed_message(self, stream_id: int, reason: str) -> None:
        """The HTTP/3 layer calls this instead of closing the connection."""
        self._on_malformed_message(stream_id, reason)

    # --- path MTU ---------------------------------------------------------------------------------------------------

    @property
    def max_udp_payload_ceiling(self) -> int:
        """See `Engine.max_udp_payload_ceiling`: the size now, for qh3 knows no way back up."""
        return self._connection.sizes[0] if self._is_established else self.configuration.max_udp_payload

    def _resize_packets(self, size: int) -> None:
        if size < self.max_udp_payload_ceiling:
            self._connection.lower_packet_size(size)

    def _probe(self, size: int, now: float) -> bool:
        stream = next((each for each in self._streams.values() if each.is_tunnel and each.can_send), None)
        if stream is None or not self._peer_max_datagram_frame():
            return False
        head = stream.quarter_id + (_PROBE_CONTEXT_ID if self._is_client else _PROBE_CONTEXT_ID_OF_SERVER)
        content = head.ljust(self._connection.datagram_content(size - _PING_FRAME), b"\0")
        quic = self._connection
        try:
            self._ready += quic.datagrams_to_send(now)
            for _ in range(2):  # an acknowledgement that waits takes the room of the PING, but once only
                self._pings += 1
                packets = quic.build_probe(self._pings, content, now)
                self._ready += packets
                if any(len(data) == size for data, _ in packets):
                    self._probes[self._pings] = size
                    return True
        except QuicConnectionError as error:
            self._fail(error)
        return False

    # --- answers ----------------------------------------------------------------------------------------------------

    def _closing(self) -> Closing | None:
        return self._connection.closing

    def _peer_certificate(self) -> bytes | None:
        certificate = self._connection.get_peercert()
        return certificate.public_bytes() if certificate is not None else None

    def _refuse_peer(self) -> tuple[int, str] | None:
        return None

    def _peer_max_datagram_frame(self) -> int:
        return self._connection.peer_max_datagram_frame

    def _max_frame(self) -> tuple[int, int]:
        return self._connection.sizes

    def _unsent_bytes(self, stream_id: int) -> int:
        return self._connection.get_send_buffer_size(stream_id)

    def _may_open_request(self) -> bool:
        return self._connection.may_open_request

    def statistics(self) -> EngineStatistics:
        """See `Engine.statistics`."""
        rtt, lost, window, in_flight = self._connection.snapshot()
        return EngineStatistics(
            rtt_s=rtt,
            packets_sent=self._path.sent_packets,
            packets_lost=lost,
            congestion_window=window,
            bytes_in_flight=in_flight,
            max_udp_payload=self._connection.sizes[0] if self._is_established else self.configuration.max_udp_payload,
            datagrams_too_large=self._queue.too_large + self._capsules.too_large,
            datagrams_expired=self._queue.expired,
            datagrams_stray=self._datagrams_stray,
            quic_version=self._connection.version,
        )


def _quic_configuration(configuration: EngineConfiguration) -> QuicConfiguration:
    tls = configuration.tls
    choose_congestion_control(configuration.congestion_control, _CONGESTION_CONTROL, EngineName.QH3)
    trust.check_key_pair(tls)
    if not configuration.is_client and tls.ca_file is not None:
        raise ConfigurationError(
            "the qh3 engine cannot verify client certificates", hint="use --engine aioquic on the server"
        )
    quic = QuicConfiguration(
        alpn_protocols=[ALPN],
        connection_id_length=CONNECTION_ID_BYTES,
        idle_timeout=configuration.idle_timeout_s,
        is_client=configuration.is_client,
        max_data=CONNECTION_WINDOW,
        max_datagram_frame_size=h3_rules.MAX_DATAGRAM_FRAME_SIZE if configuration.h3_datagram else 0,
        max_datagram_size=configuration.max_udp_payload,
        max_stream_data=STREAM_WINDOW,
        probe_datagram_size=False,
        secrets_log_file=configuration.secrets_log,  # type: ignore[arg-type]  # None is its default
        server_name=configuration.server_name or None,
        supported_versions=list(configuration.versions),
    )
    if configuration.is_client:
        quic.load_verify_locations(cafile=str(trust.ca_bundle(tls)))
    if tls.certificate is not None and tls.key is not None:
        quic.load_cert_chain(tls.certificate, tls.key)
    elif not configuration.is_client:
        raise ConfigurationError("a server needs a certificate and a key")
    return quic
