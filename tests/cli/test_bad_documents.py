"""PvD documents that cannot be had or used. `discover`, `udp` and `up` fetch them alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from masque_client.testing.certificates import CertificateAuthority
from masque_client.testing.pvd_server import pvd_document
from masque_connect.exit_codes import ExitCode
from tests.cli.commands import failed
from tests.cli.conftest import Run
from tests.cli.proxies import Proxies

UDP_PROXY = {"protocol": "connect-udp", "proxy": "https://localhost/{target_host}/{target_port}/"}
IP_PROXY = {"protocol": "connect-ip", "proxy": "https://localhost/{target}/{ipproto}/"}
GOOD = pvd_document("localhost", [UDP_PROXY, IP_PROXY])

CASES: dict[str, tuple[Any, dict[str, Any], str, str]] = {
    "not JSON": (b"<html>welcome</html>", {}, "the PvD document is not JSON", "operator"),
    "wrong type": (GOOD, {"content_type": "text/html"}, 'type "text/html", not application/pvd+json', "operator"),
    "wrong identifier": (
        pvd_document("other.example", [UDP_PROXY]),
        {},
        'names "other.example", but "localhost" was asked',
        "operator",
    ),
    "expired": ({**GOOD, "expires": "2020-01-01T00:00:00Z"}, {}, "the document expired at 2020-01-01", "operator"),
    "404": (GOOD, {"status": 404}, "localhost has no PvD document: 404 Not Found", "URI template"),
    "503": (GOOD, {"status": 503, "headers": [("retry-after", "77")]}, "503 Service Unavailable", "wait 77 s"),
    "hang-up": (GOOD, {"hang_up": True}, "does not answer in proper HTTP", "operator"),
}


@pytest.mark.parametrize("case", CASES)
def test_unusable_documents(case: str, run: Run, proxies: Proxies, ca: tuple[str, str]) -> None:
    document, behaviour, error, hint = CASES[case]
    with proxies.pvd(document, **behaviour) as url:
        outcome = run("discover", url, *ca)
    failed(outcome, ExitCode.BAD_CONFIGURATION, error=error, hint=hint)
    assert outcome.stdout == ""


def test_an_unusable_document_ends_every_tunnel(tunnel: tuple[str, Run], proxies: Proxies, ca: tuple[str, str]) -> None:
    _, run = tunnel
    with proxies.pvd(b"[]") as url:
        outcome = run(url, *ca)
    failed(outcome, ExitCode.BAD_CONFIGURATION, error="the PvD document is an array", hint="operator")


def test_no_such_proxy_in_it(tunnel: tuple[str, Run], proxies: Proxies, ca: tuple[str, str]) -> None:
    protocol, run = tunnel
    other = IP_PROXY if protocol == "connect-udp" else UDP_PROXY
    with proxies.pvd(pvd_document("localhost", [other])) as url:
        outcome = run(url, *ca)
    failed(outcome, ExitCode.BAD_CONFIGURATION, error=f"offers no {protocol} proxy", hint="masque-connect discover")


def test_unknown_ca(run: Run, proxies: Proxies, ca: tuple[str, str], tmp_path: Path) -> None:
    stranger = CertificateAuthority.create(tmp_path).issue(["localhost"])
    with proxies.pvd(GOOD, stranger) as url:
        outcome = run("discover", url, *ca)
    failed(outcome, ExitCode.TLS, error="the certificate of localhost comes from an unknown CA", hint="--ca")


def test_expired_certificate(run: Run, proxies: Proxies, ca: tuple[str, str]) -> None:
    expired = proxies.authority.issue(["localhost"], not_after=datetime.now(UTC) - timedelta(days=1))
    with proxies.pvd(GOOD, expired) as url:
        outcome = run("discover", url, *ca)
    failed(outcome, ExitCode.TLS, error="the certificate of localhost has expired", hint="clock")


def test_certificate_for_another_name(run: Run, proxies: Proxies, ca: tuple[str, str]) -> None:
    with proxies.pvd(GOOD, proxies.authority.issue(["other.example"])) as url:
        outcome = run("discover", url, *ca)
    failed(outcome, ExitCode.TLS, error="is for another name, not localhost", hint="name")


def test_nothing_listens(run: Run) -> None:
    outcome = run("discover", "https://localhost:9/.well-known/pvd")
    failed(outcome, ExitCode.UNREACHABLE, error="localhost:9 cannot be reached: Connection refused", hint="port")


def test_a_host_that_does_not_resolve(run: Run) -> None:
    outcome = run("discover", "nothing.invalid")
    failed(outcome, ExitCode.UNREACHABLE, error="nothing.invalid does not resolve", hint="spelling")


def test_a_proxy_that_does_not_resolve(tunnel: tuple[str, Run]) -> None:
    _, run = tunnel
    failed(
        run("https://nothing.invalid"), ExitCode.UNREACHABLE, error="nothing.invalid does not resolve", hint="spelling"
    )
