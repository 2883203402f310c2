"""--http: what is said when the wanted HTTP version cannot reach the proxy."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cli.commands import Outcome, failed

NOBODY = "https://127.0.0.1:9"
FORWARD = "127.0.0.1:0=192.0.2.1:53"
UNREACHABLE = 7


def test_http3_alone_names_the_way_out(run: Callable[..., Outcome]) -> None:
    outcome = run("udp", FORWARD, "--proxy", NOBODY, "--http", "3")
    failed(outcome, UNREACHABLE, error="nothing listens on UDP port 9", hint="--http auto")


def test_http2_alone(run: Callable[..., Outcome]) -> None:
    outcome = run("udp", FORWARD, "--proxy", NOBODY, "--http", "2")
    failed(outcome, UNREACHABLE, error="nothing listens on TCP port 9", hint="network")


def test_auto_gives_both_reasons(run: Callable[..., Outcome]) -> None:
    outcome = run("udp", FORWARD, "--proxy", NOBODY)
    failed(outcome, UNREACHABLE, error="nothing listens on TCP port 9", hint="proxy")
    assert "UDP port 9" in outcome.error


@pytest.mark.netns
def test_up_has_the_option_too(up: Callable[..., Outcome]) -> None:
    failed(up(NOBODY, "--http", "3"), UNREACHABLE, error="nothing listens on UDP port 9", hint="--http auto")
