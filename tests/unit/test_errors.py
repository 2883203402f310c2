"""Which errors say that a proxy is of no use, whatever the destination."""

from __future__ import annotations

import pytest

from masque_client.errors import (
    AuthenticationRefused,
    ConnectionLost,
    MasqueError,
    ProxyRefused,
    PvdUnavailable,
    RemoteProtocolError,
    TimedOut,
    concerns_whole_proxy,
)


@pytest.mark.parametrize("status", [300, 302, 308, 400, 404, 405, 410, 421, 501])
def test_a_url_that_leads_nowhere_concerns_the_whole_proxy(status: int) -> None:
    assert concerns_whole_proxy(ProxyRefused("x", status=status))


@pytest.mark.parametrize("status", [None, 403, 425, 429, 500, 502, 503, 504])
def test_other_refusals_may_be_about_one_destination_or_pass(status: int | None) -> None:
    assert not concerns_whole_proxy(ProxyRefused("x", status=status))


def test_credentials_and_broken_standards_concern_the_whole_proxy() -> None:
    assert concerns_whole_proxy(AuthenticationRefused("x", status=401))
    assert concerns_whole_proxy(RemoteProtocolError("x", clause="RFC 9297 §3.3"))


@pytest.mark.parametrize("error", [MasqueError("x"), TimedOut("x"), ConnectionLost("x")])
def test_what_may_pass_does_not(error: MasqueError) -> None:
    assert not concerns_whole_proxy(error)


def test_a_wish_to_wait_is_part_of_the_hint() -> None:
    assert ProxyRefused("x", hint="try later", retry_after_s=90.4).hint == "try later; it asks to wait 90 s"
    assert PvdUnavailable("x", status=503, retry_after_s=5).hint.endswith("; it asks to wait 5 s")
    assert "wait" not in PvdUnavailable("x", status=503).hint
