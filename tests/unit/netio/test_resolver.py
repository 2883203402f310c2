"""Names, asked of the system and past it: who is believed, and who is not waited for."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import dns.resolver
import pytest

from masque_client.engine.interface import Address
from masque_client.errors import NameResolutionError
from masque_client.netio import resolver
from masque_client.netio.resolver import query_marked, resolve_past_tunnels, resolve_system
from masque_client.testing.dns import DnsResponder

NAME = "proxy.masque.test"
RECORDS = {NAME: {"A": ["192.0.2.1", "192.0.2.2"], "AAAA": ["2001:db8::1"]}, "four.masque.test": {"A": ["192.0.2.4"]}}
PAST = [("2001:db8::1", 443), ("192.0.2.1", 443), ("192.0.2.2", 443)]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int | None]]:
    """A resolver is configured; the marks of the queries to it. They are not set: that takes privilege."""
    marks: list[int | None] = []
    with DnsResponder([("127.0.0.1", 0)], RECORDS) as responder:
        port = responder.addresses[0][1]
        monkeypatch.setattr(dns.resolver, "Resolver", lambda: SimpleNamespace(nameservers=["127.0.0.1"], port=port))
        query = resolver._query

        def unmarked(name: str, rdtype: str, mark: int | None) -> object:
            marks.append(mark)
            return query(name, rdtype, None)

        monkeypatch.setattr(resolver, "_query", unmarked)
        yield marks


@pytest.fixture
def silent_system(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The system's resolver does not answer before the test ends."""
    over = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[object]:
        over.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield
    over.set()


def look_up(name: str) -> Sequence[Address]:
    async def run() -> Sequence[Address]:
        return await resolve_past_tunnels(7)(name, 443)

    return asyncio.run(run())


def fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_the_systems_word_counts(asked: list[int | None]) -> None:
    assert look_up("127.0.0.1") == [("127.0.0.1", 443)]
    assert asked == []


def test_a_system_that_fails_is_gone_past(asked: list[int | None], monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch)
    assert look_up(NAME) == PAST
    assert asked == [7, 7]


def test_one_family_is_enough(asked: list[int | None], monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch)
    assert look_up("four.masque.test") == [("192.0.2.4", 443)]


def test_when_nobody_knows_the_systems_reason_is_given(
    asked: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(monkeypatch)
    with pytest.raises(NameResolutionError, match="Temporary failure"):
        look_up("nobody.masque.test")


def test_a_silent_system_is_neither_waited_for_nor_held_up_by(asked: list[int | None], silent_system: None) -> None:
    started = time.monotonic()
    assert look_up(NAME) == PAST
    assert time.monotonic() - started < 30, "the thread that still waits has not been waited for"


def test_silence_everywhere_is_an_answer(silent_system: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns.resolver, "Resolver", lambda: SimpleNamespace(nameservers=[], port=53))
    monkeypatch.setattr(resolver, "TOTAL_TIMEOUT_S", 0.6)
    with pytest.raises(NameResolutionError, match="no resolver answers"):
        look_up(NAME)


def test_records_of_a_name(asked: list[int | None]) -> None:
    assert [record.to_text() for record in asyncio.run(query_marked(NAME, "AAAA", None))] == ["2001:db8::1"]
    assert asyncio.run(query_marked(NAME, "HTTPS", None)) == []


def test_what_is_no_name_does_not_resolve() -> None:
    with pytest.raises(NameResolutionError):
        asyncio.run(resolve_system("a" * 300, 443))
