"""The response fields of a PvD document: how long it is fresh, when to come back."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from masque_client.errors import MasqueError
from masque_client.pvd.http_fields import CacheControl, parse_etag, parse_http_date, parse_retry_after
from masque_client.pvd.names import HostPort, canonical_name
from masque_client.pvd.rfc3339 import parse_date_time
from masque_client.pvd.values import BadValue
from tests.fuzz.harness import FuzzOne

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
WORDS = (
    b"max-age=",
    b"no-store",
    b"no-cache",
    b"Sun, 22 Nov 2026 12:00:00 GMT",
    b"+9999",
    b'W/"',
    b"2026-11-22T12:00:00Z",
)


def make() -> FuzzOne:
    """Input: the value of a field, or a name; Latin-1 as from the wire, and UTF-8."""
    return fuzz_one


def fuzz_one(data: bytes) -> None:
    value = data.decode("latin-1")
    freshness = CacheControl.parse({"cache-control": value, "age": value[-3:]})
    assert freshness.fresh_for_s is None or freshness.fresh_for_s >= 0
    wait = parse_retry_after(value, NOW)
    assert wait is None or (wait >= 0 and math.isfinite(wait))
    date = parse_http_date(value)
    assert date is None or date.tzinfo is not None
    etag = parse_etag(value)
    assert etag is None or etag.isprintable()
    text = data.decode("utf-8", "replace")
    for parse in (canonical_name, HostPort.parse, HostPort.of_https_url, parse_date_time):
        try:
            parse(text)
        except (BadValue, MasqueError):
            pass
