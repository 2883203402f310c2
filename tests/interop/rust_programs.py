"""Foreign programs in Rust: our crates under rust/, pinned by their Cargo.lock, and binaries of published crates.

    peer = RustProgram("quiche-peer").build()
    server = CrateProgram("masquerade-proxy", "0.1.0", "server").build()

Compiled objects of our crates are kept in the cache beside the programs (`programs.cache_directory`): BoringSSL alone
takes minutes.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.interop.programs import BuildFailed, Unavailable, built, cache_directory, fingerprint, run_tool

RUST_SOURCES: Final = Path(__file__).parent / "rust"
BUILD_TIMEOUT_S: Final = 1800.0
OLDEST_RUST: Final = (1, 88)
LIBCLANG: Final = "libclang==18.1.1"


@dataclass(frozen=True, slots=True)
class RustProgram:
    """The program of one of our crates under rust/.

    Attributes:
        name: of the directory, the crate and the built file.
        needs: commands that its dependencies are built with.
        needs_libclang: whether one of them reads C headers while it is built (bindgen).
    """

    name: str
    needs: tuple[str, ...] = ()
    needs_libclang: bool = False

    def build(self) -> Path:
        """The program, built if need be.

        Raises:
            Unavailable: no Rust, or its crates cannot be fetched.
            BuildFailed: it does not compile.
        """
        rust = _find_rust(self.name, self.needs)
        directory = RUST_SOURCES / self.name
        sources = [path for path in directory.rglob("*") if path.suffix in {".rs", ".toml", ".lock"}]
        return built(self.name, fingerprint(sources, rust), self._make)

    def _make(self, output: Path) -> None:
        directory = RUST_SOURCES / self.name
        try:
            _cargo(directory, "fetch", "--locked")
        except BuildFailed as error:
            raise Unavailable(f"NEEDS the crates of {self.name}, which cannot be fetched: {error}") from error
        environment = _libclang() if self.needs_libclang else {}
        target = cache_directory() / "cargo"
        _cargo(directory, "build", "--locked", "--release", "--target-dir", str(target), environment=environment)
        shutil.copy2(target / "release" / self.name, output)


@dataclass(frozen=True, slots=True)
class CrateProgram:
    """A binary of a published crate, with the dependencies that its own Cargo.lock names."""

    crate: str
    version: str
    binary: str
    needs: tuple[str, ...] = ()

    def build(self) -> Path:
        """As `RustProgram.build`."""
        rust = _find_rust(self.crate, self.needs)
        return built(f"{self.crate}-{self.binary}", fingerprint([], self.crate, self.version, rust), self._make)

    def _make(self, output: Path) -> None:
        here = cache_directory()
        try:
            _cargo(here, "info", f"{self.crate}@{self.version}")
        except BuildFailed as error:
            raise Unavailable(f"NEEDS the crate {self.crate}, which cannot be fetched: {error}") from error
        with tempfile.TemporaryDirectory(dir=here) as root:
            command = ("install", self.crate, "--version", self.version, "--locked", "--bin", self.binary)
            _cargo(here, *command, "--root", root, "--target-dir", str(Path(root) / "objects"))
            shutil.move(Path(root) / "bin" / self.binary, output)


def authorization(basic: str | None) -> tuple[str, ...]:
    """The option that has a program of ours show or demand `USER:PASSWORD`: it sends or compares the whole field."""
    return ("--authorization", f"Basic {base64.b64encode(basic.encode()).decode()}") if basic else ()


def _find_rust(name: str, needs: tuple[str, ...]) -> str:
    """The compiler's version, as it says it. Raises `Unavailable`."""
    oldest = ".".join(map(str, OLDEST_RUST))
    hint = f"NEEDS the Rust toolchain, {oldest} or newer (https://rustup.rs), for {name}"
    if missing := [command for command in ("cargo", "rustc", "nice", *needs) if shutil.which(command) is None]:
        raise Unavailable(f"{hint}: `{missing[0]}` is not installed")
    version = subprocess.run(("rustc", "--version"), capture_output=True, text=True, check=True).stdout.strip()
    found = re.match(r"rustc (\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_RUST:
        raise Unavailable(f"{hint}: here is {version}")
    return version


def _libclang() -> Mapping[str, str]:
    """The environment in which bindgen finds libclang: the user's, or the wheel that ships it, in the cache.

    Raises:
        Unavailable: it cannot be fetched.
    """
    if "LIBCLANG_PATH" in os.environ:
        return {}
    directory = cache_directory() / LIBCLANG.replace("==", "-")
    library = directory / "clang" / "native"
    if not (library / "libclang.so").exists():
        install = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(directory), LIBCLANG)
        try:
            run_tool(*install, directory=cache_directory())
        except BuildFailed as error:
            raise Unavailable(f"NEEDS libclang, which cannot be fetched (or LIBCLANG_PATH): {error}") from error
    # The wheel has no headers: the C compiler's own stddef.h and its kin will do.
    headers = run_tool("cc", "-print-file-name=include", directory=cache_directory()).strip()
    return {"LIBCLANG_PATH": str(library), "BINDGEN_EXTRA_CLANG_ARGS": f"-I{headers}"}


def _cargo(directory: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
    settings = (f"{name}={value}" for name, value in (environment or {}).items())
    run_tool("env", *settings, "nice", "cargo", *arguments, directory=directory, timeout_s=BUILD_TIMEOUT_S)
