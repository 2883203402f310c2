"""A UDP socket on an asyncio loop: readiness in, batches out. It knows nothing of QUIC.

No asyncio DatagramTransport: that costs one loop turn per datagram. Here one readiness callback drains the
socket, and a send is a direct system call. Only when the kernel's send buffer is full does anything wait.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable, Sequence

from masque_client.engine.interface import Address, ReceivedBuffer
from masque_client.netio.moderation import Moderation
from masque_client.netio.udp import UdpSocket
from masque_client.protocol.mtu import (
    MAX_UDP_PAYLOAD_OVER_IPV4,
    MAX_UDP_PAYLOAD_OVER_IPV6,
    IpVersion,
    udp_payload_for_link,
)

MAX_UNSENT = 1024
"""UDP payloads kept while the kernel's buffer is full. More are dropped: QUIC's loss recovery deals with it."""


class UdpLink:
    """Reads batches into `on_batch` and sends batches; owned by a connection, or by a listener for many.

    `on_batch` runs in the loop and must not block; nor must `on_refused`, called when the peer's machine says that
    nothing listens there (ICMP port unreachable), and `on_too_large`, called when a router says that a datagram did
    not fit the path (`max_udp_payload` knows more then). Call `close` from the loop; it closes the socket.
    """

    def __init__(
        self,
        socket: UdpSocket,
        on_batch: Callable[[list[ReceivedBuffer]], None],
        on_refused: Callable[[], None] | None = None,
        on_too_large: Callable[[], None] | None = None,
    ) -> None:
        self.socket = socket
        self.dropped = 0
        self._on_batch = on_batch
        self._on_refused = on_refused
        self._on_too_large = on_too_large
        self._loop = asyncio.get_running_loop()
        self._unsent: list[tuple[bytes, Address]] = []
        self._moderation = Moderation()
        self._loop.add_reader(socket.fileno(), self._on_readable)

    @property
    def local_address(self) -> Address:
        """Where the socket is bound."""
        return self.socket.local_address

    @property
    def refusals(self) -> int:
        """How often the kernel refused a datagram for its size, or told of ICMP. Only grows (see `PathView`)."""
        counters = self.socket.counters
        return counters.too_large + counters.icmp_errors

    def max_udp_payload(self) -> int:
        """Largest UDP payload the path may carry: by the kernel's path MTU where it knows one, else an Ethernet's."""
        version: IpVersion = 6 if ":" in self.local_address[0] else 4
        largest = MAX_UDP_PAYLOAD_OVER_IPV4 if version == 4 else MAX_UDP_PAYLOAD_OVER_IPV6
        mtu = self.socket.path_mtu()
        return largest if mtu is None else min(largest, udp_payload_for_link(mtu, version))

    def send(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
        """Hand `datagrams` to the kernel in order, keeping at most `MAX_UNSENT` when it cannot take them all."""
        if self._unsent:
            self._keep(datagrams)
            return
        taken = self.socket.send_batch(datagrams)
        if taken < len(datagrams):
            self._keep(datagrams[taken:])
            self._loop.add_writer(self.socket.fileno(), self._on_writable)

    def close(self) -> None:
        """Leave the loop and close the socket. Idempotent."""
        if self.socket.fileno() < 0:
            return
        self._loop.remove_reader(self.socket.fileno())
        self._loop.remove_writer(self.socket.fileno())
        self.socket.close()

    def _on_readable(self) -> None:
        started_at = time.monotonic()
        batch = self.socket.receive_batch()
        if batch:
            self._on_batch(batch)
            moderation, counters = self._moderation, self.socket.counters
            if rest_s := moderation.rest_after(started_at, counters.datagrams_received + counters.datagrams_sent):
                time.sleep(rest_s)  # blocking, for the whole loop is to gather work; and no timer could be this short
            moderation.ended_at = time.monotonic()
        elif (error := self.socket.last_error) is not None:
            handlers = {errno.ECONNREFUSED: self._on_refused, errno.EMSGSIZE: self._on_too_large}
            if error.errno is not None and (handler := handlers.get(error.errno)) is not None:
                handler()

    def _on_writable(self) -> None:
        taken = self.socket.send_batch(self._unsent)
        del self._unsent[:taken]
        if not self._unsent:
            self._loop.remove_writer(self.socket.fileno())

    def _keep(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
        room = MAX_UNSENT - len(self._unsent)
        self._unsent.extend(datagrams[:room])
        self.dropped += max(0, len(datagrams) - room)
