"""Two TUN devices in two namespaces, and a thread that carries packets between them as a tunnel does: one by one."""

from __future__ import annotations

import hashlib
import os
import select
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from masque_client.netio.tun import TunDevice
from masque_client.testing.netns import Namespace

MTU = 1400
TIMEOUT_S = 60.0

Meddler = Callable[[TunDevice, list[bytes]], list[bytes]]


class Bridge:
    """Carries while entered.

    Args:
        meddle: sees every batch with the device it came from, and returns what goes on.

    Attributes:
        largest: bytes of the largest packet so far.
    """

    def __init__(self, left: TunDevice, right: TunDevice, meddle: Meddler = lambda _, packets: packets) -> None:
        self.largest = 0
        self._ways = {left.fileno(): (left, right), right.fileno(): (right, left)}
        self._meddle = meddle
        self._stop_read, self._stop_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name="bridge")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.write(self._stop_write, b".")
        self._thread.join()
        os.close(self._stop_read)
        os.close(self._stop_write)

    def _run(self) -> None:
        poll = select.poll()
        for descriptor in (*self._ways, self._stop_read):
            poll.register(descriptor, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._stop_read:
                    return
                source, sink = self._ways[descriptor]
                packets = source.read_batch()
                self.largest = max(self.largest, *map(len, packets), 0)
                sink.write_batch(self._meddle(source, packets))


def attach(namespace: Namespace, number: int, *, offload: bool) -> TunDevice:
    """A device in `namespace`, up, with the addresses 192.0.2.NUMBER and 2001:db8::NUMBER."""
    namespace.sysctl("net.ipv6.conf.default.addr_gen_mode", 1)  # no link-local address, so no unasked packets
    with namespace.entered():
        device = TunDevice.open("tun0", offload=offload)
    namespace.ip("address", "add", f"192.0.2.{number}/24", "dev", "tun0")
    namespace.ip("address", "add", f"2001:db8::{number}/64", "dev", "tun0", "nodad")
    namespace.ip("link", "set", "tun0", "mtu", str(MTU), "up")
    return device


def transfer(
    sender: Namespace, receiver: Namespace, address: str, size: int, prepare: Callable[[socket.socket], object] = id
) -> None:
    """Send random bytes over TCP to `address` and compare hashes. `prepare` is given the socket before it connects."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    data = os.urandom(size)
    with receiver.entered():
        listener = socket.create_server((address, 0), family=family)
    with sender.entered():
        client = socket.socket(family, socket.SOCK_STREAM)
    prepare(client)
    client.settimeout(TIMEOUT_S)
    listener.settimeout(TIMEOUT_S)
    with listener:
        client.connect(listener.getsockname()[:2])
        server, _ = listener.accept()

    def send() -> None:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)

    received = hashlib.sha256()
    with server:
        server.settimeout(TIMEOUT_S)
        sending = threading.Thread(target=send)
        sending.start()
        while chunk := server.recv(1 << 18):
            received.update(chunk)
        sending.join()
    client.close()
    assert received.digest() == hashlib.sha256(data).digest()
