"""Foreign programs, built at first use: fetched by their own package manager, kept in the user's cache, never here.

    server = GoProgram("connectip-server", "connectip", "./server").build()

A built program lies in `$XDG_CACHE_HOME/masque-connect/interop` (or `~/.cache/…`) under a name that holds a fingerprint
of everything it was made from, so that a changed source or pin means a new build.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from platformdirs import user_cache_path

GO_SOURCES: Final = Path(__file__).parent / "go"
BUILD_TIMEOUT_S: Final = 600.0


class Unavailable(Exception):
    """A program cannot be had here: a toolchain is missing, or nothing can be fetched. What to do, as a sentence."""


class BuildFailed(Exception):
    """The toolchain and the sources are there and do not fit: somebody's mistake. The compiler's words."""


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A program of one of our Go modules under go/, or of a module that it pins.

    Attributes:
        name: of the built file.
        module: the directory under go/.
        package: what to build, seen from there: `./server`, or an import path.
    """

    name: str
    module: str
    package: str

    def build(self) -> Path:
        """The program, built if need be.

        Raises:
            Unavailable: no Go, or its modules cannot be fetched.
            BuildFailed: it does not compile.
        """
        if shutil.which("go") is None:
            raise Unavailable("NEEDS the Go toolchain, 1.26 or newer (https://go.dev/dl): `go` is not installed")
        directory = GO_SOURCES / self.module
        sources = [path for path in directory.rglob("*") if path.suffix in {".go", ".mod", ".sum"}]
        return built(self.name, fingerprint(sources, self.package, _go(directory, "version")), self._make)

    def _make(self, output: Path) -> None:
        directory = GO_SOURCES / self.module
        try:
            _go(directory, "mod", "download")
        except BuildFailed as error:
            raise Unavailable(f"NEEDS the Go modules of {self.name}, which cannot be fetched: {error}") from error
        _go(directory, "build", "-mod=readonly", "-trimpath", "-o", str(output), self.package)


def cache_directory() -> Path:
    """Where built programs lie; made if missing."""
    return user_cache_path("masque-connect", ensure_exists=True) / "interop"


def fingerprint(sources: Iterable[Path], *more: str) -> str:
    """A short hash of the files' names and contents and of whatever else decides what comes out."""
    digest = hashlib.sha256(repr(more).encode())
    for path in sorted(sources):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def built(name: str, mark: str, make: Callable[[Path], None]) -> Path:
    """The file `NAME-MARK` of the cache; `make` is asked to write it where told if it is not there yet."""
    program = cache_directory() / f"{name}-{mark}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=program.parent) as directory:
            output = Path(directory) / name
            make(output)
            output.replace(program)  # all at once: two runs may build at the same time
    return program


def run_tool(*command: str, directory: Path, timeout_s: float = BUILD_TIMEOUT_S) -> str:
    """Run a build tool; its stdout.

    Raises:
        BuildFailed: it failed or took too long, with the end of what it said.
    """
    environment = {**os.environ, "GOWORK": "off", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            command, cwd=directory, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"`{' '.join(command)}` took more than {timeout_s:g} s") from None
    if done.returncode:
        raise BuildFailed(f"`{' '.join(command)}`: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _go(directory: Path, *arguments: str) -> str:
    return run_tool("go", *arguments, directory=directory)
