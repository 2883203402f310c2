"""The PvD server: a good document over verified TLS, and each way to serve it badly."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from masque_client.testing.certificates import CertificateAuthority, Credentials
from masque_client.testing.pvd_server import MEDIA_TYPE, PvdBehaviour, PvdServer, pvd_document
from tests.unit.testing.proxy_client import TIMEOUT_S

DOCUMENT = pvd_document("localhost", [{"protocol": "connect-udp", "proxy": "https://localhost/{target_host}/"}])
PATH = "/.well-known/pvd"
Scenario = Callable[[PvdServer, httpx.AsyncClient], Awaitable[None]]


@pytest.fixture(scope="module")
def credentials(authority: CertificateAuthority) -> Credentials:
    return authority.issue(["localhost", "127.0.0.1", "::1"])


@pytest.fixture
def serve(authority: CertificateAuthority, credentials: Credentials) -> Callable[..., None]:
    def run(scenario: Scenario, behaviour: PvdBehaviour | None = None, host: str = "127.0.0.1") -> None:
        async def session() -> None:
            context = ssl.create_default_context(cafile=str(authority.ca_file))
            async with PvdServer(DOCUMENT, credentials, behaviour) as server:
                await server.start([(host, 0)])
                base = f"https://{f'[{host}]' if ':' in host else host}:{server.addresses[0][1]}"
                async with httpx.AsyncClient(
                    base_url=base, verify=context, trust_env=False, timeout=TIMEOUT_S
                ) as client:
                    await scenario(server, client)

        asyncio.run(session())

    return run


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_document_is_served(serve: Callable[..., None], host: str) -> None:
    async def scenario(server: PvdServer, client: httpx.AsyncClient) -> None:
        response = await client.get(PATH)
        assert response.status_code == 200
        assert response.headers["content-type"] == MEDIA_TYPE
        assert response.json() == DOCUMENT
        assert server.requests == [PATH]

    serve(scenario, host=host)


def test_document_has_what_rfc_8801_demands() -> None:
    document = pvd_document("p.test", [], **{"proxy-match": []})
    assert document["identifier"] == "p.test"
    assert document["prefixes"] == []
    assert document["expires"].endswith("Z")
    assert document["proxy-match"] == []


def test_other_paths_and_methods(serve: Callable[..., None]) -> None:
    async def scenario(server: PvdServer, client: httpx.AsyncClient) -> None:
        assert (await client.get("/")).status_code == 404
        assert (await client.post(PATH, content=b"x")).status_code == 405
        head = await client.head(PATH)
        assert head.status_code == 200
        assert head.content == b""
        assert (await client.get(PATH)).json() == DOCUMENT  # the connection is still in step

    serve(scenario)


def test_misbehaviour(serve: Callable[..., None]) -> None:
    async def scenario(server: PvdServer, client: httpx.AsyncClient) -> None:
        server.behaviour = PvdBehaviour(status=503, headers=[("retry-after", "7")])
        response = await client.get(PATH)
        assert (response.status_code, response.headers["retry-after"]) == (503, "7")
        server.behaviour = PvdBehaviour(status=301, headers=[("location", "https://elsewhere.test/")])
        assert (await client.get(PATH)).headers["location"] == "https://elsewhere.test/"
        server.behaviour = PvdBehaviour(content_type="text/html", body=b"<html>")
        response = await client.get(PATH)
        assert (response.headers["content-type"], response.content) == ("text/html", b"<html>")
        server.behaviour = PvdBehaviour(content_type=None)
        assert "content-type" not in (await client.get(PATH)).headers
        server.behaviour = PvdBehaviour(hang_up=True)
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await client.get(PATH)

    serve(scenario)


def test_delay_outlasts_the_clients_patience(serve: Callable[..., None]) -> None:
    async def scenario(server: PvdServer, client: httpx.AsyncClient) -> None:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(PATH, timeout=httpx.Timeout(TIMEOUT_S, read=0.2))

    serve(scenario, PvdBehaviour(delay_s=60))


def test_raw_document_bytes(serve: Callable[..., None]) -> None:
    async def scenario(server: PvdServer, client: httpx.AsyncClient) -> None:
        server.document = b"{ not json"
        assert (await client.get(PATH)).content == b"{ not json"

    serve(scenario)


def test_noise_does_not_stop_it(serve: Callable[..., None]) -> None:
    async def scenario(server: PvdServer, client: httpx.AsyncClient) -> None:
        for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100):  # no TLS at all
            reader, writer = await asyncio.open_connection(*server.addresses[0])
            writer.write(noise)
            await reader.read()
            writer.close()
            await writer.wait_closed()
        assert (await client.get(PATH)).status_code == 200

    serve(scenario)


def test_close_cuts_open_connections(authority: CertificateAuthority, credentials: Credentials) -> None:
    async def run() -> None:
        context = ssl.create_default_context(cafile=str(authority.ca_file))
        server = await PvdServer(DOCUMENT, credentials).start([("127.0.0.1", 0)])
        reader, writer = await asyncio.open_connection(*server.addresses[0], ssl=context, server_hostname="localhost")
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 404 \r\n"
        await server.close()
        await server.close()
        await reader.read()  # returns because the server closed
        writer.close()
        await writer.wait_closed()

    asyncio.run(run())


def test_taken_port(credentials: Credentials, tmp_path: Path) -> None:
    async def run() -> None:
        async with PvdServer(DOCUMENT, credentials) as first:
            await first.start([("127.0.0.1", 0)])
            with pytest.raises(OSError):
                await PvdServer(DOCUMENT, credentials).start([("127.0.0.1", 0), first.addresses[0]])

    asyncio.run(run())
