"""Tunnels asked for on loopback, of proxies with ways of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from masque_client.engine.interface import EngineName, TlsConfiguration
from masque_client.errors import EmptyTunnel, ProxyRefused
from masque_client.netio.clock import MonotonicClock
from masque_client.protocol.ip_session import AddressesAssigned, ConnectIpSession
from masque_client.protocol.session import Role
from masque_client.protocol.uri_template import IpTemplate
from masque_client.pvd.names import HostPort
from masque_client.pvd.proxies import ProxyProtocol, PvdProxy
from masque_client.testing.certificates import CertificateAuthority
from masque_client.testing.proxy_requests import RequestServer
from masque_client.tunnel import opener as opener_module
from masque_client.tunnel.carrier import Carrier
from masque_client.tunnel.opener import Opener
from masque_client.tunnel.options import TunnelOptions
from masque_client.tunnel.proxies import ProxyChoice
from tests.unit.http.loops import in_loop
from tests.unit.testing.proxy_client import TIMEOUT_S, Bench, bench

REQUEST_V4_AND_V6 = "021a" + "0104" + "00" * 4 + "20" + "0206" + "00" * 16 + "80"
"""An ADDRESS_REQUEST for one address of each family."""


@pytest.fixture(autouse=True)
def _without_privilege(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opener_module, "DEFAULT_FWMARK", None)


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of the requests that the proxy hears."""
    heard: list[str] = []
    judge = RequestServer.judge

    def listen_in(server: RequestServer, stream: Any, headers: Any) -> None:
        heard.append(dict(headers)[b":path"].decode())
        judge(server, stream, headers)

    monkeypatch.setattr(RequestServer, "judge", listen_in)
    return heard


async def open_tunnel(running: Bench, template: str | None = None) -> Carrier:
    parsed = IpTemplate.parse(template or running.proxy.templates["connect-ip"])
    proxy = PvdProxy(ProxyProtocol.CONNECT_IP, parsed, parsed.text, HostPort(parsed.host, parsed.port))
    options = TunnelOptions(ProxyChoice((proxy,), (proxy,)), tls=TlsConfiguration(ca_file=running.ca_file))
    async with asyncio.timeout(TIMEOUT_S):
        carrier = await Opener(options, MonotonicClock()).open_first_with_addresses([proxy], lambda proxy, error: None)
    running.connections.append(carrier.connection)
    return carrier


@in_loop
async def test_a_proxy_that_dies_of_requests_is_not_asked_again(tmp_path: Path, paths: list[str]) -> None:
    """Digest I-30. It gives addresses by itself, but later than we wait before we ask."""
    faults = ("dies-of-requests", "assign-delay-ms=1500")
    async with bench(CertificateAuthority.create(tmp_path), EngineName.AUTO, *faults) as running:
        carrier = await open_tunnel(running)
        assert carrier.has_address and not carrier.has_asked
        assert carrier.stream.is_open
    assert len(paths) == 2


@in_loop
async def test_a_proxy_that_refuses_addresses_is_believed(tmp_path: Path, paths: list[str]) -> None:
    async with bench(CertificateAuthority.create(tmp_path), EngineName.AUTO, "assign-on-request", pools=[]) as running:
        with pytest.raises(EmptyTunnel, match="refused to assign"):
            await open_tunnel(running)
    assert len(paths) == 1


@in_loop
async def test_the_wildcard_is_written_in_two_ways(tmp_path: Path, paths: list[str]) -> None:
    """Digest T-12: RFC 9484 §4 shows `*`, strict expansion of RFC 6570 makes `%2A` of it."""
    async with bench(CertificateAuthority.create(tmp_path), EngineName.AUTO, "refuse=404") as running:
        with pytest.raises(ProxyRefused) as refused:
            await open_tunnel(running)
    assert refused.value.status == 404
    assert paths == ["/.well-known/masque/ip/*/*/", "/.well-known/masque/ip/%2A/%2A/"]


@pytest.mark.parametrize("status", [403, 503])
@in_loop
async def test_other_refusals_are_not_about_the_wildcard(status: int, tmp_path: Path, paths: list[str]) -> None:
    async with bench(CertificateAuthority.create(tmp_path), EngineName.AUTO, f"refuse={status}") as running:
        with pytest.raises(ProxyRefused):
            await open_tunnel(running)
    assert len(paths) == 1


@in_loop
async def test_without_a_wildcard_there_is_no_other_way(tmp_path: Path, paths: list[str]) -> None:
    async with bench(CertificateAuthority.create(tmp_path), EngineName.AUTO) as running:
        host, port = running.proxy.addresses[0]
        with pytest.raises(ProxyRefused):
            await open_tunnel(running, f"https://{host}:{port}/elsewhere")
    assert paths == ["/elsewhere"]


@in_loop
async def test_addresses_that_the_proxy_asks_of_us_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9484 §4.7.2: every entry is answered; we are no site."""
    answers: asyncio.Queue[AddressesAssigned] = asyncio.Queue()
    next_event = ConnectIpSession.next_event

    def listen_in(session: ConnectIpSession) -> Any:
        event = next_event(session)
        if session.role is Role.PROXY and isinstance(event, AddressesAssigned):
            answers.put_nowait(event)
        return event

    monkeypatch.setattr(ConnectIpSession, "next_event", listen_in)
    async with bench(
        CertificateAuthority.create(tmp_path), EngineName.AUTO, f"capsules={REQUEST_V4_AND_V6}"
    ) as running:
        carrier = await open_tunnel(running)
        async with asyncio.timeout(TIMEOUT_S):
            answer = await answers.get()
        assert carrier.stream.is_open
    assert [(entry.request_id, entry.is_rejection) for entry in answer.addresses] == [(1, True), (2, True)]
