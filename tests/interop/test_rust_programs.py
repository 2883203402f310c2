"""Building programs in Rust, and finding sing-box: what is missing is told from what is broken. Nothing is fetched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.interop import rust_programs
from tests.interop.model import Protocol
from tests.interop.peer import ClientTask, ProxyTask
from tests.interop.peers.sing_box import PROGRAM_VARIABLE, SingBox, SingBoxHttp2, find_program
from tests.interop.programs import BuildFailed, Unavailable
from tests.interop.rust_programs import CrateProgram, RustProgram

RUSTC = 'echo "rustc 1.90.0 (abc 2026-01-01)"'
CARGO = """
case $1 in
    fetch | info) exit 0 ;;
    build) while [ "$1" != --target-dir ]; do shift; done; mkdir -p "$2/release" && echo ours > "$2/release/ferris" ;;
    install) while [ "$1" != --root ]; do shift; done; mkdir -p "$2/bin" && echo theirs > "$2/bin/server" ;;
esac
"""


class Commands:
    """Stand-ins for programs, first in PATH."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def put(self, name: str, script: str) -> Path:
        """Install one."""
        file = self.directory / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return file


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    commands = Commands(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{commands.directory}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    crate = tmp_path / "rust" / "ferris"
    crate.mkdir(parents=True)
    (crate / "Cargo.toml").write_text("[package]")
    monkeypatch.setattr(rust_programs, "RUST_SOURCES", crate.parent)
    commands.put("rustc", RUSTC)
    commands.put("cargo", CARGO)
    return commands


@pytest.mark.usefixtures("commands")
def test_builds_a_crate_of_ours_and_a_published_one() -> None:
    assert RustProgram("ferris").build().read_text() == "ours\n"
    assert CrateProgram("crab", "1.0.0", "server").build().read_text() == "theirs\n"


def test_without_a_toolchain(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    (commands.directory / "cargo").unlink()
    monkeypatch.setenv("PATH", str(commands.directory))
    with pytest.raises(Unavailable, match=r"NEEDS the Rust toolchain.*`cargo` is not installed"):
        RustProgram("ferris").build()


def test_an_old_toolchain(commands: Commands) -> None:
    commands.put("rustc", 'echo "rustc 1.70.0 (abc 2023-01-01)"')
    with pytest.raises(Unavailable, match=r"1\.88 or newer.*here is rustc 1\.70\.0"):
        CrateProgram("crab", "1.0.0", "server").build()


@pytest.mark.usefixtures("commands")
def test_a_missing_compiler_of_a_dependency() -> None:
    with pytest.raises(Unavailable, match="`no-such-cmake` is not installed"):
        RustProgram("ferris", needs=("no-such-cmake",)).build()


@pytest.mark.parametrize("program", [RustProgram("ferris"), CrateProgram("crab", "1.0.0", "server")])
def test_crates_that_cannot_be_fetched(commands: Commands, program: RustProgram | CrateProgram) -> None:
    commands.put("cargo", 'echo "no network" >&2; exit 101')
    with pytest.raises(Unavailable, match=r"cannot be fetched: (?s:.*)no network"):
        program.build()


@pytest.mark.parametrize("program", [RustProgram("ferris"), CrateProgram("crab", "1.0.0", "server")])
def test_sources_that_do_not_compile(commands: Commands, program: RustProgram | CrateProgram) -> None:
    commands.put("cargo", 'case $1 in fetch | info) exit 0 ;; esac; echo "error[E0382]" >&2; exit 101')
    with pytest.raises(BuildFailed, match="E0382"):
        program.build()


# --- sing-box -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "said"), [('echo "sing-box version 1.14.4"', "1\\.14\\.4"), ("exit 1", "says 'nothing'")]
)
def test_a_sing_box_without_masque(commands: Commands, script: str, said: str) -> None:
    commands.put("sing-box", script)
    with pytest.raises(Unavailable, match=said):
        find_program()


def test_sing_box_is_found_where_the_user_says(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = commands.put("my-own", 'echo "sing-box version 1.15.0-alpha.7"')
    monkeypatch.setenv(PROGRAM_VARIABLE, str(mine))
    assert find_program() == str(mine)
    mine.unlink()
    with pytest.raises(Unavailable, match="not found"):
        find_program()


@pytest.mark.parametrize(("peer", "version"), [(SingBox(), 3), (SingBoxHttp2(), 2)])
def test_what_sing_box_is_told(commands: Commands, tmp_path: Path, peer: SingBox, version: int) -> None:
    commands.put("sing-box", 'echo "sing-box version 1.15.0"')
    pem = tmp_path / "some.pem"
    proxy = ProxyTask(
        protocol=Protocol.IP,
        listen="192.0.2.2:4433",
        url="https://proxy.example:4433",
        certificate=pem,
        key=pem,
        ca=pem,
        pools=("10.67.0.0/24", "fd67::/64"),
        routes=("192.0.2.0/24",),
        mtu=1500,
        basic="me:secret",
        directory=tmp_path,
    )
    peer.proxy(proxy)
    endpoint = json.loads((tmp_path / "sing-box.json").read_text())["endpoints"][0]
    assert (endpoint["type"], endpoint["listen"], endpoint["listen_port"]) == ("masque-server", "192.0.2.2", 4433)
    assert endpoint["version"] == [version]
    assert endpoint["address"] == ["10.67.0.1/24", "fd67::1/64"]
    assert endpoint["users"] == [{"username": "me", "password": "secret"}]
    client = ClientTask(
        protocol=Protocol.IP,
        template="https://proxy.example:4433/.well-known/masque/ip/{target}/{ipproto}/",
        ca=pem,
        local="",
        target="",
        mtu=1500,
        basic=None,
        directory=tmp_path,
    )
    peer.client(client)
    endpoint = json.loads((tmp_path / "sing-box.json").read_text())["endpoints"][0]
    assert (endpoint["type"], endpoint["version"], endpoint["server_port"]) == ("masque-client", version, 4433)
    assert (endpoint["headers"], endpoint["tls"]["server_name"]) == ({"Host": "proxy.example:4433"}, "proxy.example")
    assert endpoint["path"] == "/.well-known/masque/ip/{target}/{ipproto}/"
    assert "username" not in endpoint
