"""A UDP socket that moves trains: many datagrams per system call, in both directions.

Outbound, consecutive datagrams of equal size become one `sendmsg` with UDP_SEGMENT (GSO); inbound, the kernel hands
over a whole train with UDP_GRO and says its segment size. Python pays once per train instead of once per datagram.
The loops over system calls are in `offload`, compiled where they could be; what happens seldom is here.
The socket is non-blocking and knows nothing of event loops, engines or QUIC: watch `fileno()` for readiness.

Rules of the house:

- Nothing raises per datagram. What the network answers (ICMP, a full queue, a route that went away) is counted in
  `counters` and kept in `last_error`; a datagram is allowed to be lost.
- Don't Fragment is set (RFC 9000 §14), so a datagram over the path MTU is refused here and counted as `too_large`.
- A kernel or device that refuses GSO is asked once: that train goes out one by one, and so does all that follows.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from masque_client.engine.interface import Address, ReceivedBuffer
from masque_client.netio.offload import receive_trains, send_trains
from masque_client.netio.sockopt import enable_gro, format_address, open_udp, route_mtu, translated_errors

logger = logging.getLogger(__name__)

RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""Kernel receive buffer: about 30 ms of 1 Gbit/s, for when the interpreter is busy elsewhere."""

SEND_BUFFER_BYTES: Final = 1024 * 1024
"""Kernel send buffer: about a dozen trains. More would only hide the path's queue from congestion control."""

_MAY_BE_LATE: Final = frozenset(
    {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPROTO, errno.EMSGSIZE}
)
"""Errors that may answer an earlier datagram (ICMP): the kernel reports it once, at whatever call comes next."""

_NO_GSO: Final = frozenset({errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT})
"""How kernels and devices refuse trains. Older kernels also say EINVAL when the segments exceed the path MTU."""


@dataclass(slots=True)
class UdpCounters:
    """What went through a socket. Counters only grow.

    `too_large` datagrams exceeded the path MTU; `dropped` ones were refused for any other reason (no route, no
    buffers, a firewall). `icmp_errors` answered earlier datagrams. `empty` zero-length datagrams were skipped by
    `receive_batch`. Datagrams per call tell how well trains form: a received train, or lone datagram, counts as a call.
    """

    datagrams_sent: int = 0
    bytes_sent: int = 0
    send_calls: int = 0
    datagrams_received: int = 0
    bytes_received: int = 0
    receive_calls: int = 0
    too_large: int = 0
    dropped: int = 0
    icmp_errors: int = 0
    empty: int = 0


class UdpSocket:
    """One non-blocking UDP socket, IPv4 or IPv6, connected to one peer or bound for many. Not thread-safe.

    Make it with `connected` or `bound`. The constructor adopts a socket made elsewhere.

    Attributes:
        remote: the peer of a connected socket, else None.
        counters: see `UdpCounters`.
        gso_enabled: False once the kernel refused a train.
        gro_enabled: False where the kernel has no UDP_GRO.
        last_error: the most recent error the network answered with, or None.
    """

    def __init__(self, sock: socket.socket, remote: Address | None = None) -> None:
        self.remote = remote
        self.counters = UdpCounters()
        self.gso_enabled = True
        self.gro_enabled = enable_gro(sock)
        self.last_error: OSError | None = None
        self._socket = sock
        self._family = 0 if remote is not None else int(sock.family)

    @classmethod
    def connected(
        cls,
        remote: Address,
        *,
        local: Address | None = None,
        mark: int | None = None,
        receive_buffer: int = RECEIVE_BUFFER_BYTES,
        send_buffer: int = SEND_BUFFER_BYTES,
    ) -> Self:
        """A socket that talks to `remote` only; the kernel filters everything else.

        Args:
            remote: IP literal and port.
            local: the source to use; by default the route's address and a free port.
            mark: firewall mark (SO_MARK), which keeps the socket out of our own tunnel's routes.
            receive_buffer: bytes asked of the kernel, which may grant less to an unprivileged process.
            send_buffer: likewise.

        Raises:
            ConnectError: no route to `remote`, or its family is switched off on this machine.
            AddressInUse: `local` is taken or not an address of this machine.
            PrivilegeError: `mark` needs CAP_NET_ADMIN.
        """
        sock = open_udp(remote, mark=mark, receive_buffer=receive_buffer, send_buffer=send_buffer)
        try:
            if local is not None:
                with translated_errors(local):
                    sock.bind(local)
            with translated_errors(remote):
                sock.connect(remote)
        except BaseException:
            sock.close()
            raise
        return cls(sock, remote)

    @classmethod
    def bound(
        cls,
        local: Address,
        *,
        mark: int | None = None,
        reuse_port: bool = False,
        receive_buffer: int = RECEIVE_BUFFER_BYTES,
        send_buffer: int = SEND_BUFFER_BYTES,
    ) -> Self:
        """A socket that listens on `local` (port 0: a free one) and talks to anyone of the same family.

        `::` listens on IPv6 only, so that a peer's address is always of the socket's family.

        Raises:
            AddressInUse: `local` is taken or not an address of this machine.
            PrivilegeError: `mark` needs CAP_NET_ADMIN, or the port CAP_NET_BIND_SERVICE.
        """
        sock = open_udp(local, mark=mark, receive_buffer=receive_buffer, send_buffer=send_buffer)
        try:
            with translated_errors(local):
                if reuse_port:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                sock.bind(local)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    # --- receiving ------------------------------------------------------------------------------------------------

    def receive_batch(self, limit: int = 64) -> list[ReceivedBuffer]:
        """Take what has arrived, at most `limit` trains, in order; empty when there is nothing.

        Zero-length datagrams are counted and skipped, since no QUIC packet is empty; so is what ICMP has to say.
        Reaching the limit leaves the descriptor readable.
        """
        batch, empty = self._receive(limit)
        if not empty:
            return batch
        self.counters.empty += empty
        return [buffer for buffer in batch if buffer.data]

    def receive_datagrams(self, limit: int = 64) -> list[tuple[bytes, Address]]:
        """Take what has arrived as single datagrams, zero-length ones included; at most `limit` trains of them."""
        datagrams: list[tuple[bytes, Address]] = []
        for data, size, address in self._receive(limit)[0]:
            if len(data) <= size:
                datagrams.append((data, address))
            else:
                datagrams += [(data[start : start + size], address) for start in range(0, len(data), size)]
        return datagrams

    def _receive(self, limit: int) -> tuple[list[ReceivedBuffer], int]:
        """What has arrived, counted; and how many of them are empty."""
        batch, datagrams, octets, empty, errors = receive_trains(self._socket, limit, self.remote)
        counters = self.counters
        counters.receive_calls += len(batch)
        counters.datagrams_received += datagrams
        counters.bytes_received += octets
        for number in errors:
            self._note_icmp(_error(number))
        return batch, empty

    # --- sending --------------------------------------------------------------------------------------------------

    def send_batch(self, datagrams: Sequence[tuple[bytes, Address]]) -> int:
        """Send in order; returns how many, from the front, are dealt with (sent, or dropped and counted).

        Fewer than given means that the socket's buffer is full: keep the rest, wait until the descriptor is writable,
        and offer them again. A connected socket sends to its peer whatever the addresses say.
        """
        position, count, counters = 0, len(datagrams), self.counters
        while position < count:
            start = position
            position, end, refusal, calls, octets = send_trains(
                self._socket, datagrams, start, self._family, self.gso_enabled
            )
            counters.send_calls += calls
            counters.datagrams_sent += position - start
            counters.bytes_sent += octets
            if refusal not in (0, errno.EAGAIN):
                position = self._send_singly(datagrams, position, end, _error(refusal))
            if position < end:
                break
        return position

    def _send_singly(self, datagrams: Sequence[tuple[bytes, Address]], start: int, end: int, refusal: OSError) -> int:
        """Send what was refused as one, one by one, and learn what the trouble was; returns how far it went."""
        failures_before = self.counters.too_large + self.counters.dropped
        for position in range(start, end):
            if not self._send_one(*datagrams[position]):
                return position
        if self.counters.too_large + self.counters.dropped > failures_before:
            return end
        if refusal.errno in _MAY_BE_LATE:
            self._note_icmp(refusal)
        elif refusal.errno in _NO_GSO and end - start > 1:
            self.gso_enabled = False
            logger.warning(
                "UDP segmentation offload refused on %s (%s); sending datagrams one by one",
                format_address(self.local_address),
                refusal.strerror,
            )
        return end

    def _send_one(self, data: bytes, address: Address) -> bool:
        """Send one datagram or count why not; False when the socket's buffer is full."""
        late = False
        while True:
            try:
                if self.remote is None:
                    self._socket.sendto(data, address)
                else:
                    self._socket.send(data)
            except BlockingIOError:
                return False
            except OSError as error:
                self.last_error = error
                if error.errno in _MAY_BE_LATE and not late:
                    late = True  # reporting it has cleared it, so this datagram deserves its own try
                    continue
                self._count_refused(error)
                return True
            counters = self.counters
            counters.icmp_errors += late
            counters.send_calls += 1
            counters.datagrams_sent += 1
            counters.bytes_sent += len(data)
            return True

    def _count_refused(self, error: OSError) -> None:
        if error.errno == errno.EBADF:
            raise error
        if error.errno == errno.EMSGSIZE:
            self.counters.too_large += 1
        else:
            self.counters.dropped += 1

    def _note_icmp(self, error: OSError) -> None:
        self.last_error = error
        self.counters.icmp_errors += 1

    # --- the rest -------------------------------------------------------------------------------------------------

    def path_mtu(self) -> int | None:
        """The largest IP packet, headers included, that the kernel believes the route to the peer carries.

        It starts as the device's or route's MTU and shrinks with ICMP "fragmentation needed" or "packet too big".
        None for a socket without a peer or route.
        """
        return route_mtu(self._socket)

    @property
    def local_address(self) -> Address:
        """Our end. Of a bound socket it may be the wildcard address."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    def fileno(self) -> int:
        """The descriptor, for readiness callbacks; -1 when closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the descriptor; harmless when repeated. Remove readiness callbacks first."""
        self._socket.close()


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
