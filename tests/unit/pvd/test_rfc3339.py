"""RFC 3339 §5.6, and all that `fromisoformat` would also have taken."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from masque_client.errors import ConfigurationError
from masque_client.pvd.rfc3339 import parse_date_time


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-12-24T00:00:00Z", datetime(2026, 12, 24, tzinfo=UTC)),
        ("2026-12-24t00:00:00z", datetime(2026, 12, 24, tzinfo=UTC)),
        ("2026-11-23T06:30:00+01:00", datetime(2026, 11, 23, 5, 30, tzinfo=UTC)),
        ("2026-11-23T06:30:00-09:45", datetime(2026, 11, 23, 16, 15, tzinfo=UTC)),
        ("2026-11-23T06:30:00-00:00", datetime(2026, 11, 23, 6, 30, tzinfo=UTC)),
        ("2026-11-23T06:30:00.5Z", datetime(2026, 11, 23, 6, 30, 0, 500_000, tzinfo=UTC)),
        ("2026-11-23T06:30:00.1234567891Z", datetime(2026, 11, 23, 6, 30, 0, 123_456, tzinfo=UTC)),
        ("2026-12-31T23:59:60Z", datetime(2027, 1, 1, tzinfo=UTC)),
        ("2028-02-29T00:00:00Z", datetime(2028, 2, 29, tzinfo=UTC)),
    ],
)
def test_date_times(text: str, moment: datetime) -> None:
    assert parse_date_time(text) == moment
    assert parse_date_time(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-12-24",
        "2026-12-24T00:00:00",
        "2026-12-24 00:00:00Z",
        "2026-12-24T00:00Z",
        "2026-12-24T00:00:00,5Z",
        "2026-12-24T00:00:00.Z",
        "2026-W52-4T00:00:00Z",
        "20261224T000000Z",
        "2026-12-24T00:00:00+0100",
        "2026-12-24T00:00:00+01",
        "2026-12-24T24:00:00Z",
        "2026-12-24T00:60:00Z",
        "2026-12-24T00:00:61Z",
        "2026-12-24T00:00:00+24:00",
        "2026-12-24T00:00:00+01:60",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:60Z",
        "2026-12-24T00:00:00Z\n",
        " 2026-12-24T00:00:00Z",
        "２０２６-12-24T00:00:00Z",
        "Wed, 23 Dec 2026 07:28:00 GMT",
        "1798761600",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_date_time(text)
