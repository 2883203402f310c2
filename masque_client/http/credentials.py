"""Where the secret of an Authorization field comes from: a file, or a program that prints it.

A source is asked anew for each request, so that what is renewed outside is used from then on without a restart.
Nothing secret is ever put in a message, a log or an argument.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from masque_client.errors import ConfigurationError
from masque_client.netio.secret_file import read_secret

COMMAND_TIMEOUT_S = 10.0
"""A program that has not printed its token by then is killed."""
MAX_COMMAND_OUTPUT = 64 * 1024
PIPE_TIMEOUT_S = 1.0
"""For the pipe of a killed program to end; somebody who left its process group may still hold it."""
RERUN_INTERVAL_S = 5.0
"""After a program printed again the very token that was refused, it is not asked before."""

_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
"""`b64token`, RFC 6750 §2.1."""


class Credentials(Protocol):
    """What authenticates us."""

    @property
    def scheme(self) -> str:
        """The authentication scheme, in lower case (RFC 9110 §11.1)."""

    async def value(self, refused: bytes | None = None) -> bytes:
        """The value of the Authorization field, scheme included.

        Args:
            refused: the value that the proxy refused just now: the source looks whether it has another one, and
                returns this one again when it has not.

        Raises:
            ConfigurationError: the source has none that can be used. The message shows nothing of it.
        """


class BasicCredentials:
    """A user and the password in a private file (RFC 7617), in UTF-8."""

    scheme = "basic"

    def __init__(self, user: str, password_file: Path) -> None:
        if ":" in user or _has_controls(user):
            raise ConfigurationError("the user's name has a colon or control characters", hint="RFC 7617 forbids them")
        self._user = user
        self._file = password_file

    async def value(self, refused: bytes | None = None) -> bytes:
        """See `Credentials`."""
        password = read_secret(self._file).removesuffix("\n").removesuffix("\r")
        if not password or _has_controls(password):
            raise ConfigurationError(f"{self._file} holds no password", hint="write it in one line, nothing else")
        return b"Basic " + base64.b64encode(f"{self._user}:{password}".encode())


class BearerFile:
    """A token in a private file (RFC 6750)."""

    scheme = "bearer"

    def __init__(self, file: Path) -> None:
        self._file = file

    async def value(self, refused: bytes | None = None) -> bytes:
        """See `Credentials`."""
        return _bearer(read_secret(self._file), str(self._file))


class BearerCommand:
    """A token that a program prints. It runs when the first token is needed, and when one was refused.

    There is no shell in between, its stderr is discarded, and its output goes nowhere but into the request.
    """

    scheme = "bearer"

    def __init__(self, argv: Sequence[str], *, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        if not argv:
            raise ConfigurationError("the token command is empty")
        self._argv = tuple(argv)
        self._timeout_s = timeout_s
        self._latest: bytes | None = None
        self._not_before = 0.0
        self._turn = asyncio.Lock()  # the requests that wait for one run share its outcome

    async def value(self, refused: bytes | None = None) -> bytes:
        """See `Credentials`."""
        async with self._turn:
            now = asyncio.get_running_loop().time()
            if self._latest is None or (self._latest == refused and now >= self._not_before):
                latest = _bearer(await self._run(), f"the output of {self._argv[0]}")
                if latest == refused:
                    self._not_before = now + RERUN_INTERVAL_S
                self._latest = latest
            return self._latest

    async def _run(self) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise self._failed(f"cannot be run: {error.strerror}") from error
        try:
            async with asyncio.timeout(self._timeout_s):
                output = await _read_bounded(process)
                code = await process.wait() if output is not None else None
        except TimeoutError:
            await _kill(process)
            raise self._failed(f"printed no token within {self._timeout_s:g} s") from None
        except BaseException:
            await _kill(process)
            raise
        if output is None:
            await _kill(process)
            raise self._failed("printed too much")
        if code != 0:
            raise self._failed(f"ended with exit status {code}")
        return output.decode(errors="replace")

    def _failed(self, how: str) -> ConfigurationError:
        return ConfigurationError(f"the token command {self._argv[0]} {how}", hint="run it by hand to see why")


async def _read_bounded(process: asyncio.subprocess.Process) -> bytes | None:
    """All that it prints; None when that is more than anybody's token."""
    assert process.stdout is not None
    output = b""
    while more := await process.stdout.read(MAX_COMMAND_OUTPUT):
        output += more
        if len(output) > MAX_COMMAND_OUTPUT:
            return None
    return output


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Leave nothing of the program, its children included."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    assert process.stdout is not None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PIPE_TIMEOUT_S):
            while await process.stdout.read(MAX_COMMAND_OUTPUT):
                pass  # asyncio closes a pipe only when it was read to its end
    await process.wait()


def _bearer(text: str, source: str) -> bytes:
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        raise ConfigurationError(f"{source} is no bearer token", hint="a token is one word of ASCII (RFC 6750 §2.1)")
    return b"Bearer " + token.encode()


def _has_controls(text: str) -> bool:
    return any(ord(character) < 0x20 or ord(character) == 0x7F for character in text)
