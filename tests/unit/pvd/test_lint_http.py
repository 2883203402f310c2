"""How a document is served: every fault on the way is named, over a real HTTPS server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from email.utils import format_datetime

import pytest

from masque_client.engine.interface import TlsConfiguration
from masque_client.errors import ConnectError, TimedOut
from masque_client.pvd.fetch import FetchOptions
from masque_client.pvd.json_strict import MAX_BODY_BYTES
from masque_client.pvd.lint_http import Inspection, inspect
from masque_client.pvd.problems import Severity
from masque_client.pvd.source import PvdSource
from masque_client.testing.certificates import CertificateAuthority, Credentials
from tests.unit.pvd.documents import DOCUMENT_A, HOST, NOW
from tests.unit.pvd.https_host import HttpsHost, Respond, response

DATE = format_datetime(NOW, usegmt=True)
GOOD = response(DOCUMENT_A, Date=DATE)
OPTIONS = FetchOptions(now=lambda: NOW)

Inspect = Callable[..., Inspection]


@pytest.fixture
def look(authority: CertificateAuthority, credentials: Credentials) -> Inspect:
    """Serve the answers in turn and inspect them."""

    def look(*answers: bytes | Respond, options: FetchOptions = OPTIONS) -> Inspection:
        host = HttpsHost(answers)

        async def scenario() -> Inspection:
            async with host.serving(credentials):
                tls = TlsConfiguration(ca_file=authority.ca_file)
                source = PvdSource.parse(HOST)
                return await inspect(source, tls=tls, options=replace(options, resolve=host.resolve))

        return asyncio.run(scenario())

    return look


def redirect(location: str) -> bytes:
    return response(status="302 Found", content_type=None, Location=location)


def test_a_good_answer_has_no_problems(look: Inspect) -> None:
    assert look(GOOD) == Inspection((), DOCUMENT_A)


@pytest.mark.parametrize(
    ("answers", "severity", "message", "has_body"),
    [
        ([response(DOCUMENT_A, content_type="text/html", Date=DATE)], "error", 'type is "text/html"', True),
        ([response(DOCUMENT_A, content_type=None, Date=DATE)], "error", 'type is ""', True),
        ([response(DOCUMENT_A, status="203 Odd", Date=DATE)], "warning", "the status is 203", True),
        ([response(status="404 Not Found")], "error", "the answer is 404", False),
        ([response(status="503 Busy")], "error", "the answer is 503", False),
        ([response(Date=DATE)], "error", "without content", False),
        ([response(DOCUMENT_A)], "note", "no Date field", True),
        ([response(DOCUMENT_A, Date="Thu, 01 Jan 2026 00:00:00 GMT")], "warning", "clock", True),
        ([response(DOCUMENT_A, Date=DATE, Cache_Control="no-store")], "note", "offline", True),
        ([response(DOCUMENT_A, Date=DATE, Set_Cookie="a=b")], "warning", "sets a cookie", True),
        ([response(DOCUMENT_A, Date=DATE, Content_Encoding="br")], "error", "content coding", False),
        ([response(b" " * (MAX_BODY_BYTES + 1), Date=DATE)], "error", "larger than", False),
        ([b"nonsense\r\n\r\n"], "error", "proper HTTP", False),
        ([redirect("/elsewhere"), GOOD], "note", "one round trip more", True),
        ([redirect("https://other.example.org/"), GOOD], "error", "does not speak for", True),
        ([redirect("http://masque.example.net/")], "error", "must be an https URL", False),
        ([redirect("https://127.0.0.1/")], "error", "only this machine", False),
        ([redirect("/again")], "error", "more than 5 times", False),
        ([response(status="304 Not Modified", content_type=None)], "error", "304", False),
    ],
)
def test_single_problems(look: Inspect, answers: list[bytes], severity: str, message: str, has_body: bool) -> None:
    found = look(*answers)
    assert any(problem.severity == severity and message in problem.message for problem in found.problems), found
    assert (found.body is not None) is has_body


def test_what_lies_behind_a_redirect_is_the_documents_problem(look: Inspect) -> None:
    found = look(redirect("https://nowhere.example.com/"))
    assert [problem.severity for problem in found.problems] == [Severity.ERROR, Severity.ERROR]
    assert "nowhere.example.com does not resolve" in found.problems[1].message


def test_a_host_that_is_not_reached_or_too_slow(look: Inspect) -> None:
    async def nowhere(host: str, port: int) -> list[tuple[str, int]]:
        raise ConnectError("no way")

    async def stall(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)  # longer than the client's patience

    options = replace(OPTIONS, resolve=nowhere)
    with pytest.raises(ConnectError):
        asyncio.run(inspect(PvdSource.parse(HOST), tls=TlsConfiguration(), options=options))
    with pytest.raises(TimedOut, match="did not deliver"):
        look(stall, options=replace(OPTIONS, timeout_s=0.2))
