"""The proxy as it should be: refusals, authentication, PvD, its beginning and its end."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from masque_client.engine.interface import Address, EngineName, TlsConfiguration
from masque_client.errors import (
    AddressInUse,
    AuthenticationRefused,
    ConfigurationError,
    MasqueError,
    ProxyRefused,
    TlsError,
)
from masque_client.http.connector import ConnectOptions, HttpVersion, connect
from masque_client.protocol.ip_session import ConnectIpSession
from masque_client.protocol.mtu import inner_max
from masque_client.protocol.quic_invariants import parse_long_header
from masque_client.protocol.session import Role
from masque_client.protocol.uri_template import RequestTarget
from masque_client.testing.certificates import CertificateAuthority
from masque_client.testing.credentials import Authentication
from masque_client.testing.proxy import MasqueProxy, ProxyConfiguration, answer_size
from masque_client.testing.pvd_server import PvdServer
from tests.unit.testing.proxy_client import TIMEOUT_S, Bench, Run, Tunnel, bench

# --- packets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "answers"), [(1252, 1252), (1350, 1350), (1472, 1472), (9000, 1472)])
def test_answers_in_the_size_that_the_path_has_just_carried(first: int, answers: int) -> None:
    assert answer_size(first) == answers


@pytest.mark.parametrize("first", [1200, 1280])  # quiche, quinn and many more; quic-go
def test_carries_ipv6_to_clients_whose_first_packet_says_nothing_of_the_path(first: int) -> None:
    assert inner_max(answer_size(first)) >= 1280


def test_answers_clients_whose_connection_id_has_no_bytes(authority: CertificateAuthority) -> None:
    """As quic-go's; qh3, which the proxy takes where it is installed, would answer to an id of its own making."""

    async def scenario() -> None:
        async with bench(authority, EngineName.AUTO) as running:
            configuration = QuicConfiguration(connection_id_length=0, alpn_protocols=["h3"], server_name="localhost")
            client = QuicConnection(configuration=configuration)
            client._peer_cid.cid = bytes(8)  # the one it makes up for us; it would have no bytes either
            client.connect(running.proxy.addresses[0], now=0.0)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                for data, address in client.datagrams_to_send(now=0.0):
                    sock.sendto(data, address)
                answer = asyncio.get_running_loop().sock_recv(sock, 2000)
                header = parse_long_header(await asyncio.wait_for(answer, TIMEOUT_S))
            assert header is not None and header.destination_cid == b""

    asyncio.run(scenario())


# --- requests -------------------------------------------------------------------------------------------------------


def test_requests_that_match_nothing(run: Run, authority: CertificateAuthority) -> None:
    async def scenario(running: Bench) -> None:
        running.proxy.templates = {
            "connect-udp": "https://127.0.0.1/elsewhere/{target_host}/{target_port}",
            "connect-ip": "https://127.0.0.1/elsewhere",
        }
        for request in (running.open_udp("192.0.2.1", 53), running.open_ip()):
            with pytest.raises(ProxyRefused) as refused:
                await request
            assert refused.value.status in (404, 501)

    run(scenario, ip_path=None)


@pytest.mark.parametrize("http", [HttpVersion.HTTP_2, HttpVersion.HTTP_3])
def test_other_methods_are_refused_and_not_malformed(
    run: Run, authority: CertificateAuthority, http: HttpVersion
) -> None:
    """Such as a browser's GET of the PvD document over HTTP/2."""
    get = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/.well-known/pvd"), (b":authority", b"127.0.0.1")]

    async def scenario(running: Bench) -> None:
        options = ConnectOptions(http=http, tls=TlsConfiguration(ca_file=authority.ca_file))
        connection = await connect(*running.proxy.addresses[0], options)
        running.connections.append(connection)
        with pytest.raises(ProxyRefused) as refused:
            await Tunnel(ConnectIpSession(Role.CLIENT)).stream.open(connection.http, get)
        assert refused.value.status == 405

    run(scenario, h2_listen=[("127.0.0.1", 0)])


@pytest.mark.parametrize(("in_the_way", "starts"), [(3, True), (1000, False)])
def test_looks_for_a_port_that_is_free_for_quic_and_for_http2(
    authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch, in_the_way: int, starts: bool
) -> None:
    blockers: list[socket.socket] = []
    start = PvdServer.start

    async def start_late(server: PvdServer, listen: Sequence[Address]) -> PvdServer:
        if len(blockers) < in_the_way:
            blockers.append(socket.create_server(listen[0]))
        return await start(server, listen)

    monkeypatch.setattr(PvdServer, "start", start_late)

    async def scenario() -> None:
        async with bench(authority, h2_listen=[("127.0.0.1", 0)]) as running:
            assert running.proxy.pvd.addresses == running.proxy.addresses

    try:
        if starts:
            asyncio.run(scenario())
        else:
            with pytest.raises(OSError, match="in use"):
                asyncio.run(scenario())
    finally:
        for blocker in blockers:
            blocker.close()


def test_bad_variables_are_a_400(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(running: Bench) -> None:
        path = "/.well-known/masque/udp/127.0.0.1/0/"
        monkeypatch.setattr(
            "masque_client.protocol.uri_template.UdpTemplate.expand",
            lambda *_: RequestTarget("https", "127.0.0.1", path),
        )
        with pytest.raises(ProxyRefused) as refused:
            await running.open_udp("127.0.0.1", 1)
        assert refused.value.status == 400

    run(scenario)


@pytest.mark.parametrize("status", [401, 407])
def test_http_authentication(run: Run, status: Any) -> None:
    async def scenario(running: Bench) -> None:
        with pytest.raises(AuthenticationRefused, match="Basic") as refused:
            await running.open_ip()
        assert refused.value.status == status
        field = b"authorization" if status == 401 else b"proxy-authorization"
        await running.open_ip(headers=[(field, b"Basic " + base64.b64encode(b"alice:secret"))])

    run(scenario, authentication=Authentication.parse("basic:alice:secret", status))


def test_mutual_tls(run: Run, authority: CertificateAuthority) -> None:
    client = authority.issue(["alice"], client=True)

    async def scenario(running: Bench) -> None:
        tls = TlsConfiguration(authority.ca_file, certificate=client.certificate, key=client.key)
        await running.open_ip(connection=await running.connect(tls))
        with pytest.raises(MasqueError):
            await running.open_ip()

    run(
        scenario,
        engine=EngineName.AIOQUIC,
        authentication=Authentication.parse("mtls"),
        client_ca=authority.ca_file,
    )


# --- PvD and life ---------------------------------------------------------------------------------------------------


def test_pvd_document_lists_the_templates(run: Run, authority: CertificateAuthority) -> None:
    async def scenario(running: Bench) -> None:
        context = ssl.create_default_context(cafile=str(authority.ca_file))
        async with httpx.AsyncClient(verify=context, trust_env=False, timeout=TIMEOUT_S) as client:
            response = await client.get(f"https://127.0.0.1:{running.proxy.pvd.addresses[0][1]}/.well-known/pvd")
        document = response.json()
        assert document["identifier"] == "127.0.0.1"
        assert {entry["protocol"]: entry["proxy"] for entry in document["proxies"]} == running.proxy.templates

    run(scenario, pvd_listen=[("127.0.0.1", 0)])


def test_port_443_is_left_out_of_templates(authority: CertificateAuthority) -> None:
    proxy = MasqueProxy(ProxyConfiguration(authority.issue(["p.test"]), [], name="p.test"))
    proxy.listener = type("Listener", (), {"addresses": [("192.0.2.1", 443)]})()
    proxy._services({})
    assert proxy.templates["connect-ip"] == "https://p.test/.well-known/masque/ip/{target}/{ipproto}/"


def test_leaving_tells_the_clients_and_frees_the_port(authority: CertificateAuthority) -> None:
    async def run() -> None:
        async with bench(authority) as running:
            tunnel = await running.open_ip()
            address = running.proxy.addresses[0]
            await running.proxy.__aexit__(None, None, None)
            await tunnel.ended()  # FIN or CONNECTION_CLOSE, whichever is seen first
            assert await running.connections[0].http.wait_closed(TIMEOUT_S)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
                squatter.bind(address)

    asyncio.run(run())


def test_taken_port_leaves_nothing(authority: CertificateAuthority) -> None:
    async def run() -> None:
        async with bench(authority) as running:
            with pytest.raises(AddressInUse):
                async with bench(authority, listen=[("127.0.0.1", 0), running.proxy.addresses[0]]):
                    pass

    asyncio.run(run())


def test_unusable_certificate_is_found_at_the_start(authority: CertificateAuthority, tmp_path: Path) -> None:
    async def run() -> None:
        one, other = authority.issue(["a.test"]), authority.issue(["b.test"])
        mixed = type(one)(one.certificate, other.key)
        with pytest.raises(ConfigurationError):
            async with MasqueProxy(ProxyConfiguration(mixed, [("127.0.0.1", 0)])):
                pass

    asyncio.run(run())


def test_a_tun_needs_a_host_network(authority: CertificateAuthority) -> None:
    with pytest.raises(ValueError, match="HostNetwork"):
        MasqueProxy(ProxyConfiguration(authority.issue(["a.test"]), [], tun="tun0"))


def test_strangers_certificate_is_refused_by_the_client(run: Run, tmp_path: Path) -> None:
    async def scenario(running: Bench) -> None:
        stranger = CertificateAuthority.create(tmp_path)
        with pytest.raises(TlsError):
            await running.connect(TlsConfiguration(ca_file=stranger.ca_file))

    run(scenario)
