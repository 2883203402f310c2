"""The foreign programs. Every module here has `PEERS`; adding a file adds rows to the matrix."""

from __future__ import annotations

import importlib
import pkgutil

from tests.interop.peer import Peer


def all_peers() -> list[Peer]:
    """All of them, by the names of their files."""
    modules = sorted(info.name for info in pkgutil.iter_modules(__path__))
    return [peer for name in modules for peer in importlib.import_module(f"{__name__}.{name}").PEERS]
