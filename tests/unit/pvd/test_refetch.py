"""Asking again with a validator, over a real HTTPS server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from masque_client.engine.interface import TlsConfiguration
from masque_client.errors import PvdError
from masque_client.pvd.fetch import Download, Fetched, FetchOptions, fetch
from masque_client.pvd.source import PvdSource
from masque_client.testing.certificates import CertificateAuthority, Credentials
from tests.unit.pvd.documents import HOST, NOW, UDP_PROXY, document
from tests.unit.pvd.https_host import HttpsHost, response

SOURCE = PvdSource.parse(HOST)
ONE_HOUR = document(expires="2026-11-22T13:00:00Z", proxies=[UDP_PROXY])
TAGGED = response(ONE_HOUR, ETag='"7"', Cache_Control="max-age=900")
NOT_MODIFIED = response(status="304 Not Modified", content_type=None)


class Refetcher:
    """Fetches once for each answer, each time with what came before, `step` later."""

    def __init__(self, authority: CertificateAuthority, credentials: Credentials) -> None:
        self.tls = TlsConfiguration(ca_file=authority.ca_file)
        self.credentials = credentials
        self.host = HttpsHost([])

    def __call__(self, *answers: bytes, times: int = 2, step: timedelta = timedelta(minutes=10)) -> list[Fetched]:
        self.host = HttpsHost(answers)

        async def serve_and_fetch() -> list[Fetched]:
            fetched: list[Fetched] = []
            async with self.host.serving(self.credentials):
                for number in range(times):
                    now = NOW + number * step
                    options = FetchOptions(now=lambda now=now: now, resolve=self.host.resolve)  # type: ignore[misc]
                    previous = fetched[-1].download if fetched else None
                    fetched.append(await fetch(SOURCE, tls=self.tls, options=options, previous=previous))
            return fetched

        return asyncio.run(serve_and_fetch())

    @property
    def validators(self) -> list[str]:
        """The If-None-Match field of each request, or an empty string."""
        return [
            next((line for line in request.lower().splitlines() if line.startswith("if-none-match")), "")
            for request in self.host.requests
        ]


@pytest.fixture
def refetch(authority: CertificateAuthority, credentials: Credentials) -> Refetcher:
    return Refetcher(authority, credentials)


def test_a_confirmed_document_keeps_its_expiry(refetch: Refetcher) -> None:
    first, second = refetch(TAGGED, NOT_MODIFIED)
    assert refetch.validators == ["", 'if-none-match: "7"']
    assert second.document == first.document
    assert second.download == replace(first.download, received_at=NOW + timedelta(minutes=10))
    assert second.download.fresh_for_s == 900


def test_a_changed_document_replaces_the_old_one(refetch: Refetcher) -> None:
    _, second = refetch(TAGGED, response(document(), ETag='"8"'))
    assert second.document.proxies == () and second.download.etag == '"8"'


def test_a_confirmation_may_change_how_it_is_kept(refetch: Refetcher) -> None:
    again = response(status="304 Not Modified", content_type=None, Cache_Control="no-store, max-age=60")
    _, second = refetch(TAGGED, again)
    assert (second.download.may_store, second.download.fresh_for_s) == (False, 60)


def test_what_is_confirmed_after_its_expiry_is_fetched_whole(refetch: Refetcher) -> None:
    fresh = response(document(expires="2026-11-22T15:00:00Z"))
    _, second = refetch(TAGGED, NOT_MODIFIED, fresh, step=timedelta(hours=2))
    assert refetch.validators == ["", 'if-none-match: "7"', ""]
    assert second.document.expires.hour == 15


def test_a_bad_document_is_not_asked_for_twice(refetch: Refetcher) -> None:
    with pytest.raises(PvdError, match="not JSON"):
        refetch(TAGGED, response(b"<html>"))
    assert len(refetch.host.requests) == 2


def test_a_confirmation_that_nobody_asked_for_is_refused(refetch: Refetcher) -> None:
    with pytest.raises(PvdError, match="304"):
        refetch(response(ONE_HOUR), NOT_MODIFIED)
    assert refetch.validators == ["", ""]


def test_a_validator_goes_back_only_to_the_url_that_gave_it(refetch: Refetcher) -> None:
    redirect = response(status="302 Found", content_type=None, Location="https://other.example.org/pvd")
    answers: Sequence[bytes] = (redirect, TAGGED, redirect, NOT_MODIFIED)
    first, second = refetch(*answers)
    assert refetch.validators == ["", "", "", 'if-none-match: "7"']
    assert first.download.url == "https://other.example.org/pvd"
    assert second.document.is_proxy_configuration_ignored  # confirmed by a host that does not speak for the proxy
    assert isinstance(second.download, Download)
