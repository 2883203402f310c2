"""Each way the proxy can misbehave, and that a client notices: over real QUIC, with both engines where it matters."""

from __future__ import annotations

import asyncio
import ssl

import httpx
import pytest

from masque_client.engine.interface import EngineName, Headers
from masque_client.errors import ConnectionLost, ProxyRefused, RemoteProtocolError, TimedOut
from masque_client.http.request_stream import RequestStream
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.ip_capsules import ANY_IPV4, ANY_IPV6, RequestedAddress
from masque_client.protocol.ip_session import AddressesAssigned, RoutesAdvertised
from masque_client.testing.certificates import CertificateAuthority
from masque_client.testing.proxy_requests import RequestServer
from tests.unit.testing.proxy_client import ENGINES, TIMEOUT_S, Bench, Echo, Run


@pytest.mark.parametrize("engine", ENGINES)
def test_missing_settings(run: Run, engine: EngineName) -> None:
    async def scenario(running: Bench) -> None:
        with pytest.raises(ProxyRefused, match="extended CONNECT"):
            await running.connect()

    run(scenario, "no-extended-connect", engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_without_quic_datagrams_there_are_capsules(run: Run, engine: EngineName) -> None:
    """RFC 9297 §2.2: the tunnel works all the same."""

    async def scenario(running: Bench) -> None:
        with Echo() as echo:
            tunnel = await running.open_udp(*echo.address)
            for payload in (b"x", bytes(9000)):
                tunnel.send(payload)
                assert await tunnel.payload() == payload

    run(scenario, "no-datagram", engine=engine)


@pytest.mark.parametrize("status", [302, 403, 404, 503])
def test_refusals(run: Run, status: int) -> None:
    async def scenario(running: Bench) -> None:
        with pytest.raises(ProxyRefused) as refused:
            await running.open_udp("127.0.0.1", 53)
        assert refused.value.status == status
        assert refused.value.retry_after_s == 7

    run(scenario, f"refuse={status}", "refuse-header=retry-after: 7", "refuse-header=location: https://other.test/")


def test_silence(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        tunnel = running.open_udp("127.0.0.1", 53)
        with pytest.raises((TimedOut, TimeoutError)):
            await asyncio.wait_for(tunnel, 0.3)

    run(scenario, "silent")


def test_informational_response_first(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        with Echo() as echo:
            tunnel = await running.open_udp(*echo.address)
            tunnel.send(b"x")
            assert await tunnel.payload() == b"x"

    run(scenario, "informational=103")


@pytest.mark.parametrize("faults", [("accept-status=204",), ("accept-header=content-length: 5",)])
def test_success_that_cannot_carry_capsules(run: Run, faults: tuple[str, ...]) -> None:
    async def scenario(running: Bench) -> None:
        with pytest.raises(RemoteProtocolError, match="RFC 9297"):
            await running.open_ip()

    run(scenario, *faults)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("fault", ["malformed-capsule", "truncated-capsule", "huge-capsule"])
def test_bad_capsules_end_the_tunnel(run: Run, engine: EngineName, fault: str) -> None:
    async def scenario(running: Bench) -> None:
        tunnel = await running.open_ip()
        assert isinstance(await tunnel.ended(), RemoteProtocolError)

    run(scenario, fault, engine=engine)


def test_unknown_capsule_is_skipped(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        tunnel = await running.open_ip()
        assert (await tunnel.event(AddressesAssigned)).addresses

    run(scenario, "unknown-capsule")


def test_end_is_a_clean_close(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        tunnel = await running.open_ip()
        assert await tunnel.ended() is None

    run(scenario, "end")


@pytest.mark.parametrize("engine", ENGINES)
def test_reset(run: Run, engine: EngineName) -> None:
    async def scenario(running: Bench) -> None:
        with pytest.raises(ConnectionLost):
            tunnel = await running.open_ip()  # the reset may overtake the answer
            raise await tunnel.ended() or AssertionError("a reset is no clean end")

    run(scenario, "reset=0x10b", engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_reset_in_place_of_an_answer(run: Run, engine: EngineName, monkeypatch: pytest.MonkeyPatch) -> None:
    """As hyperium's h3 treats a `:protocol` it does not know: there is no tunnel that could have been lost."""

    async def scenario(running: Bench) -> None:
        with pytest.raises(ConnectionLost, match="without an answer: H3_MESSAGE_ERROR") as lost:
            await running.open_ip()
        assert "may not know this tunnel type" in lost.value.hint

    def reset(_: RequestServer, stream: RequestStream, __: Headers) -> None:
        stream.reset(H3ErrorCode.H3_MESSAGE_ERROR)

    monkeypatch.setattr(RequestServer, "judge", reset)
    run(scenario, engine=engine)


def test_connection_close(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        with pytest.raises(ConnectionLost):
            tunnel = await running.open_ip()  # the end may overtake the answer
            raise await tunnel.ended() or AssertionError("this was no clean end")

    run(scenario, "close-after-ms=50")


def test_datagrams_vanish(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        with Echo() as echo:
            tunnel = await running.open_udp(*echo.address)
            tunnel.send(b"lost")
            other = await running.open_udp(*echo.address)  # by its answer the datagram has been handled
            assert echo.senders == set()
            assert other.payloads.empty()

    run(scenario, "drop-datagrams")


def test_large_datagrams_vanish(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        with Echo() as echo:
            tunnel = await running.open_udp(*echo.address)
            tunnel.send(bytes(501), bytes(500))
            assert await tunnel.payload() == bytes(500)

    run(scenario, "max-payload=500")


def test_addresses_never_come(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        tunnel = await running.open_ip()
        tunnel.session.request_addresses([RequestedAddress(1, ANY_IPV4)])
        tunnel.stream.pump()
        await tunnel.event(RoutesAdvertised)
        assert tunnel.session.assigned == ()

    run(scenario, "never-assign")


def test_addresses_come_late(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        started = asyncio.get_running_loop().time()
        tunnel = await running.open_ip()
        await tunnel.event(AddressesAssigned)
        assert asyncio.get_running_loop().time() - started >= 0.1

    run(scenario, "assign-delay-ms=100")


@pytest.mark.parametrize(("family", "kept"), [(4, 6), (6, 4)])
def test_one_family_is_refused(run: Run, family: int, kept: int) -> None:
    async def scenario(running: Bench) -> None:
        tunnel = await running.open_ip()
        tunnel.session.request_addresses([RequestedAddress(1, ANY_IPV4), RequestedAddress(2, ANY_IPV6)])
        tunnel.stream.pump()
        answer = await tunnel.event(AddressesAssigned)
        while not any(entry.request_id for entry in answer.addresses):
            answer = await tunnel.event(AddressesAssigned)
        rejected = {entry.prefix.version: entry.is_rejection for entry in answer.addresses}
        assert rejected == {family: True, kept: False}

    run(scenario, f"refuse-family={family}")


def test_withdrawal(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        tunnel = await running.open_ip()
        assert (await tunnel.event(AddressesAssigned)).addresses
        assert (await tunnel.event(AddressesAssigned)).addresses == ()

    run(scenario, "withdraw-after-ms=50")


def test_no_routes(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        tunnel = await running.open_ip()
        await tunnel.event(AddressesAssigned)
        assert tunnel.session.routes == ()

    run(scenario, "no-routes", "assign-delay-ms=20")


def test_pvd_document_badly_served(run: Run, authority: CertificateAuthority) -> None:
    async def scenario(running: Bench) -> None:
        context = ssl.create_default_context(cafile=str(authority.ca_file))
        url = f"https://127.0.0.1:{running.proxy.pvd.addresses[0][1]}/.well-known/pvd"
        async with httpx.AsyncClient(verify=context, trust_env=False, timeout=TIMEOUT_S) as client:
            response = await client.get(url)
        assert response.status_code == 503
        assert response.headers["content-type"] == "text/plain"
        assert response.headers["retry-after"] == "3"
        assert response.text == "later"

    run(
        scenario,
        "pvd-status=503",
        "pvd-type=text/plain",
        "pvd-body=later",
        "pvd-header=retry-after:3",
        pvd_listen=[("127.0.0.1", 0)],
    )
