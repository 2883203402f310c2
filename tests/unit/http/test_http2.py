"""HTTP/2 over real TLS and TCP on loopback: the same sessions, who is trusted, back-pressure without dead-locks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from masque_client.engine.interface import EngineName, TlsConfiguration
from masque_client.errors import (
    AuthenticationRefused,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    MasqueError,
    PrivilegeError,
    ProxyRefused,
    RemoteProtocolError,
    TlsError,
)
from masque_client.http.connector import ConnectOptions, HttpVersion, ProxyConnection, connect
from masque_client.http.tcp_link import TcpLink
from masque_client.protocol.ip_session import AddressesAssigned
from masque_client.testing.certificates import CertificateAuthority, spki_pin
from masque_client.testing.credentials import Authentication
from tests.unit.testing.proxy_client import TIMEOUT_S, Bench, Tunnel, bench

HTTP_2 = ConnectOptions(http=HttpVersion.HTTP_2)
Run = Callable[..., None]


@pytest.fixture
def run(authority: CertificateAuthority) -> Run:
    """Run a scenario against a proxy that serves HTTP/2 on the TCP port of its QUIC."""

    def run_scenario(scenario: Callable[[Bench], Awaitable[None]], *faults: str, **more: Any) -> None:
        async def session() -> None:
            engine = more.pop("engine", EngineName.AUTO)
            async with bench(authority, engine, *faults, h2_listen=[("127.0.0.1", 0)], **more) as running:
                await scenario(running)

        asyncio.run(session())

    return run_scenario


async def http2(bench: Bench, tls: TlsConfiguration | None = None) -> ProxyConnection:
    options = replace(HTTP_2, tls=tls or TlsConfiguration(ca_file=bench.ca_file))
    connection = await connect(*bench.proxy.addresses[0], options)
    bench.connections.append(connection)
    return connection


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A UDP port of 127.0.0.1 that sends everything back."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)

        def reply() -> None:
            data, peer = sock.recvfrom(65_535)
            sock.sendto(data, peer)

        loop.add_reader(sock, reply)
        try:
            yield sock.getsockname()[1]
        finally:
            loop.remove_reader(sock)


async def failure(attempt: Awaitable[Any]) -> MasqueError:
    try:
        await attempt
    except MasqueError as error:
        return error
    raise AssertionError("it should have failed")


# --- sessions -------------------------------------------------------------------------------------------------------


def test_connect_udp_carries_payloads_of_every_size(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        async with echo() as port:
            connection = await http2(bench)
            assert (connection.http_version, connection.transport) == (2, "tcp")
            assert connection.fallback_reason is None, "HTTP/2 was asked for"
            tunnel = await bench.open_udp("127.0.0.1", port, connection=connection)
            for payload in (b"", b"hello", b"x" * 1500, b"y" * 9000):
                tunnel.send(payload)
                assert await tunnel.payload() == payload

    run(scenario)


def test_connect_ip_is_told_addresses_and_routes(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        tunnel = await bench.open_ip(connection=await http2(bench))
        assigned = await tunnel.event(AddressesAssigned)
        assert [entry.prefix.version for entry in assigned.addresses] == [4, 6]

    run(scenario)


def test_many_tunnels_share_a_connection(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        async with echo() as port:
            connection = await http2(bench)
            tunnels = [await bench.open_udp("127.0.0.1", port, connection=connection) for _ in range(20)]
            for number, tunnel in enumerate(tunnels):
                tunnel.send(b"%d" % number)
            assert [await tunnel.payload() for tunnel in tunnels] == [b"%d" % number for number in range(20)]
            tunnels[0].stream.close()
            tunnels[1].send(b"unharmed")
            assert await tunnels[1].payload() == b"unharmed"

    run(scenario)


@pytest.mark.parametrize(
    ("faults", "error", "words"),
    [
        (["refuse=403"], ProxyRefused, "403"),
        (["refuse=503"], ProxyRefused, "503"),
        (["accept-status=204"], RemoteProtocolError, "204"),
        (["accept-header=content-length: 5"], RemoteProtocolError, "content-length"),
    ],
)
def test_refusals_are_those_of_http3(run: Run, faults: list[str], error: type[MasqueError], words: str) -> None:
    async def scenario(bench: Bench) -> None:
        connection = await http2(bench)
        found = await failure(bench.open_udp("127.0.0.1", 9, connection=connection))
        assert isinstance(found, error)
        assert words in str(found).lower()
        assert connection.http.closed is None, "only the request is over"

    run(scenario, *faults)


def test_credentials(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        connection = await http2(bench)
        assert isinstance(await failure(bench.open_ip(connection=connection)), AuthenticationRefused)
        await bench.open_ip(headers=[(b"authorization", b"Bearer secret")], connection=connection)

    run(scenario, authentication=Authentication.parse("bearer:secret"))


@pytest.mark.parametrize("fault", ["malformed-capsule", "truncated-capsule", "huge-capsule"])
def test_broken_capsules_end_the_tunnel_alone(run: Run, fault: str) -> None:
    async def scenario(bench: Bench) -> None:
        connection = await http2(bench)
        tunnel = await bench.open_ip(connection=connection)
        assert isinstance(await tunnel.ended(), RemoteProtocolError)
        assert connection.http.closed is None

    run(scenario, fault)


def test_unknown_capsules_are_skipped(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        tunnel = await bench.open_ip(connection=await http2(bench))
        await tunnel.event(AddressesAssigned)

    run(scenario, "unknown-capsule")


def test_a_proxy_that_resets_or_closes(run: Run) -> None:
    async def reset(bench: Bench) -> None:
        tunnel = await bench.open_ip(connection=await http2(bench))
        assert isinstance(await tunnel.ended(), ConnectionLost)

    async def close(bench: Bench) -> None:
        connection = await http2(bench)
        with pytest.raises(ConnectionLost):  # the end may overtake the answer
            tunnel = await bench.open_ip(connection=connection)
            raise await tunnel.ended() or AssertionError("this was no clean end")
        assert await connection.http.wait_closed(TIMEOUT_S)

    run(reset, "reset=0x10c")
    run(close, "close-after-ms=10")


def test_no_extended_connect_is_said(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        error = await failure(http2(bench))
        assert isinstance(error, ProxyRefused)
        assert "RFC 8441" in str(error)

    run(scenario, "no-extended-connect")


# --- back-pressure --------------------------------------------------------------------------------------------------


def test_a_peer_that_stops_reading_neither_blocks_nor_grows_us(run: Run) -> None:
    """The proxy's socket is not read: our datagrams age and fall out; when it reads again, the tunnel works again."""

    async def scenario(bench: Bench) -> None:
        async with echo() as port:
            connection = await http2(bench)
            tunnel = await bench.open_udp("127.0.0.1", port, connection=connection)
            (served,) = bench.proxy.http2.connections
            transport = served._send.__self__._transport  # type: ignore[attr-defined]
            transport.pause_reading()
            engine = connection.http.engine
            async with asyncio.timeout(TIMEOUT_S):
                while not engine.statistics().datagrams_expired:
                    tunnel.stream.send_payloads([bytes(8000)] * 50)
                    tunnel.stream.flush()
                    await asyncio.sleep(0)
            assert engine.statistics().bytes_in_flight < 1 << 20
            transport.resume_reading()
            async with asyncio.timeout(TIMEOUT_S):
                answer = b""
                while answer != b"alive":
                    tunnel.send(b"alive")
                    answer = await tunnel.payload()

    run(scenario)


def test_floods_both_ways_do_not_dead_lock(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        async with echo() as port:
            connection = await http2(bench)
            tunnels = [await bench.open_udp("127.0.0.1", port, connection=connection) for _ in range(4)]
            for _ in range(50):
                for tunnel in tunnels:
                    tunnel.send(*[bytes(1400)] * 64)
                await asyncio.sleep(0)
            for tunnel in tunnels:
                await until_answered(tunnel, b"end")

    run(scenario)


async def until_answered(tunnel: Tunnel, payload: bytes) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        answer = b""
        tunnel.send(payload)
        while answer != payload:
            try:
                answer = await asyncio.wait_for(tunnel.payloads.get(), 0.2)
            except TimeoutError:
                tunnel.send(payload)  # UDP on the far side may have lost it


# --- TLS ------------------------------------------------------------------------------------------------------------


def test_the_pin(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        certificate = bench.proxy.configuration.credentials.certificate
        right, wrong = spki_pin(certificate), bytes(32)
        await http2(bench, TlsConfiguration(ca_file=bench.ca_file, pin=right))
        error = await failure(http2(bench, TlsConfiguration(ca_file=bench.ca_file, pin=wrong)))
        assert isinstance(error, TlsError)
        assert "pin" in str(error)

    run(scenario)


def test_an_unknown_ca_and_a_wrong_name(run: Run, tmp_path: Path) -> None:
    other = CertificateAuthority.create(tmp_path)

    async def scenario(bench: Bench) -> None:
        error = await failure(http2(bench, TlsConfiguration(ca_file=other.ca_file)))
        assert isinstance(error, TlsError)
        assert "unknown CA" in str(error)
        assert "--ca" in error.hint
        tls = TlsConfiguration(ca_file=bench.ca_file)
        error = await failure(TcpLink.dial(bench.proxy.addresses[0], "other.example", tls))
        assert isinstance(error, TlsError)
        assert "not for other.example" in str(error)

    run(scenario)


def test_mutual_tls(run: Run, authority: CertificateAuthority) -> None:
    ours = authority.issue(["client"], client=True)

    async def scenario(bench: Bench) -> None:
        connection = await http2(
            bench, TlsConfiguration(ca_file=bench.ca_file, certificate=ours.certificate, key=ours.key)
        )
        await bench.open_ip(connection=connection)
        assert isinstance(await failure(http2(bench)), ConnectError), "no certificate, no connection"

    run(
        scenario,
        engine=EngineName.AIOQUIC,  # the other one cannot verify client certificates on a server
        authentication=Authentication.parse("mtls"),
        client_ca=authority.ca_file,
    )


def test_a_server_without_http2(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        error = await failure(http2(bench))
        assert isinstance(error, ProxyRefused)
        assert "HTTP/2" in str(error)

    run(scenario, http2=False)


def test_nothing_listens(authority: CertificateAuthority) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        error = asyncio.run(failure(connect("127.0.0.1", reserved.getsockname()[1], HTTP_2)))
    assert isinstance(error, ConnectError)
    assert "nothing listens on TCP port" in str(error)


def test_what_is_no_tls_at_all() -> None:
    async def scenario() -> MasqueError:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example ESMTP\r\n")
            writer.close()

        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            return await failure(connect("127.0.0.1", server.sockets[0].getsockname()[1], HTTP_2))

    assert isinstance(asyncio.run(scenario()), (TlsError, ConnectError))


def test_an_unreadable_ca_file(tmp_path: Path) -> None:
    tls = TlsConfiguration(ca_file=tmp_path / "missing.pem")
    assert isinstance(asyncio.run(failure(TcpLink.dial(("127.0.0.1", 9), "x", tls))), ConfigurationError)


def test_the_mark_is_on_the_socket(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        tls = TlsConfiguration(ca_file=bench.ca_file)
        try:
            link = await TcpLink.dial(bench.proxy.addresses[0], "127.0.0.1", tls, mark=0x4D51)
        except PrivilegeError:
            pytest.skip("NEEDS CAP_NET_ADMIN: marks are not tested here")
        sock = link._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 0x4D51
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        link.close()

    run(scenario)
