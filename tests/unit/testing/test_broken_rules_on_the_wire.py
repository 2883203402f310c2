"""What a proxy that breaks rules is told: the error codes that arrive at its end, with every HTTP carrier.

The codes are read from the events of the proxy's engine, so they have travelled. Over HTTP/2 they are the ones that
RFC 9113 has for the same thing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from masque_client.engine.interface import (
    ConnectionClosed,
    DataReceived,
    EngineName,
    Event,
    StopSendingReceived,
    StreamReset,
    TlsConfiguration,
)
from masque_client.errors import AuthenticationRefused, MasqueError, ProxyRefused, RemoteProtocolError, TimedOut
from masque_client.http.connection import HttpConnection
from masque_client.http.connector import ConnectOptions, HttpVersion, ProxyConnection, connect
from masque_client.protocol.connect import ip_request_headers
from masque_client.protocol.drops import DropReason
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.h2_error_codes import to_http2, to_http3
from masque_client.protocol.ip_session import ConnectIpSession
from masque_client.protocol.session import Role
from masque_client.protocol.uri_template import IpTemplate
from masque_client.testing.certificates import CertificateAuthority
from masque_client.testing.floods import FLOOD_OVER
from tests.unit.testing.proxy_client import TIMEOUT_S, Bench, Tunnel, bench
from tests.vectors import masque

CARRIERS = ["aioquic", "qh3", "http2"]
Seen = asyncio.Queue[Event]
Scenario = Callable[[Bench, ProxyConnection], Awaitable[None]]
Run = Callable[..., None]

MESSAGE, CANCELLED = H3ErrorCode.H3_MESSAGE_ERROR, H3ErrorCode.H3_REQUEST_CANCELLED
EXCESSIVE, DATAGRAM = H3ErrorCode.H3_EXCESSIVE_LOAD, H3ErrorCode.H3_DATAGRAM_ERROR
"""Tunnel type, faults of the proxy, error and clause at the client, code at the proxy."""
BROKEN: dict[str, tuple[str, tuple[str, ...], str, H3ErrorCode]] = {
    "truncated capsule": ("ip", ("truncated-capsule",), "RFC 9297 §3.3", MESSAGE),
    "truncated capsule, udp": ("udp", ("truncated-capsule",), "RFC 9297 §3.3", MESSAGE),
    "huge known capsule": ("ip", ("huge-capsule",), "RFC 9297 §3.2", EXCESSIVE),
    "overlapping routes": ("ip", ("overlapping-routes",), "RFC 9484 §4.7.3", MESSAGE),
    "overlong UDP payload": ("udp", (f"capsules={masque.DATAGRAM_OVERLONG_UDP}",), "RFC 9298 §5", DATAGRAM),
    "204": ("ip", ("accept-status=204",), "RFC 9297 §3.2", MESSAGE),
    "101": ("ip", ("accept-status=101",), "RFC 9114 §4.3.2", MESSAGE),
    "content-length": ("udp", ("accept-header=content-length: 5",), "RFC 9297 §3.2", MESSAGE),
    "content-type": ("ip", ("accept-header=content-type: text/plain",), "RFC 9297 §3.2", MESSAGE),
    **{
        name: ("ip", (f"capsules={capsule}",), "RFC 9484 §4.7", MESSAGE)
        for name, capsule in masque.INVALID_IP_CAPSULES.items()
    },
}
SOME = ("truncated capsule, udp", "huge known capsule", "overlong UDP payload", "204", "TX01 host bits set")
"""Enough to show that a carrier passes codes on; one carrier shows them all."""


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Everything that the proxy's engine tells of streams and their ends, in order."""
    events: Seen = asyncio.Queue()
    dispatch = HttpConnection._dispatch_control

    def listen_in(connection: HttpConnection, event: Event) -> None:
        engine: Any = connection.engine
        if not engine.configuration.is_client:
            events.put_nowait(event)
        dispatch(connection, event)

    monkeypatch.setattr(HttpConnection, "_dispatch_control", listen_in)
    return events


@pytest.fixture
def run(authority: CertificateAuthority) -> Run:
    """Run a scenario with a connection of this carrier to a proxy with these faults."""

    def run_scenario(scenario: Scenario, carrier: str, *faults: str) -> None:
        async def session() -> None:
            engine = EngineName.AUTO if carrier == "http2" else EngineName(carrier)
            async with bench(authority, engine, *faults, pvd_listen=[("127.0.0.1", 0)]) as running:
                if carrier == "http2":
                    options = ConnectOptions(tls=TlsConfiguration(ca_file=authority.ca_file), http=HttpVersion.HTTP_2)
                    connection = await connect(*running.proxy.pvd.addresses[0], options)
                    running.connections.append(connection)
                else:
                    connection = await running.connect()
                await scenario(running, connection)

        asyncio.run(session())

    return run_scenario


async def code_at_the_proxy(seen: Seen) -> int:
    """With which code did the client give up its stream?"""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            match await seen.get():
                case StreamReset(_, code) | StopSendingReceived(_, code):
                    return code
                case ConnectionClosed() as closed:
                    raise AssertionError(f"the connection was closed instead: {closed}")


def on_the_wire(carrier: str, code: H3ErrorCode) -> int:
    """What the proxy's engine must have heard."""
    return to_http3(to_http2(code)) if carrier == "http2" else code


async def end_of_tunnel(running: Bench, connection: ProxyConnection, kind: str) -> Exception | None:
    """How a tunnel ends that never should have been opened, or not for long."""
    try:
        if kind == "udp":
            tunnel = await running.open_udp("127.0.0.1", 9, connection=connection)
        else:
            tunnel = await running.open_ip(connection=connection)
    except MasqueError as error:
        return error
    return await tunnel.ended()


@pytest.mark.parametrize(
    ("carrier", "case"),
    [("qh3", case) for case in BROKEN] + [(carrier, case) for carrier in ("aioquic", "http2") for case in SOME],
)
def test_a_broken_rule_is_answered_with_its_code(run: Run, seen: Seen, carrier: str, case: str) -> None:
    kind, faults, clause, code = BROKEN[case]

    async def scenario(running: Bench, connection: ProxyConnection) -> None:
        error = await end_of_tunnel(running, connection, kind)
        assert isinstance(error, RemoteProtocolError)
        assert error.clause.startswith(clause)
        assert error.code == code
        assert await code_at_the_proxy(seen) == on_the_wire(carrier, code)
        assert connection.http.closed is None, "a stream error costs the stream only"
        assert connection.http.violations == {error.clause: 1}

    run(scenario, carrier, *faults)


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("status", [302, 401, 403, 503])
def test_a_refused_request_is_cancelled(run: Run, seen: Seen, carrier: str, status: int) -> None:
    async def scenario(running: Bench, connection: ProxyConnection) -> None:
        error = await end_of_tunnel(running, connection, "ip")
        assert isinstance(error, (AuthenticationRefused, ProxyRefused))
        assert await code_at_the_proxy(seen) == CANCELLED

    run(scenario, carrier, f"refuse={status}")


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_request_without_an_answer_is_cancelled(run: Run, seen: Seen, carrier: str) -> None:
    async def scenario(running: Bench, connection: ProxyConnection) -> None:
        tunnel = Tunnel(ConnectIpSession(Role.CLIENT))
        template = IpTemplate.parse(running.proxy.templates["connect-ip"])
        with pytest.raises(TimedOut):
            await tunnel.stream.open(connection.http, ip_request_headers(template.expand()), timeout_s=0.1)
        assert await code_at_the_proxy(seen) == CANCELLED

    run(scenario, carrier, "silent")


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_tunnel_is_closed_with_the_end_of_the_stream(run: Run, seen: Seen, carrier: str) -> None:
    async def scenario(running: Bench, connection: ProxyConnection) -> None:
        tunnel = await running.open_ip(connection=connection)
        tunnel.stream.close()
        tunnel.stream.flush()
        async with asyncio.timeout(TIMEOUT_S):
            while not isinstance(event := await seen.get(), DataReceived) or not event.end_stream:
                assert not isinstance(event, (StreamReset, StopSendingReceived))

    run(scenario, carrier)


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_flood_ends_and_the_tunnel_stays(run: Run, carrier: str) -> None:
    async def scenario(running: Bench, connection: ProxyConnection) -> None:
        tunnel = await running.open_udp("127.0.0.1", 9, connection=connection)
        assert await tunnel.payload() == FLOOD_OVER, "nothing of the flood itself is delivered"
        assert tunnel.session.drops[DropReason.CONTEXT_UNKNOWN] > 0
        assert tunnel.stream.is_open

    run(scenario, carrier, "flood-capsule-bytes=1000000", "flood-capsules=1000", "flood-contexts=500")


@pytest.mark.parametrize("carrier", CARRIERS)
def test_packets_for_others_are_dropped(run: Run, carrier: str) -> None:
    async def scenario(running: Bench, connection: ProxyConnection) -> None:
        tunnel = await running.open_ip(connection=connection)
        assert await tunnel.ended() is None
        assert tunnel.session.drops[DropReason.DESTINATION_NOT_OURS] > 0
        assert tunnel.payloads.empty()

    run(scenario, carrier, "flood-strangers=500", "end")
