"""Building foreign programs: what is kept, and how the three ways to fail are told apart. Nothing is fetched here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from tests.interop import programs
from tests.interop.programs import BuildFailed, GoProgram, Unavailable, built, fingerprint


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GOCACHE", str(user_cache_path("go-build")))  # the compiled standard library stays known
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "masque-connect" / "interop"


@pytest.fixture
def go_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if shutil.which("go") is None:
        pytest.skip("NEEDS the Go toolchain")
    directory = tmp_path / "sources" / "module"
    directory.mkdir(parents=True)
    (directory / "go.mod").write_text("module masque-connect.test/try\n\ngo 1.21\n")
    (directory / "main.go").write_text("package main\n\nfunc main() {}\n")
    monkeypatch.setattr(programs, "GO_SOURCES", directory.parent)
    monkeypatch.setenv("GOFLAGS", "-buildvcs=false")
    monkeypatch.setenv("GOTOOLCHAIN", "local")
    return directory


def test_a_program_is_made_once_per_fingerprint(cache: Path) -> None:
    made: list[Path] = []

    def make(output: Path) -> None:
        made.append(output)
        output.write_text("a program")

    first = built("gopher", "1", make)
    assert (first, first.read_text()) == (cache / "gopher-1", "a program")
    assert built("gopher", "1", make) == first
    assert built("gopher", "2", make) != first
    assert len(made) == 2


def test_a_failed_build_leaves_nothing(cache: Path) -> None:
    def make(output: Path) -> None:
        output.write_text("half a program")
        raise BuildFailed("no")

    with pytest.raises(BuildFailed):
        built("gopher", "1", make)
    assert list(cache.iterdir()) == []


def test_the_fingerprint_follows_names_contents_and_tools(tmp_path: Path) -> None:
    source = tmp_path / "main.go"
    source.write_text("one")
    one = fingerprint([source], "go1")
    assert fingerprint([source], "go2") != one
    source.write_text("two")
    assert fingerprint([source], "go1") != one
    source.write_text("one")
    assert fingerprint([source], "go1") == one


def test_without_go_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"NEEDS the Go toolchain.*https://go\.dev/dl"):
        GoProgram("gopher", "module", ".").build()


@pytest.mark.slow
def test_what_compiles_is_built(go_module: Path, cache: Path) -> None:
    program = GoProgram("gopher", "module", ".").build()
    assert program.parent == cache and program.stat().st_mode & 0o111


@pytest.mark.slow
def test_what_does_not_compile_is_a_failure(go_module: Path) -> None:
    (go_module / "main.go").write_text("package main\n\nfunc main() { nonsense }\n")
    with pytest.raises(BuildFailed, match="nonsense"):
        GoProgram("gopher", "module", ".").build()


@pytest.mark.slow
def test_what_cannot_be_fetched_is_a_skip(go_module: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (go_module / "go.mod").open("a") as file:
        file.write("\nrequire masque-connect.test/nowhere v1.0.0\n")
    monkeypatch.setenv("GOPROXY", "off")
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
    with pytest.raises(Unavailable, match="cannot be fetched"):
        GoProgram("gopher", "module", ".").build()
