"""What a user may type, and which URL and identifier it means."""

from __future__ import annotations

import pytest

from masque_client.errors import ConfigurationError, PvdError
from masque_client.pvd.source import PvdSource

WELL_KNOWN = "https://proxy.example/.well-known/pvd"


@pytest.mark.parametrize(
    ("text", "url", "identifier"),
    [
        ("proxy.example", WELL_KNOWN, "proxy.example"),
        ("Proxy.Example.", WELL_KNOWN, "proxy.example"),
        ("proxy.example:8080", WELL_KNOWN, "proxy.example"),
        ("https://proxy.example", WELL_KNOWN, "proxy.example"),
        ("https://proxy.example:4443/", WELL_KNOWN, "proxy.example"),
        ("https://proxy.example:4443/udp/{target_host}/{target_port}/", WELL_KNOWN, "proxy.example"),
        ("https://proxy.example/ip{?target,ipproto}", WELL_KNOWN, "proxy.example"),
        ("https://proxy.example:8443/my/pvd", "https://proxy.example:8443/my/pvd", "proxy.example"),
        (WELL_KNOWN, WELL_KNOWN, "proxy.example"),
        ("bücher.example", "https://xn--bcher-kva.example/.well-known/pvd", "xn--bcher-kva.example"),
        ("localhost", "https://localhost/.well-known/pvd", "localhost"),
    ],
)
def test_sources(text: str, url: str, identifier: str) -> None:
    assert PvdSource.parse(text) == PvdSource(url, identifier)


def test_another_identifier_must_be_said() -> None:
    url = "https://cdn.example/proxy/pvd"
    assert PvdSource.parse(url, expected_identifier="Proxy.Example") == PvdSource(url, "proxy.example")
    literal = "https://[2001:db8::1]:8443/pvd"
    assert PvdSource.parse(literal, expected_identifier="proxy.example") == PvdSource(literal, "proxy.example")


@pytest.mark.parametrize(
    "text",
    ["192.0.2.1", "192.0.2.1:443", "2001:db8::1", "[2001:db8::1]:443", "https://192.0.2.1/pvd", "https://[::1]/pvd"],
)
def test_addresses_have_no_document(text: str) -> None:
    with pytest.raises(PvdError, match="IP address"):
        PvdSource.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "proxy example", "a..b", "proxy.example:0", "proxy.example:x", "proxy.example/pvd", "https://"),
        *("http://proxy.example/pvd", "https://a@proxy.example/pvd", "https://proxy.example/pvd#x", "ftp://p.example"),
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PvdSource.parse(text)
    assert caught.value.hint
