"""qh3's QUIC connection, opened up: every private attribute of qh3's that we touch is touched in this file.

It does two things. It corrects what qh3 gets wrong (the list is in `qh3_engine.py`). And it goes past qh3's facade,
which spends more Python on each packet (a log that is off, an event object, a call with its error handling) than the
Rust core spends on protecting it: here packets cross between Python and the core in loops that run in C.

Tried against qh3 2.1. A missing attribute fails the first connection loudly instead of silently changing behaviour,
except on the packet's road: there `has_known_core` decides once between the core and qh3's public methods.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from qh3._hazmat import QuicConnectionCore
from qh3.quic.connection import QuicConnection, QuicConnectionError
from qh3.quic.packet import QuicErrorCode, QuicTransportParameters
from qh3.quic.tls_bridge import QuicTlsBridge, QuicTlsBridgeError

from masque_client.engine.closing import CRYPTO_ERROR, CRYPTO_FRAME, NO_COMMON_VERSION, Closing, Origin
from masque_client.engine.h3_listener import CONNECTION_ID_BYTES
from masque_client.engine.interface import Address, ReceivedBuffer
from masque_client.engine.pacing import BURST_S
from masque_client.engine.version_negotiation import by_our_preference, find_downgrade
from masque_client.protocol.mtu import max_http_datagram
from masque_client.protocol.quic_invariants import parse_long_header

_DECODE_ERROR = CRYPTO_ERROR + 50
"""The TLS alert decode_error (RFC 8446 §6.2)."""
_PATIENCE_S = {"pacing": 0.009, "ack_application": 0.009}
"""How much later than the core asks we look, for it sends what is due with anything that leaves meanwhile. It wants a
lone packet acknowledged after 1 ms, before what answers it may be there to carry the acknowledgement; peers are told to
expect 25 ms (max_ack_delay). And its pacing timer runs after each packet, with or without more to send."""
_IDLE_TIMEOUT = "Idle timeout"
_DATAGRAM_OVERHEAD = 1 + CONNECTION_ID_BYTES + 2 + 16 + 3
"""What a packet with one DATAGRAM adds: short header, AEAD tag, frame type and Length."""


_DATAGRAM = "datagram"
_data_and_address = itemgetter(0, 1)
_CORE_METHODS = ("next_event", "poll_transmit", "receive_gro_buffer", "send_datagram")


def has_known_core(core: type = QuicConnectionCore) -> bool:
    """Whether qh3's core has what the road for batches takes of it; without, packets go the public way one by one."""
    return all(hasattr(core, name) for name in _CORE_METHODS)


class OpenQuicConnection(QuicConnection):
    """qh3's `QuicConnection` with what an engine needs to ask and to tell. Driven by `Qh3Engine` alone.

    Attributes:
        news: empty while `next_event` has nothing to tell.
        starts: how often a handshake began: again after a Retry or Version Negotiation packet.
    """

    takes_batches = has_known_core()
    _peer_parameters: tuple[Any, ...] | None = None
    _has_switched = False
    starts = 0

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.news = self._events
        self._sizes: tuple[int, int] | None = None

    # --- the road ---------------------------------------------------------------------------------------------------

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """As in qh3, which in addition parses each packet again for a log that is off."""
        if not self.takes_batches:
            return super().datagrams_to_send(now)
        if self._core is None:
            return []
        try:
            return list(map(_data_and_address, iter(partial(self._core.poll_transmit, now), None)))
        except RuntimeError as error:
            raise QuicConnectionError(QuicErrorCode.INTERNAL_ERROR, None, str(error)) from error

    def hand_over(self, waiting: deque[bytes], waiting_bytes: int, room: int, tokens: float) -> int:
        """Take datagrams from the front while `room` and `tokens`, in bytes, last; returns the bytes used."""
        send = self._require_core().send_datagram if self.takes_batches else self.send_datagram_frame
        used = waiting_bytes + len(waiting) * _DATAGRAM_OVERHEAD
        if used <= room and used <= tokens:
            deque(map(send, waiting), maxlen=0)  # a loop in C
            waiting.clear()
            return used
        used, take = 0, waiting.popleft
        while waiting and used < tokens:
            cost = len(waiting[0]) + _DATAGRAM_OVERHEAD
            if used + cost > room:
                break
            send(take())
            used += cost
        return used

    def get_timer(self) -> float | None:
        """The next timer, put off a little where waiting is worth it."""
        timer = self._core.get_timer() if self._core is not None else None
        if timer is None:
            return None
        kind, at = timer
        if kind == "pacing" and self.get_send_buffer_size():
            return at + BURST_S / 2
        return at + _PATIENCE_S.get(kind, 0.0)

    def receive(self, batch: Sequence[ReceivedBuffer], now: float) -> list[bytes] | None:
        """Take UDP payloads; after the handshake trains enter the core whole.

        Returns:
            the contents of DATAGRAM frames when nothing else happened, or None: then `next_event` tells it all.
        """
        if not self._handshake_complete or not self.takes_batches:
            for buffer in batch:
                if buffer[0]:
                    self._receive_publicly(buffer, now)
            return None
        core = self._core
        assert core is not None
        receive = core.receive_gro_buffer
        try:
            for data, segment_size, address in batch:
                if data:
                    receive(data, segment_size, address, now)
        except RuntimeError as error:
            raise QuicConnectionError(QuicErrorCode.INTERNAL_ERROR, None, str(error)) from error
        news = list(iter(core.next_event, None))
        contents = [each[1] for each in news if each[0] == _DATAGRAM]
        if len(contents) == len(news) and not self._events:  # behind an event they would overtake it
            return contents
        self._tell(news)
        return None

    def _receive_publicly(self, buffer: ReceivedBuffer, now: float) -> None:
        if self._core is not None and self._is_client and not self._has_switched:
            self._follow_version(self._core.version, buffer.data)
        self.receive_gro_buffer(*buffer, now)

    def _tell(self, news: Iterable[tuple[Any, ...]]) -> None:
        """Have qh3 read what was taken from its core, and make events of it."""
        core = self._require_core()
        self._sizes = None
        self._core = _Retold(core, news)  # type: ignore[assignment]  # it stands in for the length of one loop
        try:
            self._drain_core()
        finally:
            self._core = core

    def _follow_version(self, ours: int, data: bytes) -> None:
        """Let a client follow the server to another version; qh3 does so in the server's very first packet only.

        That packet may as well be an ACK in the first version, when the rest of the ClientHello was late.
        """
        header = parse_long_header(data)
        if header is None or not header.is_initial:
            return
        if header.version != ours and header.version in self._configuration.supported_versions:
            self._has_switched = True
            self._set_version(header.version)

    def _drain_core(self) -> None:
        """As in qh3, which lets the errors of reading a cut or senseless TLS message escape instead of closing."""
        try:
            super()._drain_core()
        except (AssertionError, LookupError, TypeError, ValueError) as error:
            self.close(_DECODE_ERROR, CRYPTO_FRAME, f"a TLS message cannot be read: {error}")

    def _call_core(self, function: Any, *arguments: Any) -> Any:
        if self._peer_parameters is None and function.__name__ == "apply_peer_transport_parameters":
            self._peer_parameters = arguments
        return super()._call_core(function, *arguments)

    def lower_packet_size(self, size: int) -> None:
        """Smaller packets from now on; what the peer allowed of streams and data since it said so stays as it is."""
        assert self._peer_parameters is not None
        *others, _ = self._peer_parameters  # the last one is max_udp_payload_size
        super()._call_core(self._require_core().apply_peer_transport_parameters, *others, size)
        self._sizes = None

    def build_probe(self, ping: int, datagram: bytes, now: float) -> list[tuple[bytes, Address]]:
        """Packets with a PING of this number and a DATAGRAM frame: one, unless something else was due as well."""
        core = self._require_core()
        core.send_ping(ping)
        core.send_datagram(datagram)
        return self.datagrams_to_send(now)

    def _create_core(self, remote_addr: Any, initial_dcid: bytes, now: float) -> None:
        # A server's core counts the first packet and not the UDP payload around it against the limit of RFC 9000 §8.1,
        # and then fails instead of waiting. It is told that the address is valid; `AmplificationLimit` keeps the limit.
        after_retry = self._retry_source_connection_id
        if not self._is_client:
            self._retry_source_connection_id = b""
        super()._create_core(remote_addr, initial_dcid, now)
        self._retry_source_connection_id = after_retry
        self.starts += 1

    def _create_tls(self, remote_source_cid: bytes | None) -> QuicTlsBridge:
        """A server follows the client's order of versions: put the client's in ours (RFC 9368 §2.3)."""
        bridge = super()._create_tls(remote_source_cid)
        parse, ours = bridge.parse_transport_parameters, self._configuration.supported_versions

        def parse_and_sort(data: bytes, *, from_session_ticket: bool = False) -> QuicTransportParameters:
            parameters = parse(data, from_session_ticket=from_session_ticket)
            if (information := parameters.version_information) is not None:
                information.available_versions = by_our_preference(information.available_versions, ours)
            return parameters

        if not self._is_client:
            bridge.parse_transport_parameters = parse_and_sort  # type: ignore[method-assign]
        return bridge

    def _drain_tls(self) -> None:
        """A client trusts Version Negotiation packets, which anybody can write: check them (RFC 9368 §4)."""
        parameters = self._tls.remote_transport_parameters if self._tls is not None and self._is_client else None
        if parameters is not None:
            information = parameters.version_information
            downgrade = find_downgrade(
                (information.chosen_version, information.available_versions) if information is not None else None,
                in_use=self.version,
                ours=self._configuration.supported_versions,
                has_restarted=self._version_negotiated,
            )
            if downgrade:
                raise QuicTlsBridgeError(QuicErrorCode.VERSION_NEGOTIATION_ERROR, downgrade)
        super()._drain_tls()

    @property
    def version(self) -> int:
        """The version in use; 0 before the first packet."""
        return self._tls.version if self._tls is not None else 0

    @property
    def is_started(self) -> bool:
        """The first packet was sent, or received."""
        return self._core is not None

    @property
    def is_unanswered(self) -> bool:
        """Nothing has been received yet."""
        return self._core is not None and self._core.state == "first_flight"

    @property
    def closing(self) -> Closing | None:
        """Why the connection is closing or closed, as soon as the core knows."""
        event, core = self._close_event, self._core
        if event is None:
            return None
        state = core.state if core is not None else "terminated"
        if event.reason_phrase == NO_COMMON_VERSION and state == "first_flight":
            origin = Origin.VERSIONS
        elif state == "terminated" and event.reason_phrase == _IDLE_TIMEOUT:
            origin = Origin.IDLE
        elif state == "draining":
            origin = Origin.PEER
        else:
            origin = Origin.LOCAL
        return Closing(origin, event.error_code, event.frame_type, event.reason_phrase)

    @property
    def road(self) -> tuple[int, int, float | None, float | None]:
        """`(congestion window, in flight)` in bytes and `(smoothed, latest)` round trip in seconds."""
        core = self._core
        assert core is not None
        return core.congestion_window, core.bytes_in_flight, core.smoothed_rtt, core.latest_rtt

    @property
    def sizes(self) -> tuple[int, int]:
        """`(current packet size, length of the peer's connection id)`."""
        if self._sizes is None or not self._handshake_complete:
            assert self._tls is not None
            connection_id = self._tls.remote_initial_source_connection_id or b""
            self._sizes = self._require_core().active_path[5], len(connection_id)
        return self._sizes

    def datagram_content(self, packet_size: int) -> int:
        """Bytes of DATAGRAM frame content that fill a packet of `packet_size` bytes."""
        return max_http_datagram(packet_size, connection_id_length=self.sizes[1], quarter_stream_id_length=0)

    @property
    def peer_max_datagram_frame(self) -> int:
        """The peer's max_datagram_frame_size (RFC 9221 §3), 0 when it did not send one."""
        return self._remote_max_datagram_frame_size or 0

    @property
    def may_open_request(self) -> bool:
        """Does the peer's MAX_STREAMS allow one more request now?"""
        allowed, _, opened, _ = self._require_core().stream_limits
        return opened < allowed

    def snapshot(self) -> tuple[float | None, int, int, int]:
        """`(rtt, packets lost, window, in flight)`."""
        core = self._core
        if core is None:
            return None, 0, 0, 0
        return core.smoothed_rtt or None, core.loss_total, core.congestion_window, core.bytes_in_flight


class _Retold:
    """A core that first tells again the events that were taken from it."""

    def __init__(self, core: QuicConnectionCore, news: Iterable[tuple[Any, ...]]) -> None:
        self._core = core
        self._news: Iterator[tuple[Any, ...]] = iter(news)

    def next_event(self) -> tuple[Any, ...] | None:
        return next(self._news, None) or self._core.next_event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)
