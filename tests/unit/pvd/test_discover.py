"""Discovery as the tunnel manager sees it: candidates of one protocol, in order."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from masque_client.engine.interface import TlsConfiguration
from masque_client.pvd.discover import Discovery, discover
from masque_client.pvd.fetch import FetchOptions
from masque_client.pvd.match import Flow, FlowKind, Verdict
from masque_client.pvd.proxies import ProxyProtocol
from masque_client.pvd.source import PvdSource
from masque_client.testing.certificates import CertificateAuthority, Credentials
from tests.unit.pvd.documents import DOCUMENT_A, DOCUMENT_B, HOST, NOW, UDP_PROXY, document, parse
from tests.unit.pvd.https_host import HttpsHost, response

SOURCE = PvdSource.parse(HOST)


@pytest.mark.parametrize("source", [HOST, f"{HOST}:8080", SOURCE])
def test_from_a_name_to_proxies(
    authority: CertificateAuthority, credentials: Credentials, source: str | PvdSource
) -> None:
    host = HttpsHost([response(DOCUMENT_A)])

    async def serve_and_discover() -> Discovery:
        async with host.serving(credentials):
            options = FetchOptions(now=lambda: NOW, resolve=host.resolve)
            return await discover(source, tls=TlsConfiguration(ca_file=authority.ca_file), options=options)

    found = asyncio.run(serve_and_discover())
    assert found.source == SOURCE
    assert [proxy.text for proxy in found.candidates(ProxyProtocol.CONNECT_IP)] == [
        "https://masque.example.net/vpn{?target,ipproto}"
    ]
    assert found.candidates(ProxyProtocol.SOCKS5) == []


def test_identifierless_proxies_come_first_then_those_that_rules_name() -> None:
    entries = [
        UDP_PROXY | {"identifier": "second"},
        UDP_PROXY | {"identifier": "unnamed"},
        UDP_PROXY | {"identifier": "first", "alpn": ["h2"]},
        UDP_PROXY | {"identifier": "first", "alpn": ["h3"]},
        UDP_PROXY,
        UDP_PROXY | {"alpn": ["h3"]},
    ]
    rules = [{"proxies": ["first", "second"], "ports": ["53"]}, {"proxies": ["second", "first"]}]
    found = Discovery(SOURCE, parse(document(proxies=entries, proxy_match=rules)))
    places = [proxy.pointer for proxy in found.candidates(ProxyProtocol.CONNECT_UDP)]
    assert places == [f"/proxies/{i}" for i in (5, 4, 3, 2, 0)]


def test_the_matcher_applies_the_documents_rules() -> None:
    parsed = parse(DOCUMENT_B, expected_identifier="egress.corp.example")
    found = replace(Discovery(SOURCE, parsed), source=PvdSource.parse("egress.corp.example"))
    assert found.matcher().select(Flow(FlowKind.TCP, "10.0.0.1", port=80)).verdict is Verdict.EXCLUDED
    assert [proxy.identifier for proxy in found.candidates(ProxyProtocol.HTTPS_CONNECT)] == ["main", "spare"]
