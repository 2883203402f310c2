"""Measured transfers against the real origin, and against servers that fail in the middle."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from masque_client.errors import ConfigurationError, ConnectError, ConnectionLost, TimedOut
from masque_client.testing.origin import MAX_UPLOAD_BYTES, Origin, content_sha256
from masque_client.testing.transfer import TransferResult, download, main, upload

Transfer = Callable[..., TransferResult]
SIZE = 3_000_000


@pytest.fixture
def url() -> Iterator[str]:
    with Origin([("127.0.0.1", 0)]) as origin:
        yield f"http://127.0.0.1:{origin.addresses[0][1]}"


@contextmanager
def server(answer: bytes, *, keep_open: bool = False) -> Iterator[str]:
    """A server that reads one request, says `answer` and closes, or keeps silent."""
    finished = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
                if keep_open:
                    finished.wait()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            finished.set()
            thread.join()


@pytest.mark.parametrize("transfer", [download, upload])
def test_transfer_counts_times_and_compares(url: str, transfer: Transfer) -> None:
    result = transfer(url, SIZE)
    assert result.bytes == SIZE
    assert result.sha256 == result.origin_sha256 == content_sha256(SIZE)
    assert result.sha256_ok
    assert result.seconds > 0
    assert result.mbit_s == pytest.approx(SIZE * 8 / 1e6 / result.seconds)
    assert result.to_dict().keys() >= {"direction", "bytes", "seconds", "mbit_s", "sha256_ok"}


def test_one_byte(url: str) -> None:
    assert download(url, 1).sha256_ok
    assert upload(url, 1).sha256_ok


@pytest.mark.parametrize("transfer", [download, upload])
def test_progress_grows_to_at_most_the_size(url: str, transfer: Transfer) -> None:
    seen: list[int] = []
    transfer(url, SIZE, report_progress=seen.append)
    assert seen
    assert seen == sorted(seen)
    assert seen[-1] <= SIZE


def test_different_content_is_noticed() -> None:
    result = TransferResult("download", 3, 0.0, "aa", "bb")
    assert not result.sha256_ok
    assert result.mbit_s == 0


@pytest.mark.parametrize("bad", ["ftp://127.0.0.1", "127.0.0.1:80", "http://", "http://h:99999"])
def test_unusable_urls(bad: str) -> None:
    with pytest.raises(ConfigurationError):
        download(bad, 1)


@pytest.mark.parametrize("size", [0, -1, MAX_UPLOAD_BYTES + 1])
def test_unusable_sizes(url: str, size: int) -> None:
    with pytest.raises(ConfigurationError):
        download(url, size)


def test_nobody_listens() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectError, match="refused"):
            download(f"http://127.0.0.1:{reserved.getsockname()[1]}", 1)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", ConnectionLost),
        (HEAD, ConnectionLost),
        (HEAD + b"abc", ConnectionLost),
        (HEAD + b"0123456789abcdef", ConnectError),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", ConnectError),
        (b"SSH-2.0-OpenSSH\r\n\r\n", ConnectError),
    ],
)
def test_failing_origins(answer: bytes, error: type[Exception]) -> None:
    with server(answer) as url, pytest.raises(error):
        download(url, 10)


def test_silence_times_out() -> None:
    with server(HEAD + b"abc", keep_open=True) as url, pytest.raises(TimedOut):
        download(url, 10, timeout_s=0.05)


def test_command_line_json(url: str) -> None:
    command = [sys.executable, "-m", "masque_client.testing.transfer", "upload", url, "--bytes", "100000", "--json"]
    done = subprocess.run([*command, "--progress"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert json.loads(done.stdout)["sha256_ok"] is True
    assert "upload" in done.stderr  # the bar


def test_command_line_for_people(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", url, "--bytes", "1000", "--no-progress"]) == 0
    output = capsys.readouterr()
    assert "download: 1000 bytes in " in output.out
    assert output.err == ""


def test_command_line_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "http://", "--no-progress"]) == 1
    output = capsys.readouterr()
    assert output.err.startswith("error: ")
    assert "\nhint: " in output.err
