"""Fields of a response that concern keeping it."""

from __future__ import annotations

import pytest

from masque_client.pvd.http_fields import CacheControl, parse_etag, parse_retry_after
from tests.unit.pvd.documents import NOW


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, CacheControl()),
        ({"cache-control": "max-age=600"}, CacheControl(fresh_for_s=600)),
        ({"cache-control": 'private, Max-Age="600"'}, CacheControl(fresh_for_s=600)),
        ({"cache-control": "max-age=600", "age": "100"}, CacheControl(fresh_for_s=500)),
        ({"cache-control": "max-age=600", "age": "9999"}, CacheControl(fresh_for_s=0)),
        ({"cache-control": "max-age=600", "age": "old"}, CacheControl(fresh_for_s=600)),
        ({"cache-control": "max-age=600, max-age=1"}, CacheControl(fresh_for_s=600)),
        ({"cache-control": "max-age=600, no-cache"}, CacheControl(fresh_for_s=0)),
        ({"cache-control": "NO-STORE, max-age=5"}, CacheControl(may_store=False, fresh_for_s=5)),
        ({"cache-control": "max-age=-1, s-maxage=7, ,=,x"}, CacheControl()),
        ({"cache-control": "max-age=99999999999"}, CacheControl()),
    ],
)
def test_cache_control(fields: dict[str, str], expected: CacheControl) -> None:
    assert CacheControl.parse(fields) == expected


@pytest.mark.parametrize("tag", ['"7"', 'W/"7"', '""', f'"{"x" * 126}"'])
def test_entity_tags(tag: str) -> None:
    assert parse_etag(tag) == tag


@pytest.mark.parametrize("tag", [None, "", "7", '"', 'W/"', '"a"b"', '"a b"', '"é"', '"\t"', f'"{"x" * 127}"', "w/7"])
def test_what_is_no_entity_tag_is_not_sent_back(tag: str | None) -> None:
    assert parse_etag(tag) is None


def test_a_retry_date_in_the_past_means_now() -> None:
    assert parse_retry_after("Sun, 22 Nov 2026 11:00:00 GMT", NOW) == 0.0
    assert parse_retry_after(None, NOW) is None
