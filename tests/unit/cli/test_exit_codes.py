"""Every error class has the documented exit code, and every error tells a person what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from masque_client import errors
from masque_connect.exit_codes import ExitCode, exit_code_for

CASES = [
    (errors.MasqueError("x"), 1),
    (errors.LocalProtocolError("x"), 1),
    (errors.HostError("x"), 1),
    (errors.AddressInUse("x"), 1),
    (errors.DatagramTooLarge("x", limit=1), 1),
    (errors.TimedOut("x"), 4),
    (errors.AuthenticationRefused("x", status=401), 5),
    (errors.TlsError("x"), 6),
    (errors.ConnectError("x"), 7),
    (errors.NameResolutionError("x"), 7),
    (errors.ConnectionLost("x"), 7),
    (errors.ProxyRefused("x"), 8),
    (errors.EmptyTunnel("x"), 8),
    (errors.RemoteProtocolError("x", clause="RFC 9297 §3.3"), 8),
    (errors.PrivilegeError("x"), 9),
    (errors.ConfigurationError("x"), 65),
    (errors.TemplateError("x"), 65),
    (errors.DestinationBlocked("x"), 65),
    (errors.PvdError("x"), 65),
    (errors.PvdUnavailable("x", status=503), 65),
]


@pytest.mark.parametrize(("error", "code"), CASES, ids=lambda case: type(case).__name__)
def test_exit_code(error: errors.MasqueError, code: int) -> None:
    assert exit_code_for(error) == code
    assert error.hint


def test_no_error_class_is_left_out() -> None:
    def subclasses(of: type[errors.MasqueError]) -> set[type[errors.MasqueError]]:
        return {of}.union(*map(subclasses, of.__subclasses__()))

    tested = {type(error) for error, _ in CASES}
    assert {kind for kind in subclasses(errors.MasqueError) if kind.__module__ == "masque_client.errors"} == tested


def test_the_readme_has_the_same_table() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    documented = {int(number) for number in re.findall(r"^\| (\d+) \|", readme, re.MULTILINE)}
    assert documented == set(map(int, ExitCode))
