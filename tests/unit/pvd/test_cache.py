"""The cache: what survives a restart, and what never does."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from masque_client.engine.interface import TlsConfiguration
from masque_client.errors import PvdError
from masque_client.pvd.cache import PvdCache, fetch_cached
from masque_client.pvd.fetch import Download, FetchOptions
from masque_client.pvd.model import MAX_LIFETIME
from masque_client.pvd.source import PvdSource
from masque_client.testing.certificates import CertificateAuthority, Credentials
from tests.unit.pvd.documents import DOCUMENT_A, HOST, NOW, UDP_PROXY, document
from tests.unit.pvd.https_host import HttpsHost, response

SOURCE = PvdSource.parse(HOST)
DOWNLOAD = Download(DOCUMENT_A, HOST, NOW, None, may_store=True)


def at(moment: datetime) -> FetchOptions:
    return FetchOptions(now=lambda: moment)


def stored(directory: Path, downloaded: Download = DOWNLOAD) -> Path:
    """Store it and return the file."""
    PvdCache(directory).store(SOURCE, downloaded)
    (file,) = directory.iterdir()
    return file


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "pvd"


def test_an_entry_survives_a_restart(directory: Path) -> None:
    file = stored(directory)
    assert (file.stat().st_mode & 0o777, directory.stat().st_mode & 0o777) == (0o600, 0o700)
    loaded = PvdCache(directory).load(SOURCE, at(NOW + timedelta(days=1)))
    assert loaded is not None and len(loaded.document.proxies) == 3
    assert loaded.document.usable_until == NOW + MAX_LIFETIME  # from when it was received, not from when it was loaded


def test_what_the_next_request_needs_survives_too(directory: Path) -> None:
    download = replace(DOWNLOAD, etag='W/"7"', url=SOURCE.url, fresh_for_s=600.0)
    stored(directory, download)
    loaded = PvdCache(directory).load(SOURCE, at(NOW))
    assert loaded is not None and loaded.download == download


def test_an_entry_belongs_to_one_source(directory: Path) -> None:
    stored(directory)
    assert PvdCache(directory).load(PvdSource.parse(f"https://{HOST}/other"), at(NOW)) is None
    assert PvdCache(directory).load(replace(SOURCE, expected_identifier="other.example.net"), at(NOW)) is None


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    ("body", "late"),
    [
        (document(expires="2026-11-23T00:00:00Z"), timedelta(hours=12)),
        (document(expires="2099-01-01T00:00:00Z"), MAX_LIFETIME),
    ],
)
def test_nothing_outlives_its_expiry(directory: Path, body: bytes, late: timedelta, in_memory: bool) -> None:
    cache = PvdCache(directory)
    cache.store(SOURCE, replace(DOWNLOAD, body=body))
    reader = cache if in_memory else PvdCache(directory)
    assert reader.load(SOURCE, at(NOW + late - timedelta(seconds=1))) is not None
    assert reader.load(SOURCE, at(NOW + late)) is None
    assert list(directory.iterdir()) == []


def test_a_clock_that_was_set_back_cannot_prolong_a_life(directory: Path) -> None:
    stored(directory)
    assert PvdCache(directory).load(SOURCE, at(NOW - timedelta(days=1))) is None


def test_a_wrong_clock_is_still_wrong_after_a_restart(directory: Path) -> None:
    """Our clock is ten days ahead: the server's own time counts, as when it was fetched."""
    body = document(expires="2026-11-22T13:00:00Z")
    ours = NOW + timedelta(days=10)
    stored(directory, Download(body, HOST, received_at=ours, served_at=NOW, may_store=True))
    loaded = PvdCache(directory).load(SOURCE, at(ours + timedelta(minutes=59)))
    assert loaded is not None and loaded.document.usable_until == ours + timedelta(hours=1)
    assert PvdCache(directory).load(SOURCE, at(ours + timedelta(minutes=60))) is None


def test_who_delivered_it_is_remembered(directory: Path) -> None:
    body = document(proxies=[UDP_PROXY])
    stored(directory, replace(DOWNLOAD, body=body, delivered_by="other.example.org"))
    loaded = PvdCache(directory).load(SOURCE, at(NOW))
    assert loaded is not None and loaded.document.proxies == ()


def test_no_store_means_memory_only(directory: Path) -> None:
    stored(directory)
    cache = PvdCache(directory)
    cache.store(SOURCE, replace(DOWNLOAD, may_store=False))
    assert list(directory.iterdir()) == []  # the older entry went, too
    assert cache.load(SOURCE, at(NOW)) is not None
    assert PvdCache(directory).load(SOURCE, at(NOW)) is None


def test_without_a_directory_all_is_in_memory() -> None:
    cache = PvdCache(None)
    assert cache.load(SOURCE, at(NOW)) is None
    cache.store(SOURCE, DOWNLOAD)
    assert cache.load(SOURCE, at(NOW)) is not None
    cache.discard(SOURCE)
    assert cache.load(SOURCE, at(NOW)) is None


def edited(**changes: object) -> Callable[[Path], object]:
    return lambda file: file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def linked(file: Path) -> None:
    target = file.with_name("elsewhere")
    file.rename(target)
    file.symlink_to(target)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"\xff{"),
        lambda file: file.write_text("[]"),
        lambda file: file.write_text("{}"),
        lambda file: file.write_text("[" * 100_000),
        lambda file: file.chmod(0o640),
        lambda file: file.chmod(0o602),
        linked,
        edited(format_version=1),
        edited(url="https://other.example.net/"),
        edited(received_at="2026-11-22T12:00:00"),
        edited(received_at=7),
        edited(served_at="noon"),
        edited(body="{}"),
        edited(body="\ud800"),
        edited(body=7),
        edited(etag=7),
        edited(fresh_for_s="soon"),
    ],
)
def test_a_damaged_or_foreign_file_is_no_entry(directory: Path, damage: Callable[[Path], object]) -> None:
    file = stored(directory)
    damage(file)
    assert PvdCache(directory).load(SOURCE, at(NOW)) is None
    assert not os.path.lexists(file)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    cache = PvdCache(blocked / "pvd")
    cache.store(SOURCE, DOWNLOAD)
    assert cache.load(SOURCE, at(NOW)) is not None
    assert "cannot keep" in caplog.text
    assert PvdCache(blocked / "pvd").load(SOURCE, at(NOW)) is None


def test_a_failed_write_leaves_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", refuse)
    PvdCache(directory).store(SOURCE, DOWNLOAD)
    assert list(directory.iterdir()) == []


def test_only_a_usable_document_is_fetched_once(
    authority: CertificateAuthority, credentials: Credentials, directory: Path
) -> None:
    host = HttpsHost([response(document(prefixes=["2001:db8::/32"])), response(DOCUMENT_A)])
    options = FetchOptions(now=lambda: NOW, resolve=host.resolve)
    tls = TlsConfiguration(ca_file=authority.ca_file)

    async def scenario() -> None:
        async with host.serving(credentials):
            with pytest.raises(PvdError):
                await fetch_cached(SOURCE, PvdCache(directory), tls=tls, options=options)
            assert PvdCache(directory).load(SOURCE, options) is None
            for _ in range(3):
                fetched = await fetch_cached(SOURCE, PvdCache(directory), tls=tls, options=options)
                assert fetched.document.identifier == HOST
            await fetch_cached(SOURCE, PvdCache(directory), tls=tls, options=options, refresh=True)

    asyncio.run(scenario())
    assert len(host.requests) == 3


def test_the_users_directory_is_ours() -> None:
    assert PvdCache.user_directory().parts[-2:] == ("masque-connect", "pvd")
