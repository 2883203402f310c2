"""Sources of credentials: files and programs, renewed outside, and nothing of them in any message."""

from __future__ import annotations

import asyncio
import base64
import os
import select
import sys
from pathlib import Path

import pytest

from masque_client.errors import ConfigurationError
from masque_client.http.credentials import BasicCredentials, BearerCommand, BearerFile
from masque_client.netio.secret_file import MAX_BYTES, read_secret
from tests.unit.http.loops import in_loop


def private(directory: Path, text: str, mode: int = 0o600) -> Path:
    file = directory / "secret"
    file.write_text(text)
    file.chmod(mode)
    return file


def shell(script: str, *, timeout_s: float = 10.0) -> BearerCommand:
    return BearerCommand(["/bin/sh", "-c", script], timeout_s=timeout_s)


def is_let_go_of(pipe: int) -> bool:
    """Whether nobody holds a pipe's other end, within ten seconds: who was killed may take a moment to be gone."""
    try:
        return os.read(pipe, 1) == b""
    except BlockingIOError:
        return bool(select.select([pipe], [], [], 10)[0]) and os.read(pipe, 1) == b""


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_files_that_others_may_touch_are_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigurationError, match="read by others") as caught:
        read_secret(private(tmp_path, "hunter2", mode))
    assert caught.value.hint.startswith("chmod 600") and "hunter2" not in str(caught.value)


def test_files_that_cannot_be_secrets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_secret(tmp_path / "nothing")
    with pytest.raises(ConfigurationError, match="directory"):
        read_secret(tmp_path)
    with pytest.raises(ConfigurationError, match="longer than any secret"):
        read_secret(private(tmp_path, "x" * (MAX_BYTES + 1)))


@in_loop
async def test_basic(tmp_path: Path) -> None:
    credentials = BasicCredentials("jürgen", private(tmp_path, "pass: wörd\n"))
    assert base64.b64decode((await credentials.value()).removeprefix(b"Basic ")).decode() == "jürgen:pass: wörd"
    for text in ("", "\n", "one\ntwo\n", "a\tb"):
        private(tmp_path, text)
        with pytest.raises(ConfigurationError, match="holds no password"):
            await credentials.value()
    for user in ("a:b", "a\r\nb"):
        with pytest.raises(ConfigurationError, match="colon or control"):
            BasicCredentials(user, tmp_path)


@in_loop
async def test_a_token_file_is_read_each_time(tmp_path: Path) -> None:
    credentials = BearerFile(private(tmp_path, " first~/==\n"))
    assert await credentials.value() == b"Bearer first~/=="
    private(tmp_path, "second")
    assert await credentials.value(b"Bearer first~/==") == b"Bearer second"
    for text in ("", "two words", "a\r\nx: y", "=", "tökén"):
        private(tmp_path, text)
        with pytest.raises(ConfigurationError, match="no bearer token") as caught:
            await credentials.value()
        assert "words" not in str(caught.value) + caught.value.hint.removeprefix("a token is one word")


@in_loop
async def test_a_command_runs_only_when_it_must(tmp_path: Path) -> None:
    count = tmp_path / "count"
    credentials = shell(f"echo x >> {count}; wc -l < {count}")

    def runs() -> int:
        return len(count.read_text().splitlines())

    assert {await value for value in [credentials.value() for _ in range(3)]} == {b"Bearer 1"}
    assert runs() == 1
    both = set(await asyncio.gather(credentials.value(b"Bearer 1"), credentials.value(b"Bearer 1")))
    assert both == {b"Bearer 2"}, "requests that were refused together share one run"
    assert await credentials.value(b"Bearer 1") == b"Bearer 2", "an old refusal says nothing about the new token"
    assert runs() == 2


@in_loop
async def test_a_command_that_has_nothing_new_is_left_alone_for_a_while(tmp_path: Path) -> None:
    count = tmp_path / "count"
    credentials = shell(f"echo x >> {count}; echo same")
    assert await credentials.value() == b"Bearer same"
    for _ in range(5):
        assert await credentials.value(b"Bearer same") == b"Bearer same"
    assert len(count.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("echo secret; exit 3", "exit status 3"),
        ("echo two secrets", "is no bearer token"),
        ("exit 0", "is no bearer token"),
        ("yes secret", "printed too much"),
        ("kill -9 $$", "exit status -9"),
    ],
)
@in_loop
async def test_a_command_that_fails(script: str, error: str) -> None:
    with pytest.raises(ConfigurationError, match=error) as caught:
        await shell(script).value()
    assert "secret" not in str(caught.value) + caught.value.hint


@in_loop
async def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """A child holds a pipe for as long as it lives. How far the command has come when it is killed does not matter."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(ConfigurationError, match=r"no token within 0\.5 s"):
            await shell(f"sleep 600 > {path} & wait", timeout_s=0.5).value()
        assert await asyncio.to_thread(is_let_go_of, pipe)
    finally:
        os.close(pipe)


@in_loop
async def test_a_command_that_does_not_exist_or_is_empty() -> None:
    with pytest.raises(ConfigurationError, match="cannot be run: No such file"):
        await BearerCommand(["/nowhere/token"]).value()
    with pytest.raises(ConfigurationError, match="empty"):
        BearerCommand([])


@in_loop
async def test_there_is_no_shell_in_between() -> None:
    script = "import sys; print(len(sys.argv[1]))"
    assert await BearerCommand([sys.executable, "-c", script, "$(echo hi); x"]).value() == b"Bearer 13"
