"""The response fields that say when a PvD document was sent, how long it is fresh, and when to come back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_ETAG_CHARACTERS = 128
"""A validator is sent back: a longer one could only serve to recognise us."""


@dataclass(frozen=True, slots=True)
class CacheControl:
    """What RFC 9111 §5.2.2 means for a private cache of one document.

    Attributes:
        may_store: False forbids writing it to disk (`no-store`).
        fresh_for_s: seconds until the origin wants to be asked again; None when it does not say.
    """

    may_store: bool = True
    fresh_for_s: float | None = None

    @classmethod
    def parse(cls, headers: Mapping[str, str]) -> CacheControl:
        """From a response; directives that cannot be read are skipped."""
        directives: dict[str, str] = {}
        for part in headers.get("cache-control", "").split(","):
            name, _, value = part.strip().lower().partition("=")
            directives.setdefault(name, value.strip('"'))
        may_store = "no-store" not in directives
        if "no-cache" in directives:
            return cls(may_store, 0.0)
        max_age = _seconds(directives.get("max-age", ""))
        if max_age is None:
            return cls(may_store)
        return cls(may_store, max(0.0, max_age - (_seconds(headers.get("age", "")) or 0.0)))


def parse_etag(value: str | None) -> str | None:
    """An entity tag (RFC 9110 §8.8.3) that is fit to be sent back, else None."""
    if value is None or len(value) > MAX_ETAG_CHARACTERS:
        return None
    opaque = value.removeprefix("W/")
    is_tag = len(opaque) >= 2 and opaque[0] == opaque[-1] == '"' and '"' not in opaque[1:-1]
    return value if is_tag and opaque.isascii() and opaque.isprintable() and " " not in opaque else None


def parse_http_date(value: str | None) -> datetime | None:
    """A Date field; None when there is none or it is unreadable."""
    try:
        date = parsedate_to_datetime(value or "")
    except (ValueError, TypeError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait: a number of them, or a date, as RFC 9110 §10.2.3 allows."""
    if value is None:
        return None
    if (seconds := _seconds(value)) is not None:
        return seconds
    date = parse_http_date(value)
    return None if date is None else max(0.0, (date - now).total_seconds())


def _seconds(value: str) -> float | None:
    return float(value) if value.isascii() and value.isdigit() and len(value) <= 9 else None
