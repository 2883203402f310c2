"""Measured transfers to and from `masque_client.testing.origin`, over whatever way the system routes.

The clock runs from the first to the last byte of content; digests are computed when it has stopped, and content is
kept in memory until then. Blocking sockets: the measuring must not become the bottleneck.

    python -m masque_client.testing.transfer download http://192.0.2.80:8080 --bytes 104857600 --json
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import http.client
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import h11
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeElapsedColumn, TransferSpeedColumn

from masque_client.errors import ConfigurationError, ConnectError, ConnectionLost, MasqueError, TimedOut
from masque_client.testing.origin import MAX_UPLOAD_BYTES as MAX_BYTES
from masque_client.testing.origin import content_block, content_sha256

CHUNK_BYTES = 1 << 20
PROGRESS_INTERVAL_S = 0.1

ReportProgress = Callable[[int], None]
"""Told how many bytes have been transferred in all; called at most every PROGRESS_INTERVAL_S."""


@dataclass(frozen=True, slots=True)
class TransferResult:
    """One finished transfer. `sha256` is of the bytes at the client, `origin_sha256` of those at the origin."""

    direction: Literal["download", "upload"]
    bytes: int
    seconds: float
    sha256: str
    origin_sha256: str

    @property
    def mbit_s(self) -> float:
        """Content megabits (10^6) per second between the first and the last byte."""
        return self.bytes * 8 / 1e6 / self.seconds if self.seconds else 0.0

    @property
    def sha256_ok(self) -> bool:
        """Whether what arrived is what was sent."""
        return self.sha256 == self.origin_sha256

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        measured = {"mbit_s": round(self.mbit_s, 1), "sha256_ok": self.sha256_ok}
        return dataclasses.asdict(self) | measured


def download(
    url: str, size: int, *, timeout_s: float = 30.0, report_progress: ReportProgress | None = None
) -> TransferResult:
    """Fetch `size` bytes from the origin at `url` (`http://HOST:PORT`). Blocks.

    `timeout_s` bounds each wait for the network, not the whole transfer.

    Raises:
        ConfigurationError: the URL or the size cannot be used.
        ConnectError, ConnectionLost, TimedOut: the network or the origin failed.
    """
    _check_size(size)
    with _Client(url, timeout_s) as client:
        client.send_request("GET", f"/download/{size}")
        received = client.read_head()
        if len(received) > size:
            raise ConnectError("the origin sent more than it announced")
        content = memoryview(bytearray(size))
        content[: len(received)] = received
        started = time.perf_counter()
        seconds = client.receive_into(content, len(received), report_progress) - started
        expected = client.get_text(f"/sha256/{size}")
    return TransferResult("download", size, seconds, hashlib.sha256(content).hexdigest(), expected)


def upload(
    url: str, size: int, *, timeout_s: float = 30.0, report_progress: ReportProgress | None = None
) -> TransferResult:
    """Send `size` bytes to the origin at `url`. As `download`; the seconds are the receiving origin's.

    The sender's own clock would stop when the kernel has taken the last byte, long before it has arrived.
    """
    _check_size(size)
    with _Client(url, timeout_s) as client:
        client.send_request("PUT", "/upload", f"Content-Length: {size}\r\n")
        client.send_content(size, report_progress)
        answer = json.loads(client.read_text())
    if answer["bytes"] != size:
        raise ConnectError(f"the origin received {answer['bytes']} of {size} bytes")
    return TransferResult("upload", size, answer["seconds"], content_sha256(size), answer["sha256"])


class SlowUpload:
    """One upload to an origin, sent in pieces when a test wants: a TCP flow that outlives what happens to it.

    A context manager; `finish` after the last piece. Blocks.
    """

    def __init__(self, address: tuple[str, int], size: int, *, timeout_s: float = 30.0) -> None:
        self._socket = socket.create_connection(address, timeout=timeout_s)
        self._content = memoryview(content_block() * -(-size // len(content_block())))[:size]
        self._sent = 0
        self._socket.sendall(f"PUT /upload HTTP/1.1\r\nHost: origin\r\nContent-Length: {size}\r\n\r\n".encode())

    def __enter__(self) -> SlowUpload:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, size: int) -> None:
        """The next `size` bytes."""
        self._socket.sendall(self._content[self._sent : self._sent + size])
        self._sent += size

    def finish(self) -> bool:
        """Wait for the origin's answer; whether it received exactly what was sent."""
        response = http.client.HTTPResponse(self._socket)
        response.begin()
        return bool(json.loads(response.read())["sha256"] == hashlib.sha256(self._content).hexdigest())


def _check_size(size: int) -> None:
    if not 0 < size <= MAX_BYTES:
        raise ConfigurationError(f"a transfer has 1 to {MAX_BYTES} bytes, not {size}")


def _content(size: int) -> Iterator[memoryview]:
    block = memoryview(content_block())
    while size:
        yield block[:size]
        size -= min(size, len(block))


class _Client:
    """One connection to the origin; translates the socket's errors into the package's."""

    def __init__(self, url: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port or 80
        except ValueError as error:
            raise ConfigurationError(f"{url}: {error}") from error
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigurationError(f"{url}: a URL looks like http://192.0.2.80:8080")
        self._authority = parts.netloc
        self._timeout_s = timeout_s
        try:
            self._socket = socket.create_connection((parts.hostname, port), timeout=timeout_s)
        except OSError as error:
            raise ConnectError(
                f"{self._authority}: {error}", hint="is the origin running, and is it routed?"
            ) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send_request(self, method: str, path: str, fields: str = "") -> None:
        with self._translated():
            self._socket.sendall(f"{method} {path} HTTP/1.1\r\nHost: {self._authority}\r\n{fields}\r\n".encode())

    def read_head(self) -> bytes:
        """Read a 200 response's head and at least one byte of content; returns the content read with it."""
        content, _ = self._read_response()
        return content or self._receive()

    def get_text(self, path: str) -> str:
        self.send_request("GET", path)
        return self.read_text()

    def read_text(self) -> str:
        content, length = self._read_response()
        while len(content) < length:
            content += self._receive()
        return content.decode()

    def receive_into(self, content: memoryview, received: int, report_progress: ReportProgress | None) -> float:
        """Fill `content` from `received` on; returns the time the last byte came."""
        due = 0.0
        with self._translated():
            while received < len(content):
                count = self._socket.recv_into(content[received : received + CHUNK_BYTES])
                if not count:
                    raise ConnectionLost(f"{self._authority} closed the connection after {received} bytes")
                received += count
                if report_progress and (now := time.perf_counter()) >= due:
                    report_progress(received)
                    due = now + PROGRESS_INTERVAL_S
        return time.perf_counter()

    def send_content(self, size: int, report_progress: ReportProgress | None) -> None:
        sent = 0
        with self._translated():
            for chunk in _content(size):
                self._socket.sendall(chunk)
                sent += len(chunk)
                if report_progress:
                    report_progress(sent)

    def _read_response(self) -> tuple[bytes, int]:
        """A 200 response's head: the content that came with it, and its Content-Length."""
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method="GET", target="/", headers=[("Host", self._authority)]))
        parser.send(h11.EndOfMessage())
        with self._translated():
            while not isinstance(response := parser.next_event(), h11.Response):
                parser.receive_data(self._receive())
        length = int(dict(response.headers).get(b"content-length", b"0"))
        if response.status_code != 200:
            raise ConnectError(f"the origin at {self._authority} answered {response.status_code}")
        return parser.trailing_data[0], length

    def _receive(self) -> bytes:
        with self._translated():
            data = self._socket.recv(64 * 1024)
        if not data:
            raise ConnectionLost(f"{self._authority} closed the connection")
        return data

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise TimedOut(f"{self._authority} was silent for {self._timeout_s:g} s") from error
        except OSError as error:
            raise ConnectionLost(f"{self._authority}: {error}") from error
        except h11.RemoteProtocolError as error:
            raise ConnectError(f"{self._authority} does not speak HTTP: {error}") from error


@contextlib.contextmanager
def _progress_bar(label: str, size: int, *, shown: bool) -> Iterator[ReportProgress | None]:
    if not shown:
        yield None
        return
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=size)
        yield lambda done: progress.update(task, completed=done)
        progress.update(task, completed=size)


def main(arguments: Sequence[str] | None = None) -> int:
    """One transfer from the command line; exit status 0 only when the digests agree."""
    parser = argparse.ArgumentParser(description="Measured transfer to or from the test origin.")
    parser.add_argument("direction", choices=["download", "upload"])
    parser.add_argument("url", metavar="URL", help="http://HOST:PORT of masque_client.testing.origin")
    parser.add_argument("--bytes", type=int, default=100 << 20, dest="size")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="longest silence accepted")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, default=sys.stderr.isatty())
    options = parser.parse_args(arguments)
    transfer = download if options.direction == "download" else upload
    try:
        with _progress_bar(options.direction, options.size, shown=options.progress) as report:
            result = transfer(options.url, options.size, timeout_s=options.timeout, report_progress=report)
    except MasqueError as error:
        sys.stderr.write(f"error: {error}\nhint: {error.hint}\n")
        return 1
    verdict = "SHA-256 equal" if result.sha256_ok else "SHA-256 DIFFERS"
    line = f"{result.direction}: {result.bytes} bytes in {result.seconds:.2f} s, {result.mbit_s:.1f} Mbit/s, {verdict}"
    sys.stdout.write((json.dumps(result.to_dict()) if options.json else line) + "\n")
    return 0 if result.sha256_ok else 1


if __name__ == "__main__":
    sys.exit(main())
