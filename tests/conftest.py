"""Options and skips that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ("tests.engine_pairs",)

# The same examples on every run, so that a failure is a change of ours; and a busy machine is no reason to fail.
settings.register_profile(
    "steady", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--interop", action="store_true", help="also run the tests marked interop")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    missing = _missing_for_netns()
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))
        if item.get_closest_marker("interop") and not config.getoption("--interop"):
            item.add_marker(pytest.mark.skip(reason="foreign programs: run with --interop"))
        if missing and item.get_closest_marker("netns"):
            item.add_marker(pytest.mark.skip(reason=f"NEEDS {missing}: the real kernel is not tested here"))


def _missing_for_netns() -> str | None:
    if os.geteuid() != 0:
        return "root"
    if not Path("/dev/net/tun").exists():
        return "/dev/net/tun"
    return None
