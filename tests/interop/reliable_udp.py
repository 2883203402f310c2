"""A UDP service and its client: echo, sizes, and transfers that survive loss, with SHA-256.

A request is a letter and its arguments, the answer comes from where the request went; an empty datagram is echoed.

    E payload               the same back
    L anything              L and the length of the whole request, 4 bytes
    P id seq data           A id seq            a piece of an upload; `id` names the transfer
    H id count              H and the SHA-256 of the `count` pieces that have come, 32 bytes
    G id seq                D id seq data       a piece of the content that the HTTP origin serves, too
    I size                  sends packets with DF until one of at most `size` bytes is confirmed (see `_probe`)

Every piece is asked for and answered by itself, with a window that grows by one a round and halves on loss.

    python -m tests.interop.reliable_udp --listen 192.0.2.80:7000 --listen [2001:db8::80]:7000
"""

from __future__ import annotations

import argparse
import hashlib
import os
import secrets
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from masque_client.engine.interface import Address
from masque_client.testing.addresses import format_address, parse_address
from masque_client.testing.origin import content_block, content_sha256
from tests.interop.model import CellFailed

PIECE_BYTES: Final = 1100
HEAD: Final = struct.Struct("!cII")
RESEND_AFTER_S: Final = 0.3
FIRST_WINDOW, LAST_WINDOW = 8, 48
BUFFER_BYTES: Final = 4 << 20
PROBES, PROBE_WAIT_S = 8, 0.4

# Numbers of <linux/in.h> and <linux/in6.h> that the socket module does not name.
IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU = 10, 2, 14
IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO, IPV6_MTU = 23, 2, 24


# --- the service ---------------------------------------------------------------------------------------------------


class Service:
    """Answers on one socket, in one thread. Uploads are kept until somebody asks for their digest."""

    def __init__(self, listen: Address) -> None:
        self._socket = udp_socket(listen[0])
        self._socket.bind(listen)
        self.address: Address = self._socket.getsockname()[:2]
        self._uploads: dict[int, dict[int, bytes]] = {}
        self._is_closing = False

    def serve(self) -> None:
        """Until `close`, called by another thread."""
        content_block()
        while not self._is_closing:
            request, source = self._socket.recvfrom(65535)
            if request[:1] == b"I":
                threading.Thread(target=_probe, args=(request, self.address[0], source), daemon=True).start()
            elif (answer := self._answer(request)) is not None:
                try:
                    self._socket.sendto(answer, source)
                except OSError as error:  # such as EMSGSIZE: lost, as UDP may be
                    sys.stderr.write(f"{len(answer)} bytes to {source}: {error}\n")
        self._socket.close()

    def close(self) -> None:
        """End `serve`."""
        self._is_closing = True
        with udp_socket(self.address[0]) as sock:
            sock.sendto(b"E", self.address)  # wakes it

    def _answer(self, request: bytes) -> bytes | None:
        match request[:1]:
            case b"" | b"E":
                return request
            case b"L":
                return b"L" + struct.pack("!I", len(request))
            case b"P":
                _, transfer, sequence = HEAD.unpack_from(request)
                self._uploads.setdefault(transfer, {})[sequence] = request[HEAD.size :]
                return HEAD.pack(b"A", transfer, sequence)
            case b"G":
                _, transfer, sequence = HEAD.unpack_from(request)
                return HEAD.pack(b"D", transfer, sequence) + _piece(sequence, PIECE_BYTES)
            case b"H":
                _, transfer, count = HEAD.unpack_from(request)
                pieces = self._uploads.get(transfer, {})
                content = b"".join(pieces[index] for index in range(count) if index in pieces)
                return b"H" + hashlib.sha256(content).digest()
        return None


def _probe(request: bytes, host: str, client: Any) -> None:
    """Send as much as the kernel believes may pass, until the client confirms: PTBs teach the kernel better."""
    size = int.from_bytes(request[1:3], "big")
    with udp_socket(host) as sock:
        sock.bind((host, 0))
        sock.connect(client)
        forbid_fragments(sock)
        sock.settimeout(PROBE_WAIT_S)
        for _ in range(PROBES):
            try:
                packet = min(size, path_mtu(sock))
                sock.send(b"I" + packet.to_bytes(2, "big") + bytes(packet - headers(sock) - 3))
                if sock.recv(100) == b"C" + packet.to_bytes(2, "big"):
                    return
            except OSError:  # EMSGSIZE: learnt since; a timeout: lost
                continue


def _piece(sequence: int, size: int) -> bytes:
    block = content_block()
    start = sequence * PIECE_BYTES % len(block)
    piece = block[start : start + size]
    return piece + block[: size - len(piece)]


# --- its clients ---------------------------------------------------------------------------------------------------


def ask(address: Address, request: bytes, *, tries: int = 10, wait_s: float = 0.5) -> bytes:
    """The answer to one request, asked again when lost.

    Raises:
        CellFailed: none came.
    """
    with udp_socket(address[0]) as sock:
        sock.connect(address)
        sock.settimeout(wait_s)
        for _ in range(tries):
            try:
                sock.send(request)
                return sock.recv(65535)
            except TimeoutError:
                continue
            except OSError:  # ECONNREFUSED: the port is not open yet
                time.sleep(wait_s / 5)
    raise CellFailed(f"no answer to {len(request)} bytes in {tries} tries of {wait_s:g} s")


def echo(address: Address, payload: bytes, *, tries: int = 10, wait_s: float = 0.5) -> None:
    """Send a payload and get it back. Raises `CellFailed`."""
    request = b"E" + payload if payload else b""
    if (answer := ask(address, request, tries=tries, wait_s=wait_s)) != request:
        raise CellFailed(f"{len(request)} bytes came back as {len(answer)} others")


def upload(address: Address, size: int, *, patience_s: float = 60.0) -> float:
    """Send `size` bytes; returns the seconds it took. Raises `CellFailed`, also when the digests differ."""
    transfer = secrets.randbits(32)
    count = -(-size // PIECE_BYTES)
    content = content_block() * -(-size // len(content_block()))

    def request(sequence: int) -> bytes:
        piece = content[sequence * PIECE_BYTES : min(size, (sequence + 1) * PIECE_BYTES)]
        return HEAD.pack(b"P", transfer, sequence) + piece

    seconds = _exchange(address, count, request, lambda sequence, answer: None, transfer, patience_s)
    digest = ask(address, HEAD.pack(b"H", transfer, count), wait_s=2.0)[1:].hex()
    if digest != content_sha256(size):
        raise CellFailed("SHA-256 differs")
    return seconds


def download(address: Address, size: int, *, patience_s: float = 60.0) -> float:
    """Fetch `size` bytes; as `upload`."""
    transfer = secrets.randbits(32)
    count = -(-size // PIECE_BYTES)
    pieces: dict[int, bytes] = {}
    seconds = _exchange(
        address, count, lambda sequence: HEAD.pack(b"G", transfer, sequence), pieces.__setitem__, transfer, patience_s
    )
    content = b"".join(pieces[sequence] for sequence in range(count))[:size]
    if hashlib.sha256(content).hexdigest() != content_sha256(size):
        raise CellFailed("SHA-256 differs")
    return seconds


def _exchange(
    address: Address,
    count: int,
    request: Callable[[int], bytes],
    on_answer: Callable[[int, bytes], None],
    transfer: int,
    patience_s: float,
) -> float:
    """Ask for every piece until every piece is answered."""
    started = time.monotonic()
    waiting: dict[int, float] = {}  # the oldest request first
    again: list[int] = []
    window, next_piece, answered = float(FIRST_WINDOW), 0, 0
    with udp_socket(address[0]) as sock, selectors.DefaultSelector() as selector:
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ)
        while answered < count:
            now = time.monotonic()
            if now - started > patience_s:
                raise CellFailed(f"{answered} of {count} pieces in {patience_s:g} s")
            while len(waiting) < window and (again or next_piece < count):
                sequence = again.pop() if again else next_piece
                next_piece += sequence == next_piece
                waiting[sequence] = now
                try_to_send(sock, request(sequence), address)
            selector.select(RESEND_AFTER_S / 4)
            while (answer := _receive(sock)) is not None:
                _, of, sequence = HEAD.unpack_from(answer)
                if of == transfer and waiting.pop(sequence, None) is not None:
                    on_answer(sequence, answer[HEAD.size :])
                    answered += 1
                    window = min(LAST_WINDOW, window + 1 / window)
            late = [sequence for sequence, sent in waiting.items() if time.monotonic() - sent > RESEND_AFTER_S]
            for sequence in late:
                del waiting[sequence]
            if late:
                again += late
                window = max(FIRST_WINDOW, window / 2)
    return time.monotonic() - started


def inbound_mtu(address: Address, *, packet_bytes: int, tries: int = 4) -> int:
    """The size of the largest IP packet, DF set, that the service can get to us, told by PTBs alone.

    Raises:
        CellFailed: none came: PTBs are missing or wrong.
    """
    request = b"I" + packet_bytes.to_bytes(2, "big")
    with udp_socket(address[0]) as sock:
        sock.settimeout(PROBES * PROBE_WAIT_S)
        for _ in range(tries):
            sock.sendto(request, address)
            try:
                probe, source = sock.recvfrom(65535)
            except TimeoutError:
                continue
            sock.sendto(b"C" + probe[1:3], source)
            return int.from_bytes(probe[1:3], "big")
    raise CellFailed(f"no inbound packet of up to {packet_bytes} bytes with DF arrived: PTBs are missing or wrong")


# --- sockets --------------------------------------------------------------------------------------------------------


def udp_socket(host: str) -> socket.socket:
    """An unbound UDP socket of the host's family with generous buffers."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    return sock


def forbid_fragments(sock: socket.socket) -> None:
    """DF on everything; what is larger than the known path MTU fails with EMSGSIZE."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)


def path_mtu(sock: socket.socket) -> int:
    """What the kernel believes of a connected socket's path, bytes of IP packet."""
    if sock.family == socket.AF_INET6:
        return sock.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU)
    return sock.getsockopt(socket.IPPROTO_IP, IP_MTU)


def headers(sock: socket.socket) -> int:
    """Bytes of IP and UDP headers."""
    return 48 if sock.family == socket.AF_INET6 else 28


def try_to_send(sock: socket.socket, data: bytes, address: Address) -> None:
    """Send one datagram; what the kernel refuses, for want of room or of a listener, is as good as lost."""
    try:
        sock.sendto(data, address)
    except OSError:
        pass


def _receive(sock: socket.socket) -> bytes | None:
    try:
        return sock.recv(65535)
    except OSError:
        return None


def main() -> None:
    """Serve until killed; one line of JSON when ready."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", action="append", type=parse_address, required=True, metavar="ADDR:PORT")
    services = [Service(listen) for listen in parser.parse_args().listen]
    listening = ", ".join(f'"{format_address(service.address)}"' for service in services)
    print(f'{{"ready": "reliable-udp", "pid": {os.getpid()}, "listen": [{listening}]}}', flush=True)
    for service in services[1:]:
        threading.Thread(target=service.serve, daemon=True).start()
    services[0].serve()


if __name__ == "__main__":
    main()
