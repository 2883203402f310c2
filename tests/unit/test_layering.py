"""Imports run one way; this walks them and says who broke the rule and why it is one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# room -> the rooms it may import. Everything may import `errors`; a room may import itself.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "protocol": set(),
    "engine": {"protocol"},
    "netio": {"engine", "protocol"},
    "http": {"netio", "engine", "protocol"},
    "dataplane": {"http", "netio", "engine", "protocol"},
    "sockets": {"http", "netio", "engine", "protocol"},
    "host": {"netio", "engine", "protocol"},
    "pvd": {"http", "netio", "engine", "protocol"},
    "tunnel": {"dataplane", "sockets", "host", "pvd", "http", "netio", "engine", "protocol"},
    "testing": {"tunnel", "dataplane", "sockets", "host", "pvd", "http", "netio", "engine", "protocol"},
}
# Sans-IO code gets time, randomness and bytes as arguments (design: "protocol/, pvd/match").
PURE = ["masque_client/protocol", "masque_client/pvd/match.py", "masque_client/pvd/model.py"]
IMPURE_MODULES = {"asyncio", "os", "random", "secrets", "select", "socket", "subprocess", "threading", "time"}
# Each library behind an adapter has its importers named: swapping it must touch these files and no other.
IMPORTERS = {
    "aioquic": {
        "masque_client/engine/aioquic_engine.py",
        "masque_client/engine/aioquic_quic.py",
        "masque_client/engine/aioquic_congestion.py",
    },
    "qh3": {"masque_client/engine/qh3_engine.py", "masque_client/engine/qh3_quic.py"},
    "h2": {"masque_client/engine/h2_engine.py", "masque_client/engine/h2_listener.py"},
}


def imported_modules(file: Path) -> set[str]:
    """Every module a file imports, at any depth, type-checking blocks included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write the full name so that this test can read it"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def python_files(*roots: str) -> list[Path]:
    return sorted(file for root in roots for file in (ROOT / root).rglob("*.py"))


def test_rooms_import_downward_only() -> None:
    wrong = []
    for file in python_files("masque_client"):
        parts = file.relative_to(ROOT / "masque_client").with_suffix("").parts
        room = parts[0]
        if room == "__init__":
            continue  # the public names: the composition root may see every room
        for module in imported_modules(file):
            target = module.split(".")
            if target[0] in ("masque_connect", "cli"):
                wrong.append(f"{file}: the library must not know the command line ({module})")
            if target[0] != "masque_client" or len(target) < 2 or target[1] in (room, "errors"):
                continue
            if target[1] not in ALLOWED[room]:
                wrong.append(f"{file}: {room} may not import {module}; it may import {sorted(ALLOWED[room])}")
    assert not wrong, "\n".join(wrong)


def test_every_room_is_in_the_table() -> None:
    rooms = {path.name for path in (ROOT / "masque_client").iterdir() if (path / "__init__.py").exists()}
    assert rooms <= set(ALLOWED), f"add the new room to the table with its reason: {rooms - set(ALLOWED)}"


@pytest.mark.parametrize("root", PURE)
def test_sans_io_code_has_no_clock_and_no_socket(root: str) -> None:
    files = python_files(root) or [ROOT / root]
    wrong = [
        f"{file} imports {module}: it must come in as an argument"
        for file in files
        if file.exists()
        for module in imported_modules(file)
        if module.split(".")[0] in IMPURE_MODULES
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", IMPORTERS)
def test_carrier_libraries_are_imported_by_their_adapters_only(library: str) -> None:
    importers = {
        str(file.relative_to(ROOT))
        for file in python_files("masque_client", "cli")
        if any(module.split(".")[0] == library for module in imported_modules(file))
    }
    assert importers == IMPORTERS[library], f"{library} is imported by {importers}"
