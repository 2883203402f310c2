"""Our client certificate is shown to the proxy it was given for, and to no other that a document names."""

from __future__ import annotations

from pathlib import Path

import pytest

from masque_client.engine.interface import TlsConfiguration
from masque_client.http.connector import ConnectOptions

TLS = TlsConfiguration(ca_file=Path("ca"), pin=b"p" * 32, certificate=Path("cert"), key=Path("key"))


@pytest.mark.parametrize("host", ["proxy.example", "PROXY.example"])
def test_its_own_proxy_sees_it(host: str) -> None:
    options = ConnectOptions(tls=TLS, certificate_origin=("proxy.example", 443))
    assert options.for_origin(host, 443).tls == TLS


@pytest.mark.parametrize("origin", [("other.example", 443), ("proxy.example", 8443), ("sub.proxy.example", 443)])
def test_another_proxy_does_not_but_trust_stays_as_strict(origin: tuple[str, int]) -> None:
    options = ConnectOptions(tls=TLS, certificate_origin=("proxy.example", 443))
    assert options.for_origin(*origin).tls == TlsConfiguration(ca_file=TLS.ca_file, pin=TLS.pin)


def test_without_an_origin_every_proxy_sees_it() -> None:
    assert ConnectOptions(tls=TLS).for_origin("any.example", 1).tls == TLS
