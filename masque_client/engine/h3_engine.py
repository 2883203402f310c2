"""What the HTTP/3 engines have in common: everything that is not about one library.

An engine is a subclass that owns a library's QUIC connection and HTTP/3 layer, tells `H3Listener` what happened, and
answers a few questions about sizes. This file is the half of it that acts: `Engine`'s input, commands and output.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from functools import partial

from masque_client.engine import h3_rules
from masque_client.engine.h3_capsules import CapsuleSender
from masque_client.engine.h3_listener import H3Listener
from masque_client.engine.h3_rules import RequestStream
from masque_client.engine.interface import (
    Address,
    EngineConfiguration,
    EngineName,
    EngineStatistics,
    Event,
    Headers,
    ReceivedBuffer,
)
from masque_client.errors import LocalProtocolError, ProxyRefused
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.h3_datagram import encode_quarter_stream_id
from masque_client.protocol.mtu import MAX_HTTP_DATAGRAM_IN_CAPSULE, MIN_UDP_PAYLOAD, max_http_datagram
from masque_client.protocol.packing import Split


class H3Engine(H3Listener):
    """An `Engine` over HTTP/3, less the library."""

    name: EngineName

    @abc.abstractmethod
    def connect(self, address: Address, now: float) -> None:
        """See `Engine.connect`."""

    @abc.abstractmethod
    def statistics(self) -> EngineStatistics:
        """See `Engine.statistics`."""

    def __init__(self, configuration: EngineConfiguration) -> None:
        super().__init__(configuration)
        self._capsules = CapsuleSender(self._unsent_bytes, self.send_data)
        self._last_question = (0, 0), 0
        self._last_answer = 0

    @abc.abstractmethod
    def _unsent_bytes(self, stream_id: int) -> int:
        """Bytes of a stream that the library has not sent once; 0 for a stream that it does not know."""

    # --- input ------------------------------------------------------------------------------------------------------

    def receive_datagrams(self, batch: Sequence[ReceivedBuffer], now: float) -> None:
        """See `Engine.receive_datagrams`."""
        if (contents := self._receive_quic(batch, now)) is None:
            self._collect()
        else:
            self._on_datagrams(contents)

    def handle_timeout(self, now: float) -> None:
        """See `Engine.handle_timeout`."""
        timer = self._quic.get_timer()
        if timer is not None and timer <= now:
            self._quic.handle_timer(now)
        self._queue.expire(now)
        self._collect()

    # --- commands ---------------------------------------------------------------------------------------------------

    def open_request(self, headers: Headers) -> int:
        """See `Engine.open_request`."""
        if self._is_closed or not self._is_established or self._h3 is None or self._settings is None:
            raise LocalProtocolError("requests wait for the peer's SETTINGS (RFC 9114 §7.2.4.2)")
        is_tunnel = any(name == b":protocol" for name, _ in headers)
        if is_tunnel and not self._settings.extended_connect:
            raise LocalProtocolError("the peer's SETTINGS do not allow extended CONNECT (RFC 8441 §3)")
        if self._goaway is not None:
            raise LocalProtocolError("the peer sent GOAWAY: no new requests (RFC 9114 §5.2)")
        theirs = self._h3.received_settings or {}
        h3_rules.check_size(headers, theirs.get(h3_rules.MAX_FIELD_SECTION_SIZE), self._peer_name)
        if not self._may_open_request():
            raise ProxyRefused(f"{self._peer_name} allows no more tunnels on this connection")
        stream_id = self._quic.get_next_available_stream_id()
        self._h3.send_headers(stream_id, list(headers))
        self._streams[stream_id] = RequestStream(stream_id, encode_quarter_stream_id(stream_id), is_tunnel)
        return stream_id

    def send_headers(self, stream_id: int, headers: Headers, *, end_stream: bool = False) -> None:
        """See `Engine.send_headers`."""
        stream = self._streams.get(stream_id)
        if stream is None or self._h3 is None or self._is_closed or not stream.can_send:
            return
        self._h3.send_headers(stream_id, list(headers), end_stream)
        if end_stream:
            self._close_sending(stream)

    def send_data(self, stream_id: int, data: bytes, *, end_stream: bool = False) -> None:
        """See `Engine.send_data`."""
        stream = self._streams.get(stream_id)
        if stream is None or self._h3 is None or self._is_closed or not stream.can_send:
            return
        self._h3.send_data(stream_id, data, end_stream)
        if end_stream:
            self._close_sending(stream)

    def send_datagrams(
        self,
        stream_id: int,
        payloads: Sequence[bytes],
        now: float,
        *,
        prefix: bytes = b"",
        split: Split | None = None,
    ) -> int:
        """See `Engine.send_datagrams`."""
        stream = self._streams.get(stream_id)
        if stream is None or not stream.can_send or self._is_closed:
            return len(payloads)
        if self._carries_capsules:
            return self._capsules.put(stream_id, payloads, prefix, split)
        capacity = self._capacity(stream)
        limit = capacity - len(prefix) if capacity else -1  # without DATAGRAMs not even an empty payload fits
        put = self._queue.put if split is None else partial(self._queue.put_split, split)
        return put(stream.quarter_id + prefix, payloads, limit, now)

    def datagram_capacity(self, stream_id: int) -> int:
        """See `Engine.datagram_capacity`."""
        stream = self._streams.get(stream_id)
        return self._capacity(stream) if stream is not None and stream.can_send else 0

    def _capacity(self, stream: RequestStream) -> int:
        if self._settings is None:
            return 0  # D-11: both SETTINGS and the transport parameter, or no DATAGRAM frames at all
        if self._carries_capsules:
            return MAX_HTTP_DATAGRAM_IN_CAPSULE
        return self._max_content(quarter_id_length=len(stream.quarter_id))

    def _max_content(self, *, quarter_id_length: int) -> int:
        question = self._max_frame(), quarter_id_length
        if question != self._last_question:
            self._last_question = question
            self._last_answer = max_http_datagram(
                question[0][0],
                connection_id_length=question[0][1],
                quarter_stream_id_length=quarter_id_length,
                peer_max_datagram_frame_size=self._peer_max_datagram_frame(),
            )
        return self._last_answer

    @property
    def is_datagram_queue_full(self) -> bool:
        """See `Engine.is_datagram_queue_full`."""
        return self._queue.is_full or self._capsules.is_full

    def ping(self) -> None:
        """See `Engine.ping`."""
        if not self._is_closed and self._is_established:
            self._pings += 1
            self._quic.send_ping(self._pings)

    def close(self, error_code: int = H3ErrorCode.H3_NO_ERROR, reason: str = "") -> None:
        """See `Engine.close`. `ConnectionClosed` follows at once."""
        self._close(error_code, reason, None)

    # --- path MTU ---------------------------------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def max_udp_payload_ceiling(self) -> int:
        """See `Engine.max_udp_payload_ceiling`."""

    def set_max_udp_payload(self, size: int) -> None:
        """See `Engine.set_max_udp_payload`. The queue is looked through when packets are next built."""
        if self._is_established and not self._is_closed:
            self._resize_packets(max(MIN_UDP_PAYLOAD, min(size, self.max_udp_payload_ceiling)))

    def send_probe(self, size: int, now: float) -> bool:
        """See `Engine.send_probe`."""
        if not self._is_established or self._is_closed or size > self.max_udp_payload_ceiling:
            return False
        return self._probe(size, now)

    @abc.abstractmethod
    def _resize_packets(self, size: int) -> None:
        """Tell the library how large packets are from now on."""

    @abc.abstractmethod
    def _probe(self, size: int, now: float) -> bool:
        """Have a packet of exactly `size` bytes built now, to leave with the next ones; see `Engine.send_probe`."""

    # --- output -----------------------------------------------------------------------------------------------------

    def next_event(self) -> Event | None:
        """See `Engine.next_event`."""
        if not self._events and self._quic.news:  # sending may have issued connection ids
            self._collect()
        return self._events.popleft() if self._events else None

    def datagrams_to_send(self, now: float) -> Sequence[tuple[bytes, Address]]:
        """See `Engine.datagrams_to_send`."""
        queue = self._queue
        if not queue.items:
            return self._send_quic(now)
        queue.expire(now)
        if (frame := self._max_frame()) != self._frame_at_last_send:
            self._frame_at_last_send = frame
            queue.discard_larger_than(self._max_content(quarter_id_length=0))
        transmits = self._send_quic(now)
        queue.settle()
        return transmits

    def next_timeout(self) -> float | None:
        """See `Engine.next_timeout`."""
        timer = self._quic.get_timer()
        if (expiry := self._queue.next_expiry()) is None:
            return timer
        return expiry if timer is None else min(timer, expiry)
