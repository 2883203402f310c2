"""aioquic's QUIC connection, opened up: every private attribute of its that we touch is touched in this file.

Tried against aioquic 1.7: a missing attribute fails the first connection loudly instead of silently changing behaviour.
"""

from __future__ import annotations

from collections import deque

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicConnectionError, QuicConnectionState
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicPacketType,
    QuicTransportParameters,
    pull_quic_transport_parameters,
)
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder
from cryptography.hazmat.primitives.serialization import Encoding

from masque_client.engine import grease
from masque_client.engine.aioquic_congestion import BurstPacer, Counting
from masque_client.engine.closing import (
    BAD_CERTIFICATE,
    CERTIFICATE_REQUIRED,
    NO_COMMON_VERSION,
    Closing,
    Origin,
)
from masque_client.engine.interface import Address
from masque_client.engine.version_negotiation import by_our_preference, find_downgrade

MAX_UDP_PAYLOAD = 65527
"""RFC 9000 §18.2: the default of max_udp_payload_size."""
_IDLE_FRAME_TYPE = 0x00
"""aioquic reports an idle timeout as a transport error about a PADDING frame."""


class OpenQuicConnection(QuicConnection):
    """aioquic's `QuicConnection` with what an engine needs to ask and to tell. Driven by `AioquicEngine` alone.

    Attributes:
        news: empty while `next_event` has nothing to tell.
        demands_client_certificate: a server's wish for mutual TLS.
        greases: send a reserved transport parameter and version (RFC 9000 §18.1, §15).
        max_udp_payload_ceiling: no packet to the peer may be larger, in bytes.
        acknowledged_probes: sizes of the path probes that arrived; the engine takes them out.
    """

    def __init__(self, configuration: QuicConfiguration, *, original_destination_connection_id: bytes | None) -> None:
        super().__init__(
            configuration=configuration, original_destination_connection_id=original_destination_connection_id
        )
        self._loss._pacer = BurstPacer(max_datagram_size=configuration.max_datagram_size)
        self.news = self._events
        self.demands_client_certificate = False
        self.greases = False
        self.max_udp_payload_ceiling = MAX_UDP_PAYLOAD
        self.acknowledged_probes: deque[int] = deque()

    def lend_datagram_queue(self, items: deque[bytes]) -> None:
        """Let packets be filled from our bounded queue instead of aioquic's unbounded one (L-4)."""
        assert not self._datagrams_pending
        self._datagrams_pending = items

    def get_timer(self) -> float | None:
        """The next timer; aioquic cannot be asked before the first packet or after the end."""
        return super().get_timer() if self._close_at is not None else None

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls._request_client_certificate = self.demands_client_certificate

    def _serialize_transport_parameters(self) -> bytes:
        if not self.greases:
            return super()._serialize_transport_parameters()
        versions = self._configuration.supported_versions
        self._configuration.supported_versions = [*versions, grease.quic_version()]
        try:
            return super()._serialize_transport_parameters() + grease.transport_parameter()
        finally:
            self._configuration.supported_versions = versions

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        parameters: QuicTransportParameters = pull_quic_transport_parameters(Buffer(data=data))
        if parameters.max_udp_payload_size is not None:  # which aioquic ignores (RFC 9000 §18.2)
            self.max_udp_payload_ceiling = min(self.max_udp_payload_ceiling, parameters.max_udp_payload_size)
            self._max_datagram_size = min(self._max_datagram_size, parameters.max_udp_payload_size)
        self._judge_versions()

    def resize_packets(self, size: int) -> None:
        """UDP payloads of `size` bytes from now on."""
        self._max_datagram_size = self._loss._pacer._max_datagram_size = size

    def build_probe(self, size: int, now: float) -> list[tuple[bytes, Address]]:
        """A packet of `size` bytes with a PING and PADDING, which nothing repeats when it is lost."""
        builder = QuicPacketBuilder(
            host_cid=self.host_cid,
            is_client=self._is_client,
            max_datagram_size=size,
            packet_number=self._packet_number,
            peer_cid=self._peer_cid.cid,
            version=self._version or 0,
        )
        builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[tls.Epoch.ONE_RTT])
        number = builder.packet_number
        frame = builder.start_frame(QuicFrameType.PING, handler=self._on_probe_delivery, handler_args=(size, number))
        frame.push_bytes(bytes(builder.remaining_buffer_space))
        self._controller.probes.add(number)
        return self._flush_builder(
            builder=builder, network_path=self._network_paths[0], peer_cid=self._peer_cid.cid, now=now
        )

    def _on_probe_delivery(self, delivery: QuicDeliveryState, size: int, number: int) -> None:
        if delivery is QuicDeliveryState.ACKED:
            self._controller.probes.discard(number)
            self.acknowledged_probes.append(size)

    @property
    def _controller(self) -> Counting:
        controller = self._loss._cc
        assert isinstance(controller, Counting)
        return controller

    def _judge_versions(self) -> None:
        """What aioquic leaves out of RFC 9368: a server follows the client's order, a client trusts the packets."""
        information, ours = self._remote_version_information, self.configuration.supported_versions
        if not self._is_client:
            if information is not None:
                information.available_versions = by_our_preference(information.available_versions, ours)
            return
        theirs = (information.chosen_version, information.available_versions) if information is not None else None
        in_use, has_restarted = self._crypto_packet_version, self._version_negotiated_incompatible
        assert in_use is not None
        if downgrade := find_downgrade(theirs, in_use=in_use, ours=ours, has_restarted=has_restarted):
            raise QuicConnectionError(QuicErrorCode.VERSION_NEGOTIATION_ERROR, QuicFrameType.CRYPTO, downgrade)

    @property
    def version(self) -> int:
        """The version in use; 0 before the first packet."""
        return self._version or 0

    @property
    def peer_certificate(self) -> bytes | None:
        """The peer's leaf certificate in DER."""
        context = getattr(self, "tls", None)  # made when the first packet arrives
        certificate = context._peer_certificate if context is not None else None
        return certificate.public_bytes(Encoding.DER) if certificate is not None else None

    def verify_client_certificate(self) -> tuple[int, str] | None:
        """Check the client's chain; aioquic asks for a certificate but accepts any, and none."""
        if self.tls._peer_certificate is None:
            return CERTIFICATE_REQUIRED, "a client certificate is required"
        try:
            tls.verify_certificate(
                certificate=self.tls._peer_certificate,
                chain=self.tls._peer_certificate_chain,
                cafile=self.configuration.cafile,
            )
        except tls.Alert as alert:
            return int(getattr(alert, "description", BAD_CERTIFICATE)), str(alert)
        return None

    @property
    def closing(self) -> Closing | None:
        """Why the connection is closing or closed, as soon as that is known."""
        event = self._close_event
        if event is None:
            return None
        if self._state is QuicConnectionState.DRAINING:
            origin = Origin.PEER
        elif event.reason_phrase == NO_COMMON_VERSION:
            origin = Origin.VERSIONS
        elif self._state is QuicConnectionState.TERMINATED and event.frame_type == _IDLE_FRAME_TYPE:
            origin = Origin.IDLE
        else:
            origin = Origin.LOCAL
        return Closing(origin, event.error_code, event.frame_type, event.reason_phrase)

    @property
    def has_path(self) -> bool:
        """There is an address to send to."""
        return bool(self._network_paths)

    @property
    def sizes(self) -> tuple[int, int]:
        """`(current packet size, length of the peer's connection id)`."""
        return self._max_datagram_size, len(self._peer_cid.cid)

    @property
    def peer_max_datagram_frame(self) -> int:
        """The peer's max_datagram_frame_size (RFC 9221 §3), 0 when it did not send one."""
        return self._remote_max_datagram_frame_size or 0

    def unsent_bytes(self, stream_id: int) -> int:
        """Bytes of a stream that were not sent once; 0 for a stream that is not known."""
        stream = self._streams.get(stream_id)
        return stream.sender._buffer_stop - stream.sender.next_offset if stream is not None else 0

    @property
    def may_open_request(self) -> bool:
        """Does the peer's MAX_STREAMS allow one more request now?"""
        return self._local_next_stream_id_bidi // 4 < self._remote_max_streams_bidi

    def snapshot(self) -> tuple[float | None, int, int, int, int]:
        """`(rtt, packets sent, packets lost, window, in flight)`."""
        loss = self._loss
        rtt = loss._rtt_smoothed if loss._rtt_initialized else None
        return rtt, self._packet_number, self._controller.packets_lost, loss.congestion_window, loss.bytes_in_flight
