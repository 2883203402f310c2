"""Canonical names, address literals and authorities."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from masque_client.errors import ConfigurationError
from masque_client.pvd.names import HostPort, canonical_name, parse_address, unmapped


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Example.NET", "example.net"),
        ("example.net.", "example.net"),
        ("localhost", "localhost"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example.", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),  # IDNA 2003 would say strasse.example
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("_service.example", "_service.example"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
    ],
)
def test_names_have_one_form(text: str, name: str) -> None:
    assert canonical_name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "example..net",
        ".example.net",
        "example.net..",
        "-a.example",
        "a-.example",
        "a b.example",
        "*.example",
        "example.net:443",
        "example.net/",
        "example.net\n",
        "a" * 64 + ".example",
        ".".join(["a" * 63] * 4),
        "192.0.2.1",
        "192.0.2.1.",
        "１92.0.2.1",
        "1.2.3",
        "example.0x7f",
        "::1",
        "[::1]",
        "ü" * 300,
        "\u200d.example",
    ],
)
def test_other_things_are_no_names(text: str) -> None:
    with pytest.raises(ConfigurationError):
        canonical_name(text)


@pytest.mark.parametrize("text", ["192.0.2.01", "192.0.2", "fe80::1%eth0", "1２.0.0.1", "0x7f.1", "[::1]", ""])
def test_loose_addresses_are_refused(text: str) -> None:
    assert parse_address(text) is None


def test_mapped_addresses_are_ipv4() -> None:
    assert unmapped(ip_address("::ffff:10.9.9.9")) == ip_address("10.9.9.9")
    assert unmapped(ip_address("2001:db8::1")) == ip_address("2001:db8::1")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Proxy.Example:8443", "proxy.example:8443"),
        ("192.0.2.1:443", "192.0.2.1:443"),
        ("[2001:DB8:5::10]:8443", "[2001:db8:5::10]:8443"),
    ],
)
def test_authorities(text: str, shown: str) -> None:
    assert str(HostPort.parse(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "proxy.example",
        "proxy.example:",
        "proxy.example:0",
        "proxy.example:65536",
        "proxy.example:４43",
        "proxy.example:443\n",
        "https://proxy.example:443",
        "proxy.example:443/",
        "user@proxy.example:443",
        "2001:db8::1:443",
        "[192.0.2.1]:443",
        "[fe80::1%25eth0]:443",
        "bücher.example:443",
        ":443",
        "",
    ],
)
def test_other_things_are_no_authorities(text: str) -> None:
    with pytest.raises(ConfigurationError):
        HostPort.parse(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://proxy.example/u{?a,b}", "proxy.example:443"),
        ("HTTPS://proxy.example:4443", "proxy.example:4443"),
        ("https://[2001:db8::1]/{x}", "[2001:db8::1]:443"),
    ],
)
def test_authorities_of_urls(text: str, shown: str) -> None:
    assert str(HostPort.of_https_url(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://proxy.example/",
        "//proxy.example/",
        "https:///path",
        "https://user@proxy.example/",
        "https://proxy.example/#f",
        "https://proxy.example:99999/",
        "https://[::1",
        "https://proxy.example/ü",
        "https://proxy.example/\t",
        "https://{host}/",
    ],
)
def test_other_urls_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        HostPort.of_https_url(text)
