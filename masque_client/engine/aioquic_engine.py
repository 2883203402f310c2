"""The reference engine: HTTP/3 over aioquic. With `aioquic_quic.py` and `aioquic_congestion.py` its only importer.

aioquic is a library for streams; HTTP Datagrams, GOAWAY, mutual TLS on the server and telling *why* a connection
closes need its insides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aioquic.h3 import connection as h3_connection
from aioquic.h3 import events as h3_events
from aioquic.quic import events as quic_events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicConnectionError

from masque_client.engine import grease, h3_rules, trust
from masque_client.engine.aioquic_congestion import ALGORITHMS
from masque_client.engine.aioquic_quic import OpenQuicConnection
from masque_client.engine.closing import (
    Closing,
)
from masque_client.engine.h3_engine import H3Engine
from masque_client.engine.h3_listener import ALPN, CONNECTION_ID_BYTES, CONNECTION_WINDOW, STREAM_WINDOW
from masque_client.engine.interface import (
    Address,
    EngineConfiguration,
    EngineName,
    EngineStatistics,
    Headers,
    ProbeAcknowledged,
    ReceivedBuffer,
)
from masque_client.engine.library import choose_congestion_control
from masque_client.errors import ConfigurationError, RemoteProtocolError
from masque_client.protocol.qpack import encode_field_section


class _H3(h3_connection.H3Connection):
    """aioquic's HTTP/3 layer with our SETTINGS, no push (L-1), and stream errors that stay on their stream (L-8)."""

    def __init__(self, quic: QuicConnection, engine: AioquicEngine) -> None:
        self._engine = engine
        super().__init__(quic)

    def _init_connection(self) -> None:
        self._max_push_id = None
        # As our SETTINGS say; the library's takes a dynamic table all the same.
        self._decoder = type(self._decoder)(0, 0)
        super()._init_connection()
        if self._engine.configuration.grease and self._local_control_stream_id is not None:
            grease.begin_http3(self._quic, self._local_control_stream_id)

    def _encode_headers(self, stream_id: int, headers: Headers) -> bytes:
        return encode_field_section(headers)

    def _get_local_settings(self) -> dict[int, int]:
        return h3_rules.settings_to_send(self._engine.configuration)

    def _validate_settings(self, settings: dict[int, int]) -> None:
        try:
            h3_rules.check_settings(settings)  # L-7: 0x33 without the transport parameter is no error
        except RemoteProtocolError as error:
            raise h3_connection.SettingsError(str(error)) from error

    def _receive_request_or_push_data(
        self, stream: h3_connection.H3Stream, data: bytes, stream_ended: bool
    ) -> list[h3_events.H3Event]:
        try:
            return super()._receive_request_or_push_data(stream, data, stream_ended)
        except h3_connection.MessageError as error:
            self._engine.on_malformed_message(stream.stream_id, error.reason_phrase)
            stream.buffer = b""
            return []


class AioquicEngine(H3Engine):
    """One HTTP/3 connection over aioquic. Make it with `engine.create_client_engine` or `create_server_engine`."""

    name = EngineName.AIOQUIC
    _library_error = QuicConnectionError
    _datagram_event = quic_events.DatagramFrameReceived

    def __init__(
        self, configuration: EngineConfiguration, *, original_destination_connection_id: bytes | None = None
    ) -> None:
        super().__init__(configuration)
        self._probes: list[tuple[bytes, Address]] = []
        self._connection = self._quic = OpenQuicConnection(
            _quic_configuration(configuration), original_destination_connection_id=original_destination_connection_id
        )
        self._connection.demands_client_certificate = not self._is_client and configuration.tls.ca_file is not None
        self._connection.greases = configuration.grease
        self._connection.lend_datagram_queue(self._queue.items)
        self._on_connection_id(self._connection.host_cid, issued=True)

    # --- the road ---------------------------------------------------------------------------------------------------

    def connect(self, address: Address, now: float) -> None:
        """See `Engine.connect`."""
        self._connection.connect(address, now)

    def _receive_quic(self, batch: Sequence[ReceivedBuffer], now: float) -> None:
        receive = self._connection.receive_datagram
        for data, segment_size, address in batch:
            if len(data) <= segment_size:
                receive(data, address, now)
                continue
            for start in range(0, len(data), segment_size):
                receive(data[start : start + segment_size], address, now)
        while self._connection.acknowledged_probes:
            self._events.append(ProbeAcknowledged(self._connection.acknowledged_probes.popleft()))

    def _send_quic(self, now: float) -> list[tuple[bytes, Address]]:
        if not self._connection.has_path:
            return []
        probes, self._probes = self._probes, []
        return probes + self._connection.datagrams_to_send(now)

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
            case quic_events.ConnectionIdIssued():
                self._on_connection_id(event.connection_id, issued=True)
            case quic_events.ConnectionIdRetired():
                self._on_connection_id(event.connection_id, issued=False)

    def _on_http_event(self, event: Any) -> None:
        match event:
            case h3_events.HeadersReceived():
                self._on_headers(event.stream_id, event.headers, event.stream_ended)
            case h3_events.DataReceived():
                self._on_data(event.stream_id, event.data, event.stream_ended)

    def on_malformed_message(self, stream_id: int, reason: str) -> None:
        """The HTTP/3 layer calls this instead of closing the connection."""
        self._on_malformed_message(stream_id, reason)

    # --- path MTU ---------------------------------------------------------------------------------------------------

    @property
    def max_udp_payload_ceiling(self) -> int:
        """See `Engine.max_udp_payload_ceiling`: what the peer takes."""
        return self._connection.max_udp_payload_ceiling

    def _resize_packets(self, size: int) -> None:
        self._connection.resize_packets(size)

    def _probe(self, size: int, now: float) -> bool:
        self._probes += self._connection.build_probe(size, now)
        return True

    # --- answers ----------------------------------------------------------------------------------------------------

    def _closing(self) -> Closing | None:
        return self._connection.closing

    def _peer_certificate(self) -> bytes | None:
        return self._connection.peer_certificate

    def _refuse_peer(self) -> tuple[int, str] | None:
        return self._connection.verify_client_certificate() if self._connection.demands_client_certificate else None

    def _peer_max_datagram_frame(self) -> int:
        return self._connection.peer_max_datagram_frame

    def _max_frame(self) -> tuple[int, int]:
        return self._connection.sizes

    def _unsent_bytes(self, stream_id: int) -> int:
        return self._connection.unsent_bytes(stream_id)

    def _may_open_request(self) -> bool:
        return self._connection.may_open_request

    def statistics(self) -> EngineStatistics:
        """See `Engine.statistics`."""
        rtt, sent, lost, window, in_flight = self._connection.snapshot()
        return EngineStatistics(
            rtt_s=rtt,
            packets_sent=sent,
            packets_lost=lost,
            congestion_window=window,
            bytes_in_flight=in_flight,
            max_udp_payload=self._connection.sizes[0],
            datagrams_too_large=self._queue.too_large + self._capsules.too_large,
            datagrams_expired=self._queue.expired,
            datagrams_stray=self._datagrams_stray,
            quic_version=self._connection.version,
        )


def _quic_configuration(configuration: EngineConfiguration) -> QuicConfiguration:
    tls_configuration = configuration.tls
    quic = QuicConfiguration(
        alpn_protocols=[ALPN],
        congestion_control_algorithm=choose_congestion_control(
            configuration.congestion_control, ALGORITHMS, EngineName.AIOQUIC
        ),
        connection_id_length=CONNECTION_ID_BYTES,
        idle_timeout=configuration.idle_timeout_s,
        is_client=configuration.is_client,
        max_data=CONNECTION_WINDOW,
        max_datagram_frame_size=h3_rules.MAX_DATAGRAM_FRAME_SIZE if configuration.h3_datagram else None,
        max_datagram_size=configuration.max_udp_payload,
        max_stream_data=STREAM_WINDOW,
        secrets_log_file=configuration.secrets_log,
        server_name=configuration.server_name or None,
        supported_versions=list(configuration.versions),
    )
    trust.check_key_pair(tls_configuration)
    if configuration.is_client or tls_configuration.ca_file is not None:
        quic.load_verify_locations(cafile=str(trust.ca_bundle(tls_configuration)))
    if tls_configuration.certificate is not None and tls_configuration.key is not None:
        quic.load_cert_chain(tls_configuration.certificate, tls_configuration.key)
    elif not configuration.is_client:
        raise ConfigurationError("a server needs a certificate and a key")
    return quic
