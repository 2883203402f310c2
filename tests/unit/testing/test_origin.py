"""The origin: content, digests, uploads, and what it answers to requests it does not serve."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from masque_client.testing.addresses import parse_address
from masque_client.testing.dns import query
from masque_client.testing.origin import BLOCK_BYTES, MAX_TRANSFER_BYTES, MAX_UPLOAD_BYTES, Origin, content_sha256

TIMEOUT_S = 60.0


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin([("127.0.0.1", 0), ("::1", 0)]) as running:
        yield running


@pytest.fixture
def client(origin: Origin) -> Iterator[httpx.Client]:
    host, port = origin.addresses[0]
    with httpx.Client(base_url=f"http://{host}:{port}", trust_env=False, timeout=TIMEOUT_S) as opened:
        yield opened


def raw(origin: Origin, request: bytes) -> bytes:
    """What comes back for `request` until the origin closes."""
    with socket.create_connection(origin.addresses[0], timeout=TIMEOUT_S) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("size", [0, 1, 1000, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 7])
def test_download_has_the_announced_length_and_digest(client: httpx.Client, size: int) -> None:
    content = client.get(f"/download/{size}").content
    assert len(content) == size
    assert client.get(f"/sha256/{size}").text == hashlib.sha256(content).hexdigest() == content_sha256(size)


def test_content_does_not_change_between_versions() -> None:
    assert content_sha256(1000) == "9ebd44262150f078f616ab5992d3ce06d876d5aeecec65f524acc14c515afef0"


def test_ipv6_listener(origin: Origin) -> None:
    assert httpx.get(f"http://[::1]:{origin.addresses[1][1]}/healthz", trust_env=False, timeout=TIMEOUT_S).text == "ok"


@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_upload_reports_bytes_digest_and_seconds(client: httpx.Client, size: int) -> None:
    body = bytes(index % 251 for index in range(size))
    answer = client.put("/upload", content=body).json()
    assert (answer["bytes"], answer["sha256"]) == (size, hashlib.sha256(body).hexdigest())
    assert answer["seconds"] >= 0


def test_upload_with_expect_continue(origin: Origin) -> None:
    answer = raw(origin, b"PUT /upload HTTP/1.1\r\nHost: o\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi")
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_pipelined_requests_are_answered_in_order(origin: Origin) -> None:
    upload = b"PUT /upload HTTP/1.1\r\nHost: o\r\nContent-Length: 3\r\n\r\nabc"
    answer = raw(
        origin, b"GET /healthz HTTP/1.1\r\nHost: o\r\n\r\n" + upload + b"GET /nope HTTP/1.1\r\nHost: o\r\n\r\n"
    )
    assert re.findall(rb"HTTP/1\.1 (\d+) ", answer) == [b"200", b"200", b"404"]
    assert hashlib.sha256(b"abc").hexdigest().encode() in answer


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 404),
        ("GET", "/download/-1", {}, 404),
        ("GET", "/download/1e3", {}, 404),
        ("GET", f"/download/{MAX_TRANSFER_BYTES + 1}", {}, 413),
        ("DELETE", "/healthz", {}, 405),
        ("PUT", "/upload", {"Content-Length": str(MAX_UPLOAD_BYTES + 1)}, 413),
        ("PUT", "/upload", {"Transfer-Encoding": "chunked"}, 411),
    ],
)
def test_what_it_does_not_serve(origin: Origin, method: str, path: str, headers: dict[str, str], status: int) -> None:
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answer = raw(origin, f"{method} {path} HTTP/1.1\r\nHost: o\r\n{fields}\r\n".encode())
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())


def test_not_http_is_answered_with_400(origin: Origin) -> None:
    assert raw(origin, b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_connection_close_is_honoured(origin: Origin) -> None:
    with socket.create_connection(origin.addresses[0], timeout=TIMEOUT_S) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: o\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))  # ends only because the origin closes
    assert b"Connection: close\r\n" in answer


def test_close_ends_open_connections() -> None:
    origin = Origin([("127.0.0.1", 0)])
    origin.start()
    with socket.create_connection(origin.addresses[0], timeout=TIMEOUT_S) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: o\r\n\r\n")
        assert connection.recv(65536)
        origin.close()
        assert connection.recv(65536) == b""
    origin.close()


def test_taken_port_is_an_oserror(origin: Origin) -> None:
    with pytest.raises(OSError):
        Origin([("127.0.0.1", 0), origin.addresses[0]])


def test_command_line_serves_http_and_dns_and_stops_on_sigterm() -> None:
    command = [sys.executable, "-m", "masque_client.testing.origin"]
    options = ["--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--dns", "127.0.0.1:0"]
    with subprocess.Popen(command + options, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["pid"] == process.pid
        urls = [f"http://{where}/healthz" for where in ready["http"]]
        assert [httpx.get(url, trust_env=False, timeout=TIMEOUT_S).text for url in urls] == ["ok", "ok"]
        assert query(parse_address(ready["dns"][0]), "origin.masque.test", timeout_s=TIMEOUT_S).values == ("127.0.0.1",)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=TIMEOUT_S) == 0


def test_command_line_says_why_it_cannot_listen(origin: Origin) -> None:
    host, port = origin.addresses[0]
    command = [sys.executable, "-m", "masque_client.testing.origin", "--listen", f"{host}:{port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stdout == ""
