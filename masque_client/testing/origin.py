"""An HTTP/1.1 origin for transfers: fast enough that a tunnel in front of it is what gets measured. Not for production.

    GET /healthz          200 "ok"
    GET /download/BYTES   BYTES of fixed pseudo-random content
    GET /sha256/BYTES     the SHA-256 of that content, in hex (never while a download is being timed)
    PUT /upload           takes a body with a Content-Length, answers {"bytes", "sha256", "seconds"}

One thread per connection, blocking sockets, `sendall` of large views and `recv_into` a large buffer: on this path
asyncio would cost more than it gives. Request heads are parsed by h11; bodies never pass through it. Uploads are
kept whole in memory so that hashing starts when the clock has stopped: MAX_UPLOAD_BYTES bounds that.

    python -m masque_client.testing.origin --listen 127.0.0.1:8080 --listen [::1]:8080 [--dns 127.0.0.1:5353]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Self

import h11

from masque_client.engine.interface import Address
from masque_client.testing.addresses import format_address, parse_address
from masque_client.testing.dns import DnsResponder, origin_records

BLOCK_BYTES = 1 << 20
MAX_TRANSFER_BYTES = 16 << 30
MAX_UPLOAD_BYTES = 1 << 30
HEAD_BYTES = 64 * 1024
IDLE_TIMEOUT_S = 120.0


@functools.cache
def content_block() -> bytes:
    """The 1 MiB that downloads repeat: random, so that nothing on the way compresses it, and always the same."""
    return random.Random("masque-connect origin").randbytes(BLOCK_BYTES)


@functools.lru_cache(maxsize=64)
def content_sha256(size: int) -> str:
    """Hex SHA-256 of the first `size` bytes of what `/download/` serves."""
    digest = hashlib.sha256()
    whole, rest = divmod(size, BLOCK_BYTES)
    for _ in range(whole):
        digest.update(content_block())
    digest.update(content_block()[:rest])
    return digest.hexdigest()


class Origin:
    """Listeners and their threads. Use as a context manager, or call `start` and `close`.

    Args:
        listen: addresses to listen on; port 0 takes a free one, see `addresses`.

    Raises:
        OSError: an address cannot be bound.
    """

    def __init__(self, listen: Sequence[Address]) -> None:
        content_block()  # built now, not inside somebody's first download
        self._listeners: list[socket.socket] = []
        self._acceptors: list[threading.Thread] = []
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._lock = threading.Lock()
        try:
            for address in listen:
                family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
                self._listeners.append(socket.create_server(address, family=family, backlog=64))
        except OSError:
            self.close()
            raise

    @property
    def addresses(self) -> list[Address]:
        """Where the listeners are bound, in the order given."""
        return [listener.getsockname()[:2] for listener in self._listeners]

    def start(self) -> None:
        """Serve, each listener and each connection in a thread of its own, until `close`."""
        for listener in self._listeners:
            thread = threading.Thread(target=self._accept, args=(listener,), daemon=True)
            thread.start()
            self._acceptors.append(thread)

    def close(self) -> None:
        """Stop listening, cut open connections and wait for every thread. May be called twice."""
        for listener in self._listeners:
            _shut_down(listener)  # wakes accept(), which close() alone does not
        for thread in self._acceptors:
            thread.join()
        for listener in self._listeners:
            listener.close()
        with self._lock:
            connections = dict(self._connections)
        for thread, connection in connections.items():
            _shut_down(connection)
            thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            with self._lock:
                self._connections[thread] = connection
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # the client went away; there is nobody to tell
            connection.settimeout(IDLE_TIMEOUT_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _Exchange(connection).serve()
        with self._lock:
            del self._connections[threading.current_thread()]


class _Exchange:
    """The requests of one connection, one after the other (RFC 9112 §9.3)."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._unread = b""  # received beyond the last request head
        self._keep_alive = True

    def serve(self) -> None:
        """Answer requests until either side has had enough."""
        while self._keep_alive:
            try:
                request = self._read_head()
                if request is None:
                    return
                self._answer(request)
            except h11.RemoteProtocolError as error:
                self._keep_alive = False
                self._respond(HTTPStatus(error.error_status_hint), str(error))

    def _read_head(self) -> h11.Request | None:
        """The next request head, or None at the end of the connection."""
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        data = self._unread or self._socket.recv(HEAD_BYTES)
        while data:
            parser.receive_data(data)
            event = parser.next_event()
            if isinstance(event, h11.Request):
                self._unread = parser.trailing_data[0]
                return event
            data = self._socket.recv(HEAD_BYTES)
        return None

    def _answer(self, request: h11.Request) -> None:
        headers = dict(request.headers)
        self._keep_alive = request.http_version == b"1.1" and headers.get(b"connection", b"").lower() != b"close"
        method, path = request.method.decode(), request.target.decode()
        length = int(headers.get(b"content-length", b"0"))
        if b"transfer-encoding" in headers:
            raise h11.RemoteProtocolError("send a Content-Length", error_status_hint=HTTPStatus.LENGTH_REQUIRED)
        if length > (MAX_UPLOAD_BYTES if method == "PUT" else 0):
            raise h11.RemoteProtocolError("too much content", error_status_hint=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if method == "PUT" and path == "/upload":
            self._receive_upload(length, expect_continue=headers.get(b"expect", b"").lower() == b"100-continue")
        elif method != "GET":
            self._keep_alive = False  # content may follow that nobody will read
            self._respond(HTTPStatus.METHOD_NOT_ALLOWED, "GET, or PUT /upload")
        elif path == "/healthz":
            self._respond(HTTPStatus.OK, "ok")
        else:
            self._answer_content(path)

    def _answer_content(self, path: str) -> None:
        resource, _, count = path.removeprefix("/").partition("/")
        if resource not in ("download", "sha256") or not (count.isascii() and count.isdigit() and len(count) <= 12):
            self._respond(HTTPStatus.NOT_FOUND, "/healthz, /download/BYTES, /sha256/BYTES or PUT /upload")
        elif int(count) > MAX_TRANSFER_BYTES:
            self._respond(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_TRANSFER_BYTES} bytes")
        elif resource == "sha256":
            self._respond(HTTPStatus.OK, content_sha256(int(count)))
        else:
            self._send_download(int(count))

    def _send_download(self, size: int) -> None:
        self._socket.sendall(_head(HTTPStatus.OK, size, "application/octet-stream", keep_alive=self._keep_alive))
        whole, rest = divmod(size, BLOCK_BYTES)
        block = memoryview(content_block())
        for _ in range(whole):
            self._socket.sendall(block)
        self._socket.sendall(block[:rest])

    def _receive_upload(self, size: int, *, expect_continue: bool) -> None:
        if expect_continue:
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = memoryview(bytearray(size))
        early, self._unread = self._unread[:size], self._unread[size:]
        body[: len(early)] = early
        received = len(early)
        started = time.perf_counter()
        while received < size:
            count = self._socket.recv_into(body[received:])
            if not count:
                raise ConnectionError("the client closed the connection in the middle of an upload")
            received += count
        seconds = time.perf_counter() - started
        answer = {"bytes": size, "sha256": hashlib.sha256(body).hexdigest(), "seconds": seconds}
        self._respond(HTTPStatus.OK, json.dumps(answer), content_type="application/json")

    def _respond(self, status: HTTPStatus, text: str, *, content_type: str = "text/plain") -> None:
        content = text.encode()
        self._socket.sendall(_head(status, len(content), content_type, keep_alive=self._keep_alive) + content)


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # already closed, or never connected
        connection.shutdown(socket.SHUT_RDWR)


def _head(status: HTTPStatus, length: int, content_type: str, *, keep_alive: bool) -> bytes:
    connection = "" if keep_alive else "Connection: close\r\n"
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {length}\r\n{connection}\r\n"
    ).encode()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the origin alone until SIGINT or SIGTERM; one JSON line on stdout says that it is ready."""
    parser = argparse.ArgumentParser(description="HTTP (and DNS) origin for demos and tests. Not for production.")
    parser.add_argument("--listen", action="append", type=parse_address, required=True, metavar="ADDR:PORT")
    parser.add_argument("--dns", action="append", type=parse_address, default=[], metavar="ADDR:PORT")
    options = parser.parse_args(arguments)
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before any thread, which inherits the mask
    try:
        records = origin_records([host for host, _ in options.listen])
        with Origin(options.listen) as origin, DnsResponder(options.dns, records) as responder:
            ready = {
                "ready": "origin",
                "pid": os.getpid(),
                "http": [format_address(address) for address in origin.addresses],
                "dns": [format_address(address) for address in responder.addresses],
            }
            sys.stdout.write(json.dumps(ready) + "\n")
            sys.stdout.flush()
            signal.sigwait(signals)
    except OSError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
