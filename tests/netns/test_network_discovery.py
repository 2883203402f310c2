"""A network names its PvD, and the document is fetched through it: RA → its resolver → its HTTPS host → trust.

client 2001:db8:cafe::1 ── 2001:db8:cafe::53 router, which is also resolver and host of the document
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from masque_client.engine.interface import TlsConfiguration
from masque_client.errors import MasqueError, NameResolutionError, PvdError, TimedOut
from masque_client.pvd.network import NetworkDiscovery, discover_network, resolve_through
from masque_client.pvd.trust import NetworkPvdTrust
from masque_client.testing.certificates import CertificateAuthority
from masque_client.testing.dns import DnsResponder
from masque_client.testing.netns import Lab
from masque_client.testing.pvd_server import PvdServer, pvd_document
from tests.netns.router import PATIENCE_S, Link
from tests.vectors.ra import OTHER_PREFIX, R1, R2, R3

pytestmark = pytest.mark.netns

ROUTER = "2001:db8:cafe::53"
PROXY = {"protocol": "connect-udp", "proxy": "https://proxy.example.org/u{?target_host,target_port}"}
DOCUMENT = pvd_document("example.org", [PROXY]) | {"prefixes": ["2001:db8:cafe::/48"]}


@pytest.fixture
def link(lab: Lab) -> Iterator[Link]:
    link = Link(lab)
    with link.socket:
        yield link


def discover(
    link: Link, tmp_path: Path, *options: bytes, document: object = DOCUMENT, timeout_s: float = PATIENCE_S
) -> tuple[NetworkDiscovery, list[str]]:
    """What the client finds when the router answers with these options, and what was asked of the HTTPS host."""
    authority = CertificateAuthority.create(tmp_path)
    assert isinstance(document, dict)
    server = PvdServer(document, authority.issue(["example.org"]))
    with link.router.entered():
        responder = DnsResponder([(ROUTER, 53)], {"example.org": {"AAAA": [ROUTER]}})

    async def scenario() -> NetworkDiscovery:
        with link.router.entered():
            await server.start([(ROUTER, 443)])
        async with server:
            with link.client.entered():
                tls = TlsConfiguration(ca_file=authority.ca_file)
                finding = asyncio.create_task(discover_network(link.interface, tls=tls, timeout_s=timeout_s))
                if options:
                    await asyncio.to_thread(link.await_solicitation)
                    link.advertise(*options)
                return await finding

    with responder:
        return asyncio.run(scenario()), server.requests


def test_the_networks_document_is_found_and_its_proxies_stay_unused(link: Link, tmp_path: Path) -> None:
    network, requests = discover(link, tmp_path, R2)
    assert network.found is not None and requests == ["/.well-known/pvd"]
    document = network.found.document
    assert (document.identifier, [proxy.text for proxy in document.proxies]) == ("example.org", [PROXY["proxy"]])
    assert NetworkPvdTrust().narrow(document).proxies == ()
    named = NetworkPvdTrust(True, frozenset({"example.org"}), frozenset({"proxy.example.org"}))
    assert named.narrow(document).proxies == document.proxies


def test_a_prefix_that_the_document_does_not_cover_discards_it(link: Link, tmp_path: Path) -> None:
    with pytest.raises(PvdError, match="do not cover the advertised prefix 2001:db8:f00d::/64"):
        discover(link, tmp_path, R2, OTHER_PREFIX)


def test_without_the_flag_nothing_is_fetched(link: Link, tmp_path: Path) -> None:
    network, requests = discover(link, tmp_path, R3)
    assert network.found is None and requests == []


@pytest.mark.parametrize(
    ("options", "timeout_s", "kind", "message"),
    [
        ((OTHER_PREFIX,), 4.0, PvdError, "names no provisioning domain"),
        ((), 0.2, TimedOut, "no router advertisement"),
        ((R1,), PATIENCE_S, NameResolutionError, "advertises no resolver"),
    ],
)
def test_networks_that_say_too_little(
    link: Link, tmp_path: Path, options: tuple[bytes, ...], timeout_s: float, kind: type[MasqueError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        discover(link, tmp_path, *options, timeout_s=timeout_s)


def test_only_the_networks_resolver_is_asked(link: Link) -> None:
    with link.router.entered():
        responder = DnsResponder([(ROUTER, 53)], {"a.example": {"AAAA": ["2001:db8::7"], "A": ["192.0.2.7"]}})

    async def resolve(host: str) -> object:
        with link.client.entered():
            return await resolve_through(link.interface, [IPv6Address(ROUTER)])(host, 443)

    with responder:
        assert asyncio.run(resolve("a.example")) == [("2001:db8::7", 443), ("192.0.2.7", 443)]
        with pytest.raises(NameResolutionError, match="has no addresses"):
            asyncio.run(resolve("b.example"))
    with pytest.raises(NameResolutionError, match="no resolver of the network"):
        asyncio.run(resolve("a.example"))  # the port is closed now
