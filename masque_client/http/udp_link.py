"""A UDP socket on an asyncio loop: readiness in, batches out. It knows nothing of QUIC.

No asyncio DatagramTransport: that costs one loop turn per datagram. Here one readiness callback drains the
socket, and a send is a direct system call. Only when the kernel's send buffer is full does anything wait.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Sequence

from masque_client.engine.interface import Address, ReceivedBuffer
from masque_client.netio.udp import UdpSocket

MAX_UNSENT = 1024
"""UDP payloads kept while the kernel's buffer is full. More are dropped: QUIC's loss recovery deals with it."""


class UdpLink:
    """Reads batches into `on_batch` and sends batches; owned by a connection, or by a listener for many.

    `on_batch` runs in the loop and must not block; nor must `on_refused`, called when the peer's machine says that
    nothing listens there (ICMP port unreachable). Call `close` from the loop; it closes the socket.
    """

    def __init__(
        self,
        socket: UdpSocket,
        on_batch: Callable[[list[ReceivedBuffer]], None],
        on_refused: Callable[[], None] | None = None,
    ) -> None:
        self.socket = socket
        self.dropped = 0
        self._on_batch = on_batch
        self._on_refused = on_refused
        self._loop = asyncio.get_running_loop()
        self._unsent: list[tuple[bytes, Address]] = []
        self._loop.add_reader(socket.fileno(), self._on_readable)

    @property
    def local_address(self) -> Address:
        """Where the socket is bound."""
        return self.socket.local_address

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
        batch = self.socket.receive_batch()
        if batch:
            self._on_batch(batch)
        elif self._on_refused is not None and self._is_refused():
            self._on_refused()

    def _is_refused(self) -> bool:
        return self.socket.last_error is not None and self.socket.last_error.errno == errno.ECONNREFUSED

    def _on_writable(self) -> None:
        taken = self.socket.send_batch(self._unsent)
        del self._unsent[:taken]
        if not self._unsent:
            self._loop.remove_writer(self.socket.fileno())

    def _keep(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
        room = MAX_UNSENT - len(self._unsent)
        self._unsent.extend(datagrams[:room])
        self.dropped += max(0, len(datagrams) - room)
