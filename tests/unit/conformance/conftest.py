"""The pairs of tests/unit/engine."""

from tests.unit.engine.conftest import (
    authority,
    client_configuration,
    client_engine,
    leaf,
    make_pair,
    server_configuration,
    server_engine,
)

__all__ = [
    "authority",
    "client_configuration",
    "client_engine",
    "leaf",
    "make_pair",
    "server_configuration",
    "server_engine",
]
