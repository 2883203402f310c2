"""Timestamps of RFC 3339 §5.6, nothing looser.

`datetime.fromisoformat` also takes dates without a time, times without an offset, week dates and commas; a document
whose expiry can be read in two ways must not be used at all.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

from masque_client.errors import ConfigurationError

_DATE_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)


def parse_date_time(text: str) -> datetime:
    """Parse a `date-time`. The result is in UTC; fractions are cut at microseconds; a leap second is the next second.

    Raises:
        ConfigurationError: the text is no RFC 3339 date-time, or names no real moment.
    """
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise ConfigurationError("is not an RFC 3339 date-time such as 2027-01-31T12:00:00Z")
    year, month, day, hour, minute, second = (int(field) for field in match.groups()[:6])
    fraction, sign, offset_hours, offset_minutes = match.groups()[6:]
    microsecond = int((fraction or "0")[:6].ljust(6, "0"))
    leap = timedelta(seconds=1) if second == 60 else timedelta()
    try:
        zone = _offset(sign, int(offset_hours or 0), int(offset_minutes or 0))
        moment = datetime(year, month, day, hour, minute, second - leap.seconds, microsecond, tzinfo=zone)
        return moment.astimezone(UTC) + leap
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"is not a moment in time ({error})") from error


def _offset(sign: str | None, hours: int, minutes: int) -> timezone:
    if minutes > 59 or hours > 23:
        raise ValueError("offset out of range")
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if sign == "-" else offset)
