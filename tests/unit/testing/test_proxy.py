"""The proxy as it should be, with both engines on loopback: tunnels, refusals, authentication, PvD, its end."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest

from masque_client.engine.interface import Address, EngineName, TlsConfiguration
from masque_client.errors import (
    AddressInUse,
    AuthenticationRefused,
    ConfigurationError,
    MasqueError,
    ProxyRefused,
    TlsError,
)
from masque_client.protocol.connect import ip_request_headers
from masque_client.protocol.ip_capsules import ANY_IPV4, ANY_IPV6, RequestedAddress, encode_address_request
from masque_client.protocol.ip_session import AddressesAssigned, ConnectIpSession, RoutesAdvertised
from masque_client.protocol.session import Role
from masque_client.protocol.uri_template import IpTemplate, RequestTarget
from masque_client.testing.certificates import CertificateAuthority
from masque_client.testing.credentials import Authentication
from masque_client.testing.dns import DnsResponder
from masque_client.testing.proxy import MasqueProxy, ProxyConfiguration
from tests.unit.testing.proxy_client import POOLS, TIMEOUT_S, Bench, Tunnel, bench

ENGINES = [EngineName.AIOQUIC, EngineName.QH3]
Scenario = Callable[[Bench], Awaitable[None]]
Run = Callable[..., None]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority.create(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def run(authority: CertificateAuthority) -> Run:
    def run_scenario(scenario: Scenario, *faults: str, engine: EngineName = EngineName.AUTO, **more: Any) -> None:
        async def session() -> None:
            async with bench(authority, engine, *faults, **more) as running:
                await scenario(running)

        asyncio.run(session())

    return run_scenario


class Echo:
    """A UDP target that sends everything back."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind((host, 0))
        self.address: Address = (host, self.socket.getsockname()[1])
        self.senders: set[Any] = set()

    def __enter__(self) -> Echo:
        asyncio.get_running_loop().add_reader(self.socket.fileno(), self._reply)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self.socket.fileno())
        self.socket.close()

    def _reply(self) -> None:
        data, sender = self.socket.recvfrom(65535)
        self.senders.add(sender)
        self.socket.sendto(data, sender)


# --- CONNECT-UDP ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_udp_payloads_go_there_and_back(run: Run, engine: EngineName, host: str) -> None:
    async def scenario(running: Bench) -> None:
        with Echo(host) as echo:
            tunnel = await running.open_udp(*echo.address)
            for payload in (b"hello", b"", bytes(1200)):
                tunnel.send(payload)
                assert await tunnel.payload() == payload

    run(scenario, engine=engine)


def test_udp_burst_comes_back_whole(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        with Echo() as echo:
            tunnel = await running.open_udp(*echo.address)
            for _ in range(10):
                burst = [index.to_bytes(2) * 500 for index in range(40)]
                tunnel.send(*burst)
                assert [await tunnel.payload() for _ in burst] == burst

    run(scenario)


def test_tunnels_of_one_connection_have_sockets_of_their_own(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        connection = await running.connect()
        with Echo() as echo:
            tunnels = [await running.open_udp(*echo.address, connection=connection) for _ in range(3)]
            for number, tunnel in enumerate(tunnels):
                tunnel.send(b"%d" % number)
            assert [await tunnel.payload() for tunnel in tunnels] == [b"0", b"1", b"2"]
            assert len(echo.senders) == 3
        assert len(running.proxy.listener.connections) == 1

    run(scenario)


def test_udp_names_are_resolved_at_the_proxy(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        with Echo() as echo:
            tunnel = await running.open_udp("localhost", echo.address[1])
            tunnel.send(b"by name")
            assert await tunnel.payload() == b"by name"

    run(scenario, allow=[ip_network("127.0.0.0/8")])


def test_closing_a_tunnel_closes_its_socket(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        with Echo() as echo:
            tunnel = await running.open_udp(*echo.address)
            tunnel.send(b"x")
            await tunnel.payload()
            (source,) = echo.senders
            tunnel.stream.close()
            second = await running.open_udp(*echo.address)  # answered after the close was handled
            second.send(b"y")
            await second.payload()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
                squatter.bind(source)

    run(scenario)


def test_unreachable_target_ends_the_tunnel(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        tunnel = await running.open_udp("127.0.0.1", port)  # a 200 promises nothing about the target
        tunnel.send(b"anyone there?")
        assert await tunnel.ended() is None

    run(scenario)


@pytest.mark.parametrize(
    ("host", "allow", "status", "reason"),
    [
        ("127.0.0.1", [], 502, "destination_ip_prohibited"),
        ("192.0.2.1", [], 502, "destination_ip_prohibited"),
        ("no-such-host.invalid", [], 502, "dns_error"),
    ],
)
def test_udp_targets_that_are_refused(run: Run, host: str, allow: list[Any], status: int, reason: str) -> None:
    async def scenario(running: Bench) -> None:
        with pytest.raises(ProxyRefused, match=reason) as refused:
            await running.open_udp(host, 53)
        assert refused.value.status == status

    run(scenario, allow=allow)


# --- CONNECT-IP -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_addresses_and_routes_come_unprompted(run: Run, engine: EngineName) -> None:
    async def scenario(running: Bench) -> None:
        tunnel = await running.open_ip()
        assigned = await tunnel.event(AddressesAssigned)
        assert [str(entry.prefix) for entry in assigned.addresses] == ["10.89.0.2/32", "fd89::2/128"]
        advertised = await tunnel.event(RoutesAdvertised)
        assert [str(entry) for entry in advertised.ranges] == [
            "10.80.0.0-10.80.0.255",
            "fd80::-fd80::ffff:ffff:ffff:ffff",
        ]

    run(scenario, engine=engine)


def test_every_client_has_its_own_address_and_returns_it(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        seen = []
        for _ in range(8):  # more than the pool has
            tunnel = await running.open_ip()
            assigned = await tunnel.event(AddressesAssigned)
            seen.append(str(assigned.addresses[0].prefix))
            served = list(running.proxy.listener.connections)
            running.connections.pop().close()
            assert all([await connection.wait_closed(TIMEOUT_S) for connection in served])
        first = [f"10.89.0.{number}/32" for number in range(2, 7)]
        assert seen == [*first, *first[:3]]

    run(scenario)


def test_address_requests_are_answered_entry_by_entry(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        tunnel = await running.open_ip()
        tunnel.session.request_addresses([RequestedAddress(1, ANY_IPV6), RequestedAddress(2, ANY_IPV4)])
        tunnel.stream.pump()
        assigned = await tunnel.event(AddressesAssigned)
        answers = {entry.request_id: entry for entry in assigned.addresses}
        assert answers.keys() == {1, 2}
        assert str(answers[2].prefix) == "10.89.0.2/32"
        assert answers[1].is_rejection

    run(scenario, "assign-on-request", pools=POOLS[:1])


def test_wanted_address_is_given_when_free(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        tunnel = await running.open_ip()
        tunnel.session.request_addresses([RequestedAddress(7, ip_network("10.89.0.5/32"))])
        tunnel.stream.pump()
        assigned = await tunnel.event(AddressesAssigned)
        assert [(entry.request_id, str(entry.prefix)) for entry in assigned.addresses] == [(7, "10.89.0.5/32")]

    run(scenario, "assign-on-request")


def test_scope_narrows_the_routes_or_is_refused(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        tunnel = await running.open_ip("10.80.0.10")
        advertised = await tunnel.event(RoutesAdvertised)
        assert [str(entry) for entry in advertised.ranges] == ["10.80.0.10-10.80.0.10"]
        with pytest.raises(ProxyRefused, match="destination_ip_unroutable"):
            await running.open_ip("198.51.100.0/24")

    run(scenario)


def test_capsules_that_overtake_the_answer_are_kept(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        connection = await running.connect()
        tunnel = Tunnel(ConnectIpSession(Role.CLIENT))
        template = IpTemplate.parse(running.proxy.templates["connect-ip"])
        stream = connection.http.open_request(ip_request_headers(template.expand("localhost")), tunnel.stream)
        tunnel.stream.stream = stream
        stream.send_data(encode_address_request([RequestedAddress(9, ANY_IPV4)]))
        connection.http.flush()
        assigned = await tunnel.event(AddressesAssigned)
        assert [entry.request_id for entry in assigned.addresses] == [9]

    run(scenario, "assign-on-request", routes=[ip_network("127.0.0.0/8"), ip_network("::1/128")])


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
        async with httpx.AsyncClient(verify=context, trust_env=False) as client:
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


# --- command line ---------------------------------------------------------------------------------------------------

COMMAND = [sys.executable, "-m", "masque_client.testing.proxy"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_line_says_when_it_is_ready_and_stops(tmp_path: Path, number: signal.Signals) -> None:
    options = ["--listen", "127.0.0.1:0", "--pvd-listen", "127.0.0.1:0", "--ca-dir", str(tmp_path), "--tun", "none"]
    with subprocess.Popen([*COMMAND, *options, "--auth", "bearer:t"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["pid"] == process.pid
        assert ready["engine"] in ("aioquic", "qh3")
        assert Path(ready["ca_file"]).is_file()
        context = ssl.create_default_context(cafile=ready["ca_file"])
        document = httpx.get(f"https://{ready['pvd'][0]}/.well-known/pvd", verify=context, trust_env=False).json()
        assert {entry["proxy"] for entry in document["proxies"]} == set(ready["templates"].values())
        process.send_signal(number)
        assert process.wait(timeout=10) == 0


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--tun", "none"], 2, "--ca-dir"),
        (["--ca-dir", "CA", "--tun", "none", "--misbehave", "nonsense"], 2, "nonsense"),
        (["--ca-dir", "CA", "--tunnel-types", "tcp"], 2, "udp"),
        (["--certificate", "CA/missing.pem", "--key", "CA/missing.key", "--tun", "none"], 1, "error: "),
    ],
)
def test_command_line_errors(tmp_path: Path, options: list[str], status: int, message: str) -> None:
    options = [option.replace("CA", str(tmp_path), 1) if option.startswith("CA") else option for option in options]
    command = [*COMMAND, "--listen", "127.0.0.1:0", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_command_line_taken_port(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [*COMMAND, "--listen", listen, "--ca-dir", str(tmp_path), "--tun", "none"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "hint: " in done.stderr


def test_dns_through_the_proxy(run: Run) -> None:
    """The demo's DNS step in small."""
    import dns.message

    async def scenario(running: Bench) -> None:
        with DnsResponder([("127.0.0.1", 0)]) as responder:
            tunnel = await running.open_udp(*responder.addresses[0])
            tunnel.send(dns.message.make_query("origin.masque.test", "A").to_wire())
            assert dns.message.from_wire(await tunnel.payload()).answer

    run(scenario)
