"""Who gets credentials, when a challenge is answered, and when not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from masque_client.engine.interface import Header, Headers
from masque_client.errors import AuthenticationRefused, ConfigurationError
from masque_client.http.authentication import Authenticator
from tests.unit.http.loops import in_loop

PROXY, OTHER = ("proxy.example", 443), ("other.example", 443)


class Tokens:
    """A source that has another token after each refusal, until it runs out."""

    scheme = "bearer"

    def __init__(self, *tokens: str) -> None:
        self._values = [f"Bearer {token}".encode() for token in tokens]

    async def value(self, refused: bytes | None = None) -> bytes:
        if refused == self._values[0] and len(self._values) > 1:
            del self._values[0]
        return self._values[0]


class Server:
    """Answers requests with statuses in turn, then with success; remembers what they carried."""

    def __init__(self, *statuses: int, schemes: tuple[str, ...] = ("basic", "bearer")) -> None:
        self._statuses = list(statuses)
        self._schemes = schemes
        self.requests: list[list[Header]] = []

    async def __call__(self, fields: Headers) -> Sequence[Header]:
        self.requests.append(list(fields))
        if self._statuses:
            raise AuthenticationRefused("no", status=self._statuses.pop(0), schemes=self._schemes)
        return fields


def authorization(token: str) -> Header:
    return b"authorization", f"Bearer {token}".encode()


def proxy_authorization(token: str) -> Header:
    return b"proxy-authorization", f"Bearer {token}".encode()


@in_loop
async def test_credentials_are_sent_unasked() -> None:
    server = Server()
    await Authenticator(Tokens("a"), origin=PROXY, fields=[(b"x-team", b"blue")]).request(PROXY, server)
    assert server.requests == [[(b"x-team", b"blue"), authorization("a")]]


@in_loop
async def test_to_their_origin_alone() -> None:
    """Another host, and another port, are strangers: neither unasked nor asked (digest A-6)."""
    authenticator = Authenticator(Tokens("a", "b"), origin=PROXY, fields=[(b"x-team", b"blue"), (b"cookie", b"x")])
    for stranger in (OTHER, ("proxy.example", 8443)):
        server = Server(401)
        with pytest.raises(AuthenticationRefused) as caught:
            await authenticator.request(stranger, server)
        assert "for proxy.example:443 alone" in caught.value.hint
        assert server.requests == [[(b"x-team", b"blue")]]
    server = Server()
    await authenticator.request(("Proxy.Example", 443), server)
    assert authorization("a") in server.requests[0] and (b"cookie", b"x") in server.requests[0]


@in_loop
async def test_credentials_as_header_fields_are_for_one_origin_too() -> None:
    authenticator = Authenticator(origin=PROXY, fields=[authorization("mine")])
    assert await authenticator.request(OTHER, Server()) == ()
    assert await authenticator.request(PROXY, Server()) == (authorization("mine"),)
    assert await Authenticator(fields=[authorization("mine")]).request(PROXY, Server()) == ()
    with pytest.raises(ConfigurationError, match="twice"):
        Authenticator(Tokens("a"), origin=PROXY, fields=[proxy_authorization("b")])


@in_loop
async def test_a_refused_token_is_renewed_once() -> None:
    server = Server(401)
    authenticator = Authenticator(Tokens("old", "new"), origin=PROXY)
    await authenticator.request(PROXY, server)
    assert server.requests == [[authorization("old")], [authorization("new")]]
    again = Server()
    await authenticator.request(PROXY, again)
    assert again.requests == [[authorization("new")]]


@in_loop
async def test_at_most_once_per_challenge() -> None:
    server = Server(401, 401)
    with pytest.raises(AuthenticationRefused) as caught:
        await Authenticator(Tokens("a", "b", "c"), origin=PROXY).request(PROXY, server)
    assert server.requests == [[authorization("a")], [authorization("b")]]
    assert "does not accept your credentials" in caught.value.hint


@in_loop
async def test_nothing_new_is_not_said_again() -> None:
    server = Server(401)
    with pytest.raises(AuthenticationRefused) as caught:
        await Authenticator(Tokens("a"), origin=PROXY).request(PROXY, server)
    assert len(server.requests) == 1
    assert "does not accept your credentials" in caught.value.hint


@in_loop
async def test_a_proxy_in_front_is_answered_with_its_own_field_and_remembered() -> None:
    server = Server(407)
    authenticator = Authenticator(Tokens("a"), origin=PROXY)
    await authenticator.request(PROXY, server)
    assert server.requests == [[authorization("a")], [authorization("a"), proxy_authorization("a")]]
    again = Server()
    await authenticator.request(PROXY, again)
    assert sorted(again.requests[0]) == [authorization("a"), proxy_authorization("a")]


@in_loop
async def test_one_answer_each_for_the_proxy_in_front_and_the_origin_behind() -> None:
    server = Server(407, 401)
    await Authenticator(Tokens("a", "b"), origin=PROXY).request(PROXY, server)
    assert len(server.requests) == 3
    assert sorted(server.requests[2]) == [authorization("b"), proxy_authorization("a")]


@pytest.mark.parametrize("schemes", [(), ("basic",), ("negotiate", "digest")])
@in_loop
async def test_schemes_that_we_cannot_serve(schemes: tuple[str, ...]) -> None:
    server = Server(401, schemes=schemes)
    with pytest.raises(AuthenticationRefused) as caught:
        await Authenticator(Tokens("a", "b"), origin=PROXY).request(PROXY, server)
    assert len(server.requests) == 1
    assert ("of the scheme bearer" in caught.value.hint) == bool(schemes)


@in_loop
async def test_without_credentials_the_hint_says_how_to_give_them() -> None:
    with pytest.raises(AuthenticationRefused) as caught:
        await Authenticator().request(PROXY, Server(401))
    assert "--token-file" in caught.value.hint
