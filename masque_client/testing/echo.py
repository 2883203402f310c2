"""UDP targets that answer and remember who asked; and whose socket it was, by the kernel's word."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import Self

from masque_client.engine.interface import Address

MAX_DATAGRAM_BYTES = 65_535


class EchoTarget:
    """Sends every datagram back, its own name in front. Use as a context manager.

    Args:
        listen: a UDP address; port 0 takes a free one, see `address`.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(self, name: str, listen: Address) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_INET6 if ":" in listen[0] else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind(listen)
        except OSError:
            self._socket.close()
            raise
        self.address: Address = self._socket.getsockname()[:2]
        self.sources: list[Address] = []
        """Where datagrams came from, oldest first."""
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # ENOTCONN: it wakes the reader all the same
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                data, source = self._socket.recvfrom(MAX_DATAGRAM_BYTES)
            except OSError:
                return
            if not data and not source:
                return  # woken by shutdown
            self.sources.append(source[:2])
            with contextlib.suppress(OSError):
                self._socket.sendto(self.name.encode() + b":" + data, source)


def udp_ports_of(process_id: int) -> set[int]:
    """The local UDP ports of a process of ours in this network namespace: its sockets, looked up in the kernel's table.

    Raises:
        OSError: there is no such process, or it is somebody else's.
    """
    inodes = set()
    for entry in Path(f"/proc/{process_id}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            link = str(entry.readlink())
            if link.startswith("socket:["):
                inodes.add(link.removeprefix("socket:[").removesuffix("]"))
    ports = set()
    for table in (Path("/proc/net/udp"), Path("/proc/net/udp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            fields = line.split()
            if fields[9] in inodes:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports
