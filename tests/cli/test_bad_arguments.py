"""What people type wrongly. Nothing is contacted, nothing is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from masque_connect.exit_codes import ExitCode
from tests.cli.commands import failed
from tests.cli.conftest import Run

PROXY = ("--proxy", "https://127.0.0.1:9")


def test_up_in_the_background(run: Run) -> None:
    outcome = run("up", "https://127.0.0.1:9")
    failed(outcome, ExitCode.BAD_CONFIGURATION, error="there is no background agent", hint="--foreground")


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("https://localhost/{target_host}", "lacks the variable target_port"),
        ("https://localhost/{target_host", "unbalanced braces"),
        ("http://localhost/{target_host}/{target_port}", "only https"),
    ],
)
def test_bad_templates(template: str, error: str, run: Run) -> None:
    outcome = run("udp", "0=127.0.0.1:9", "--proxy", template)
    failed(outcome, ExitCode.BAD_CONFIGURATION, error=error, hint="https://")


def test_a_header_file_that_others_can_read(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("authorization: Bearer SECRET")
    file.chmod(0o644)
    outcome = run("udp", "0=127.0.0.1:9", *PROXY, "--header-file", file)
    failed(outcome, ExitCode.BAD_CONFIGURATION, error="may be read by others", hint=f"chmod 600 {file}")
    assert "SECRET" not in outcome.stderr


def test_a_ca_file_that_is_none(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    outcome = run("udp", "0=127.0.0.1:9", *PROXY, "--ca", file)
    failed(outcome, ExitCode.BAD_CONFIGURATION, error=f"{file} holds no PEM certificate", hint="correct")


def test_a_pin_that_is_none(run: Run) -> None:
    outcome = run("udp", "0=127.0.0.1:9", *PROXY, "--pin", "sha256/AAAA")
    failed(outcome, ExitCode.BAD_CONFIGURATION, error="'sha256/AAAA' is no pin", hint="SubjectPublicKeyInfo")


@pytest.mark.parametrize("engine", ["aioquic", "qh3"])
def test_a_congestion_control_that_the_engine_lacks(engine: str, run: Run) -> None:
    outcome = run("udp", "0=127.0.0.1:9", *PROXY, "--engine", engine, "--congestion-control", "bbr")
    failed(outcome, ExitCode.BAD_CONFIGURATION, error=f"{engine} has no congestion control bbr", hint="it has: auto")


def test_a_local_port_for_everybody(run: Run) -> None:
    outcome = run("udp", "0.0.0.0:0=127.0.0.1:9", *PROXY)
    failed(outcome, ExitCode.BAD_CONFIGURATION, error="open proxy", hint="--listen-anywhere")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["udp", "0=127.0.0.1:9"], "--proxy"),
        (["down-under"], "invalid choice: 'down-under'"),
        (["discover", "localhost", "--colour"], "--colour"),
    ],
)
def test_wrong_usage(arguments: list[str], error: str, run: Run) -> None:
    failed(run(*arguments), ExitCode.USAGE, error=error, hint="--help")
