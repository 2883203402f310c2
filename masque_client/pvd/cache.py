"""Documents kept between runs, so that a start needs no fetch (PROXY-CONFIG §2, RFC 8801 §4.1).

What is kept is the download, not what was understood of it: loading goes through `fetch.evaluate` again, with today's
clock, policy and limits. Nothing extends a document's life; a file that is damaged, foreign or readable by others is
no entry. Caching is optional, so no failure here is an error.
"""

from __future__ import annotations

import hashlib
import json
import logging
from datetime import datetime
from pathlib import Path

import platformdirs

from masque_client.engine.interface import TlsConfiguration
from masque_client.errors import PvdError
from masque_client.netio.state_file import read_state, write_state
from masque_client.pvd.fetch import (
    DEFAULT_OPTIONS,
    MAX_CLOCK_DIFFERENCE,
    Download,
    Fetched,
    FetchOptions,
    evaluate,
    fetch,
)
from masque_client.pvd.http_fields import parse_etag
from masque_client.pvd.json_strict import MAX_BODY_BYTES
from masque_client.pvd.source import PvdSource

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2
MAX_FILE_BYTES = 8 * MAX_BODY_BYTES  # a JSON string may need six bytes for one of the body


class PvdCache:
    """Downloads by source. Those that may not be stored (`Cache-Control: no-store`) are kept in memory only.

    Args:
        directory: created with mode 0700 when needed; None keeps everything in memory. See `user_directory`. Give
            None when a CA of the user's own was trusted: a later run may not trust it.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._memory: dict[PvdSource, Download] = {}

    @staticmethod
    def user_directory() -> Path:
        """Where this user's entries live."""
        return platformdirs.user_cache_path("masque-connect") / "pvd"

    def load(self, source: PvdSource, options: FetchOptions = DEFAULT_OPTIONS) -> Fetched | None:
        """The document and its download, if one is kept that may still be used."""
        downloaded = self._memory.get(source) or self._read(source)
        if downloaded is None:
            return None
        if options.now() < downloaded.received_at - MAX_CLOCK_DIFFERENCE:
            return None  # our clock was set back: the document's remaining life cannot be told
        try:
            return Fetched(downloaded, evaluate(downloaded, source, options), is_from_cache=True)
        except PvdError as error:
            logger.debug("dropping the kept PvD document of %s: %s", source.expected_identifier, error)
            self.discard(source)
            return None

    def store(self, source: PvdSource, downloaded: Download) -> None:
        """Keep a download that `evaluate` has accepted, replacing an older one."""
        self._memory[source] = downloaded
        if self._directory is None:
            return
        try:
            if downloaded.may_store:
                write_state(self._path(source, self._directory), _encode(source, downloaded))
            else:
                self._path(source, self._directory).unlink(missing_ok=True)
        except OSError as error:
            logger.warning("cannot keep the PvD document of %s: %s", source.expected_identifier, error)

    def discard(self, source: PvdSource) -> None:
        """Forget one source."""
        self._memory.pop(source, None)
        if self._directory is not None:
            try:
                self._path(source, self._directory).unlink(missing_ok=True)
            except OSError as error:
                logger.warning("cannot forget the PvD document of %s: %s", source.expected_identifier, error)

    def _read(self, source: PvdSource) -> Download | None:
        if self._directory is None:
            return None
        try:
            return _decode(read_state(self._path(source, self._directory), MAX_FILE_BYTES), source)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            logger.debug("unusable cache entry of %s: %r", source.expected_identifier, error)
            self.discard(source)
            return None

    @staticmethod
    def _path(source: PvdSource, directory: Path) -> Path:
        key = hashlib.sha256(f"{source.expected_identifier}\n{source.url}".encode()).hexdigest()
        return directory / f"{key[:32]}.json"


async def fetch_cached(
    source: PvdSource,
    cache: PvdCache,
    *,
    tls: TlsConfiguration | None = None,
    options: FetchOptions = DEFAULT_OPTIONS,
    refresh: bool = False,
) -> Fetched:
    """`fetch`, but only if nothing usable is kept or `refresh` is wanted. Raises as `fetch_pvd` does."""
    if not refresh and (kept := cache.load(source, options)) is not None:
        return kept
    fetched = await fetch(source, tls=tls, options=options)
    cache.store(source, fetched.download)
    return fetched


# --- files ------------------------------------------------------------------------------------------------------------


def _encode(source: PvdSource, downloaded: Download) -> bytes:
    served_at = downloaded.served_at
    entry = {
        "format_version": FORMAT_VERSION,
        "url": source.url,
        "expected_identifier": source.expected_identifier,
        "delivered_by": downloaded.delivered_by,
        "received_at": downloaded.received_at.isoformat(),
        "served_at": None if served_at is None else served_at.isoformat(),
        "fresh_for_s": downloaded.fresh_for_s,
        "final_url": downloaded.url,
        "etag": downloaded.etag,
        "body": downloaded.body.decode("utf-8"),
    }
    return json.dumps(entry).encode()


def _decode(data: bytes, source: PvdSource) -> Download:
    """The download of exactly this source; ValueError, TypeError, KeyError or RecursionError otherwise."""
    entry = json.loads(data)
    expected = (FORMAT_VERSION, source.url, source.expected_identifier)
    if (entry["format_version"], entry["url"], entry["expected_identifier"]) != expected:
        raise ValueError("an entry of another format or source")
    served_at = entry["served_at"]
    return Download(
        body=str(entry["body"]).encode(),
        delivered_by=str(entry["delivered_by"]),
        received_at=_moment(entry["received_at"]),
        served_at=None if served_at is None else _moment(served_at),
        may_store=True,
        fresh_for_s=None if entry["fresh_for_s"] is None else float(entry["fresh_for_s"]),
        url=str(entry["final_url"]),
        etag=parse_etag(entry["etag"]),
    )


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.utcoffset() is None:
        raise ValueError("a time without its offset")
    return moment
