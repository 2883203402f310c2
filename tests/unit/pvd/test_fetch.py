"""Fetching from a real HTTPS server on loopback: what is sent, what is believed, and each refusal."""

from __future__ import annotations

import asyncio
import gzip
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from masque_client.engine.interface import TlsConfiguration
from masque_client.errors import (
    ConfigurationError,
    ConnectError,
    NameResolutionError,
    PvdError,
    PvdUnavailable,
    TimedOut,
    TlsError,
)
from masque_client.netio.resolver import resolve_system
from masque_client.pvd.fetch import FetchOptions, fetch_pvd
from masque_client.pvd.json_strict import MAX_BODY_BYTES
from masque_client.pvd.model import PvdDocument
from masque_client.pvd.source import PvdSource
from masque_client.testing.certificates import CertificateAuthority, Credentials
from tests.unit.pvd.documents import DOCUMENT_A, HOST, NOW, UDP_PROXY, document
from tests.unit.pvd.https_host import HttpsHost, Respond, response

SOURCE = PvdSource.parse(HOST)
GOOD = response(DOCUMENT_A)
OPTIONS = FetchOptions(now=lambda: NOW)


class Fetcher:
    """Serves answers with one set of credentials and fetches from them with one CA."""

    def __init__(self, ca_file: Path, credentials: Credentials | None) -> None:
        self.ca_file = ca_file
        self.credentials = credentials
        self.host = HttpsHost([])

    def __call__(
        self, *answers: bytes | Respond, source: PvdSource = SOURCE, options: FetchOptions = OPTIONS
    ) -> PvdDocument:
        self.host = HttpsHost(answers)

        async def serve_and_fetch() -> PvdDocument:
            async with self.host.serving(self.credentials):
                tls = TlsConfiguration(ca_file=self.ca_file)
                return await fetch_pvd(source, tls=tls, options=replace(options, resolve=self.host.resolve))

        return asyncio.run(serve_and_fetch())


@pytest.fixture
def fetch(authority: CertificateAuthority, credentials: Credentials) -> Fetcher:
    return Fetcher(authority.ca_file, credentials)


def redirect(location: str, status: str = "302 Found", **fields: str) -> bytes:
    return response(status=status, content_type=None, Location=location, **fields)


# --- what is sent and what is taken -----------------------------------------------------------------------------------


def test_the_document_is_fetched_from_port_443_whatever_the_proxys_port(fetch: Fetcher) -> None:
    parsed = fetch(GOOD, source=PvdSource.parse(f"{HOST}:8080"))
    assert len(parsed.proxies) == 3
    assert fetch.host.asked == [(HOST, 443)]


def test_the_request_says_nothing_about_the_user(fetch: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://192.0.2.1:1")
    fetch(redirect("/second", Set_Cookie="a=b"), GOOD)
    for request, path in zip(fetch.host.requests, ["/.well-known/pvd", "/second"], strict=True):
        line, *fields = request.strip().split("\r\n")
        assert line == f"GET {path} HTTP/1.1"
        assert sorted(field.lower() for field in fields) == [
            "accept-encoding: identity",
            "accept: application/pvd+json",
            "connection: close",
            f"host: {HOST}",
        ]


def test_the_environment_cannot_ask_for_tls_secrets(
    fetch: Fetcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "secrets"))
    fetch(GOOD)
    assert not (tmp_path / "secrets").exists()


def test_an_explicit_url_is_fetched_as_it_stands(fetch: Fetcher) -> None:
    fetch(GOOD, source=PvdSource.parse(f"https://{HOST}:8443/my/pvd?v=1"))
    assert fetch.host.asked == [(HOST, 8443)]
    assert fetch.host.requests[0].startswith("GET /my/pvd?v=1 HTTP/1.1\r\n")
    assert f"host: {HOST}:8443" in fetch.host.requests[0].lower()


@pytest.mark.parametrize("content_type", ["application/pvd+json; charset=utf-8", "Application/PVD+JSON"])
def test_the_content_types_essence_counts(fetch: Fetcher, content_type: str) -> None:
    assert fetch(response(DOCUMENT_A, content_type=content_type)).identifier == HOST


def test_chunked_and_gzipped_content_is_decoded(fetch: Fetcher) -> None:
    packed = gzip.compress(DOCUMENT_A)
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, packed[i : i + 1]) for i in range(len(packed))) + b"0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/pvd+json\r\nContent-Encoding: gzip\r\n"
    assert fetch(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks).identifier == HOST


def test_a_dead_address_is_followed_by_the_next(authority: CertificateAuthority, credentials: Credentials) -> None:
    host = HttpsHost([GOOD])

    async def resolve(name: str, port: int) -> list[tuple[str, int]]:
        return [("127.0.0.1", unused), *await host.resolve(name, port)]

    async def serve_and_fetch() -> PvdDocument:
        async with host.serving(credentials):
            tls = TlsConfiguration(ca_file=authority.ca_file)
            return await fetch_pvd(SOURCE, tls=tls, options=replace(OPTIONS, resolve=resolve))

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        unused = taken.getsockname()[1]
        assert asyncio.run(serve_and_fetch()).identifier == HOST


# --- redirects --------------------------------------------------------------------------------------------------------


def test_redirects_on_the_same_host_keep_the_proxies(fetch: Fetcher) -> None:
    parsed = fetch(redirect("/a"), redirect(f"https://{HOST}:8443/b?c", "308 Permanent Redirect"), GOOD)
    assert len(parsed.proxies) == 3
    assert fetch.host.asked == [(HOST, 443), (HOST, 443), (HOST, 8443)]


def test_another_host_may_not_speak_for_the_proxy(fetch: Fetcher) -> None:
    answers = redirect("https://other.example.org/pvd"), response(document(proxies=[UDP_PROXY], noInternet=True))
    parsed = fetch(*answers)
    assert (parsed.identifier, parsed.no_internet) == (HOST, True)
    assert (parsed.proxies, parsed.rules, parsed.is_proxy_configuration_ignored) == ((), (), True)
    assert "other.example.org" in parsed.ignored[0].reason
    trusting = replace(OPTIONS, trusted_hosts=frozenset({"other.example.org"}))
    assert len(fetch(*answers, options=trusting).proxies) == 1


def test_after_a_redirect_the_identifier_must_still_be_the_first_hosts(fetch: Fetcher) -> None:
    with pytest.raises(PvdError, match="/identifier"):
        fetch(redirect("https://other.example.org/pvd"), response(document(identifier="other.example.org")))


def test_an_explicitly_configured_url_speaks_for_the_identifier_it_was_given(fetch: Fetcher) -> None:
    source = PvdSource.parse("https://other.example.org/pvd", expected_identifier=HOST)
    assert len(fetch(GOOD, source=source).proxies) == 3


@pytest.mark.parametrize(
    ("location", "complaint"),
    [
        ("http://masque.example.net/pvd", "https"),
        ("ftp://masque.example.net/pvd", "https"),
        ("https://user:secret@masque.example.net/pvd", "user information"),
        ("https://127.0.0.1/pvd", "only this machine"),
        ("https://[fe80::1]/pvd", "only this machine"),
        ("https://[::ffff:169.254.169.254]/latest", "only this machine"),
        ("https://a..b/pvd", "host name"),
        ("https://[bad/", "redirects to"),
        ("https://masque.example.net/\u00fc", "characters"),
    ],
)
def test_bad_redirect_targets_are_refused(fetch: Fetcher, location: str, complaint: str) -> None:
    with pytest.raises(PvdError, match=complaint):
        fetch(redirect(location), GOOD)
    assert len(fetch.host.requests) == 1


def test_a_redirect_loop_ends(fetch: Fetcher) -> None:
    with pytest.raises(PvdError, match="more than 5 times"):
        fetch(redirect("/.well-known/pvd"))
    assert len(fetch.host.requests) == 6


@pytest.mark.parametrize("status", ["304 Not Modified", "300 Multiple Choices", "302 Found"])
def test_a_redirect_to_nowhere_is_refused(fetch: Fetcher, status: str) -> None:
    with pytest.raises(PvdError, match=status):
        fetch(response(status=status, content_type=None))


# --- the network and TLS ----------------------------------------------------------------------------------------------


def test_a_name_that_does_not_resolve(fetch: Fetcher) -> None:
    with pytest.raises(NameResolutionError, match=r"nowhere\.invalid"):
        fetch(GOOD, source=PvdSource.parse("nowhere.invalid"))


def test_the_systems_resolver_is_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_name(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    with pytest.raises(NameResolutionError, match=r"nowhere\.invalid does not resolve: Name or service not known"):
        asyncio.run(resolve_system("nowhere.invalid", 443))


def test_the_systems_resolver_gives_addresses() -> None:
    assert asyncio.run(resolve_system("127.0.0.1", 443)) == [("127.0.0.1", 443)]


def test_a_closed_port() -> None:
    async def resolve(host: str, port: int) -> list[tuple[str, int]]:
        return [("127.0.0.1", unused)]

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        unused = taken.getsockname()[1]
        with pytest.raises(ConnectError, match="cannot be reached: Connection refused"):
            asyncio.run(fetch_pvd(SOURCE, options=replace(OPTIONS, resolve=resolve)))


def test_a_server_without_tls(authority: CertificateAuthority) -> None:
    with pytest.raises(TlsError, match="no TLS connection"):
        Fetcher(authority.ca_file, None)(GOOD)


def test_a_handshake_that_stalls(authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch) -> None:
    """No word of TLS or of certificates, which would send a person the wrong way."""
    monkeypatch.setattr("masque_client.pvd.https.CONNECT_TIMEOUT_S", 0.1)

    async def stall(writer: asyncio.StreamWriter) -> None:
        await writer.wait_closed()

    with pytest.raises(ConnectError, match=r"does not answer within 0\.1 s"):
        Fetcher(authority.ca_file, None)(stall)


def test_a_certificate_for_another_name(authority: CertificateAuthority) -> None:
    with pytest.raises(TlsError, match="another name"):
        Fetcher(authority.ca_file, authority.issue(["wrong.example.net"]))(GOOD)


def test_a_certificate_after_a_redirect_is_checked_too(fetch: Fetcher) -> None:
    with pytest.raises(TlsError, match=r"another name, not third\.example\.org"):
        fetch(redirect("https://third.example.org/pvd"), GOOD)


def test_a_certificate_of_an_unknown_ca(fetch: Fetcher, tmp_path: Path) -> None:
    fetch.ca_file = CertificateAuthority.create(tmp_path).ca_file
    with pytest.raises(TlsError, match="unknown CA"):
        fetch(GOOD)


def test_an_expired_certificate(authority: CertificateAuthority) -> None:
    now = datetime.now(UTC)
    expired = authority.issue([HOST], not_before=now - timedelta(days=2), not_after=now - timedelta(days=1))
    with pytest.raises(TlsError, match="expired"):
        Fetcher(authority.ca_file, expired)(GOOD)


def test_a_certificate_from_the_future(authority: CertificateAuthority) -> None:
    now = datetime.now(UTC)
    early = authority.issue([HOST], not_before=now + timedelta(days=1), not_after=now + timedelta(days=2))
    with pytest.raises(TlsError, match="not valid yet"):
        Fetcher(authority.ca_file, early)(GOOD)


@pytest.mark.parametrize("content", [None, b"", b"no PEM"])
def test_an_unusable_ca_file(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"ca\.pem"):
        asyncio.run(fetch_pvd(SOURCE, tls=TlsConfiguration(ca_file=file)))


# --- bad answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (response(status="404 Not Found"), "no PvD document: 404 Not Found"),
        (response(status="410 Gone"), "410"),
        (response(status="401 Unauthorized"), "refuses its PvD document: 401"),
        (response(status="403 Forbidden"), "403"),
        (response(status="499 Odd"), "499"),
        (response(status="204 No Content", content_type=None), "empty"),
        (response(b""), "empty"),
        (response(DOCUMENT_A, content_type="application/json"), "application/json"),
        (response(DOCUMENT_A, content_type="text/html"), "text/html"),
        (response(DOCUMENT_A, content_type=None), 'type ""'),
        (response(DOCUMENT_A, Content_Encoding="br"), "content coding"),
        (response(DOCUMENT_A, Content_Encoding="gzip"), "not the gzip data"),
        (response(gzip.compress(DOCUMENT_A)[:-9], Content_Encoding="gzip"), "cut short"),
        (response(gzip.compress(DOCUMENT_A) + b"x", Content_Encoding="gzip"), "after its gzip end"),
        (response(b"<html>"), "not JSON"),
        (response(document(identifier="other.example.org")), "/identifier"),
        (response(document(prefixes=["2001:db8::/32"])), "/prefixes"),
        (response(document(expires="2026-11-22T11:00:00Z")), "/expires: the document expired"),
        (response(b" " * (MAX_BODY_BYTES + 1)), "larger than 1048576"),
        (response(gzip.compress(b" " * (MAX_BODY_BYTES + 1)), Content_Encoding="gzip"), "larger than 1048576"),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", "proper HTTP"),
        (b"", "proper HTTP"),
        (response(DOCUMENT_A)[:-1], "proper HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, "proper HTTP"),
    ],
)
def test_bad_answers(fetch: Fetcher, answer: bytes, complaint: str) -> None:
    with pytest.raises(PvdError, match=complaint) as caught:
        fetch(answer)
    assert not caught.value.retryable


def test_content_of_exactly_the_largest_size_is_read(fetch: Fetcher) -> None:
    assert fetch(response(DOCUMENT_A.ljust(MAX_BODY_BYTES))).identifier == HOST


def test_an_endless_body_is_cut_off(fetch: Fetcher) -> None:
    async def pour(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/pvd+json\r\n\r\n")
        while True:
            writer.write(b" " * 65_536)
            await writer.drain()

    with pytest.raises(PvdError, match="larger"):
        fetch(pour)


@pytest.mark.parametrize(
    ("status", "retry_after", "seconds"),
    [
        ("503 Service Unavailable", "120", 120.0),
        ("503 Service Unavailable", None, None),
        ("429 Too Many Requests", format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        ("502 Bad Gateway", "soon", None),
    ],
)
def test_an_overloaded_host_may_be_asked_again(
    fetch: Fetcher, status: str, retry_after: str | None, seconds: float | None
) -> None:
    with pytest.raises(PvdUnavailable, match=status) as caught:
        fetch(response(status=status, **({"Retry_After": retry_after} if retry_after else {})))
    assert (caught.value.retryable, caught.value.retry_after_s) == (True, seconds)


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Type: application/pvd+json\r\n\r\n{"])
def test_a_host_that_stalls(fetch: Fetcher, sent: bytes) -> None:
    async def stall(writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        await writer.wait_closed()  # until the client hangs up

    with pytest.raises(TimedOut, match=r"within 0\.1 s"):
        fetch(stall, options=replace(OPTIONS, timeout_s=0.1))


def test_a_host_that_drips(fetch: Fetcher) -> None:
    """Steady progress does not help: the limit is for the whole."""

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/pvd+json\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.002)

    with pytest.raises(TimedOut):
        fetch(drip, options=replace(OPTIONS, timeout_s=0.2))


def test_a_wrong_clock_does_not_decide_over_expiry(fetch: Fetcher) -> None:
    """Our clock is a year ahead; the server's own `Date` shows that the document has an hour to live."""
    ahead = timedelta(days=365)
    body = document(expires="2026-11-22T13:00:00Z", proxies=[UDP_PROXY])
    dated = response(body, Date=format_datetime(NOW, usegmt=True))
    parsed = fetch(dated, options=replace(OPTIONS, now=lambda: NOW + ahead))
    assert parsed.usable_until == NOW + ahead + timedelta(hours=1)
    assert "clock" in parsed.warnings[0]
    with pytest.raises(PvdError, match="expired"):
        fetch(response(body), options=replace(OPTIONS, now=lambda: NOW + ahead))


@pytest.mark.parametrize("date", ["", "yesterday", "Sun, 99 Nov 2026 12:00:00 GMT", "Sun, 22 Nov 99999999999 1:1:1"])
def test_an_unreadable_date_is_no_date(fetch: Fetcher, date: str) -> None:
    assert fetch(response(DOCUMENT_A, Date=date)).warnings == ()
