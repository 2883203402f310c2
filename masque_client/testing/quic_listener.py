"""A UDP listener that carries many QUIC connections, told apart by Destination Connection ID (RFC 9000 §5.2).

The engines issue 8-byte connection ids and announce each; a packet whose id nobody issued starts a connection if it
is a padded Initial, and is ignored otherwise. A GRO train is looked up once when all of it has one id, which is the
rule; a peer that moves to another address is found all the same, because addresses play no part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from masque_client.engine.interface import Address, Engine, Headers, ReceivedBuffer
from masque_client.http.connection import HttpConnection
from masque_client.http.request_stream import RequestStream, StreamHandler
from masque_client.http.udp_link import UdpLink
from masque_client.netio.clock import Clock
from masque_client.netio.udp import UdpSocket
from masque_client.protocol.mtu import MIN_UDP_PAYLOAD
from masque_client.protocol.quic_invariants import (
    QUIC_VERSION_1,
    QUIC_VERSION_2,
    LongHeader,
    encode_version_negotiation,
    parse_long_header,
    short_header_cid,
)

VERSIONS: Final = (QUIC_VERSION_1, QUIC_VERSION_2)
MAX_CONNECTIONS: Final = 256
_LONG_HEADER: Final = 0x80


class QuicListener:
    """Listens until `close`. Construct it in a running event loop.

    Args:
        listen: UDP addresses; port 0 takes a free one, see `addresses`.
        create_engine: makes the server side of a connection from the long header of the client's first Initial and
            the size of the UDP payload that it came in.
        on_request: see `HttpConnection`.

    Raises:
        AddressInUse: an address cannot be bound; none is then.
    """

    def __init__(
        self,
        listen: Sequence[Address],
        create_engine: Callable[[LongHeader, int], Engine],
        on_request: Callable[[RequestStream, Headers], StreamHandler],
        clock: Clock,
    ) -> None:
        self.connections: set[HttpConnection] = set()
        self._create_engine = create_engine
        self._on_request = on_request
        self._clock = clock
        self._by_id: dict[bytes, HttpConnection] = {}
        self._links: list[UdpLink] = []
        try:
            for address in listen:
                self._listen(address)
        except BaseException:
            self.close()
            raise

    @property
    def addresses(self) -> list[Address]:
        """Where it is bound, in the order given."""
        return [link.socket.local_address for link in self._links]

    def close(self) -> None:
        """Say goodbye on every connection and stop listening. Idempotent."""
        for connection in list(self.connections):
            connection.close(reason="the test proxy is shutting down")
        for link in self._links:
            link.close()

    def _listen(self, address: Address) -> None:
        link = UdpLink(UdpSocket.bound(address), lambda batch: self._receive(link, batch))
        self._links.append(link)

    # --- every packet -----------------------------------------------------------------------------------------------

    def _receive(self, link: UdpLink, batch: list[ReceivedBuffer]) -> None:
        by_connection: dict[HttpConnection, list[ReceivedBuffer]] = {}
        for train in batch:
            for buffer in _parts_with_one_id(train):
                connection = self._find(link, buffer)
                if connection is not None:
                    by_connection.setdefault(connection, []).append(buffer)
        for connection, buffers in by_connection.items():
            connection.receive(buffers)

    def _find(self, link: UdpLink, buffer: ReceivedBuffer) -> HttpConnection | None:
        data = buffer.data
        if not data[0] & _LONG_HEADER:
            return self._by_id.get(short_header_cid(data))
        header = parse_long_header(data)
        if header is None:
            return None
        return self._by_id.get(header.destination_cid) or self._greet(link, buffer, header)

    # --- new connections --------------------------------------------------------------------------------------------

    def _greet(self, link: UdpLink, buffer: ReceivedBuffer, header: LongHeader) -> HttpConnection | None:
        """A new connection, a Version Negotiation packet, or silence."""
        size = min(len(buffer.data), buffer.segment_size)
        if size < MIN_UDP_PAYLOAD:  # RFC 9000 §14.1, and no amplification
            return None
        if header.version not in VERSIONS:
            if header.version:
                answer = encode_version_negotiation(header.destination_cid, header.source_cid, VERSIONS)
                link.send([(answer, buffer.address)])
            return None
        if not header.is_initial or len(header.destination_cid) < 8 or len(self.connections) >= MAX_CONNECTIONS:
            return None
        original_id = header.destination_cid
        connection = HttpConnection(
            self._create_engine(header, size),
            link.send,
            self._clock,
            on_request=self._on_request,
            on_closed=lambda closed: self._forget(closed),
            on_connection_id=self._on_connection_id,
            path=link,
        )
        self.connections.add(connection)
        self._by_id[original_id] = connection  # the client uses it until it has heard from us (RFC 9000 §7.2)
        return connection

    def _on_connection_id(self, connection: HttpConnection, connection_id: bytes, issued: bool) -> None:
        if issued:
            self._by_id[connection_id] = connection
        else:
            self._by_id.pop(connection_id, None)

    def _forget(self, connection: HttpConnection) -> None:
        self.connections.discard(connection)
        self._by_id = {known: other for known, other in self._by_id.items() if other is not connection}


def _parts_with_one_id(train: ReceivedBuffer) -> Sequence[ReceivedBuffer]:
    """The train itself when every packet in it has the same short header id, else its packets one by one."""
    data, size, address = train
    if len(data) <= size:
        return (train,)
    if not data[0] & _LONG_HEADER:
        first = data[1:9]
        if all(data[start + 1 : start + 9] == first for start in range(size, len(data), size)):
            return (train,)
    return [
        ReceivedBuffer(data[start : start + size], min(size, len(data) - start), address)
        for start in range(0, len(data), size)
    ]
