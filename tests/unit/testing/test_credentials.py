from __future__ import annotations

import base64

import pytest

from masque_client.testing.credentials import Authentication

BASIC = b"Basic " + base64.b64encode(b"alice:secret:with colon")


def test_nothing_is_needed_by_default() -> None:
    assert Authentication().accepts([])
    assert Authentication.parse("mtls").accepts([])


@pytest.mark.parametrize(
    ("text", "value"), [("basic:alice:secret:with colon", BASIC), ("bearer:token68=", b"bearer token68=")]
)
@pytest.mark.parametrize(("status", "field"), [(401, b"authorization"), (407, b"proxy-authorization")])
def test_right_credentials_in_the_right_field(text: str, value: bytes, status: int, field: bytes) -> None:
    authentication = Authentication.parse(text, 401 if status == 401 else 407)
    other = {b"authorization": b"proxy-authorization", b"proxy-authorization": b"authorization"}[field]
    assert authentication.accepts([(field, value)])
    assert not authentication.accepts([(other, value)])
    assert not authentication.accepts([(field, value + b"x")])
    assert not authentication.accepts([(field, b"Digest " + value)])
    assert not authentication.accepts([])


def test_challenge_names_the_scheme() -> None:
    assert Authentication.parse("basic:a:b").challenge() == (
        b"www-authenticate",
        b'Basic realm="masque test proxy", charset="UTF-8"',
    )
    name, value = Authentication.parse("bearer:t", 407).challenge()
    assert name == b"proxy-authenticate"
    assert value.startswith(b"Bearer realm=")


@pytest.mark.parametrize("text", ["", "basic", "basic:alice", "bearer", "bearer:", "none:x", "digest:a:b"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Authentication.parse(text)
