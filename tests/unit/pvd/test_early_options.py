"""Fetching through a chosen interface: as any other fetch, but for the way the packets go."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest

from masque_client.engine.interface import TlsConfiguration
from masque_client.errors import ConnectError, MasqueError, TlsError
from masque_client.pvd import https
from masque_client.pvd.https import HttpsResponse
from masque_client.testing.certificates import CertificateAuthority
from tests.unit.pvd.https_host import HttpsHost, Respond, response

HOST = "proxy.example.net"
GOOD = response(b"{}")


@dataclass
class Fetcher:
    """One GET through the loopback interface, and what the host saw of it."""

    authority: CertificateAuthority
    name: str = HOST
    cleartext: bool = False

    def __call__(self, answer: bytes | Respond, interface: str = "lo") -> HttpsResponse:
        self.host = HttpsHost([answer])
        return asyncio.run(self._get(interface))

    async def _get(self, interface: str) -> HttpsResponse:
        context = https.client_ssl_context(TlsConfiguration(ca_file=self.authority.ca_file))
        async with self.host.serving(None if self.cleartext else self.authority.issue([self.name])):
            return await https.https_get(
                f"https://{HOST}/pvd", "text/plain", context, self.host.resolve, interface=interface
            )


@pytest.fixture
def fetch(tmp_path: Path) -> Fetcher:
    return Fetcher(CertificateAuthority.create(tmp_path))


def test_it_fetches_what_others_do(fetch: Fetcher) -> None:
    found = fetch(response(b"x" * 100_000))
    assert (found.status, found.content) == (200, b"x" * 100_000)
    assert fetch.host.requests[0].startswith("GET /pvd HTTP/1.1")


def test_a_certificate_for_another_name(fetch: Fetcher) -> None:
    fetch.name = "wrong.example.net"
    with pytest.raises(TlsError, match="another name"):
        fetch(GOOD)


def test_a_server_without_tls(fetch: Fetcher) -> None:
    fetch.cleartext = True
    with pytest.raises(TlsError, match="no TLS connection"):
        fetch(GOOD)


def test_a_handshake_that_stalls(fetch: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "CONNECT_TIMEOUT_S", 0.1)

    async def stall(writer: asyncio.StreamWriter) -> None:
        await writer.wait_closed()

    fetch.cleartext = True
    with pytest.raises(ConnectError, match=r"does not answer within 0\.1 s"):
        fetch(stall)


def test_a_host_that_hangs_up(fetch: Fetcher) -> None:
    with pytest.raises(MasqueError, match="proper HTTP"):
        fetch(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")


def test_the_interface_counts_before_the_first_packet(authority: CertificateAuthority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)

        async def resolve(host: str, port: int) -> list[tuple[str, int]]:
            return [("127.0.0.1", listener.getsockname()[1])]

        context = https.client_ssl_context(TlsConfiguration(ca_file=authority.ca_file))
        with pytest.raises(ConnectError, match="cannot be reached: No such device"):
            asyncio.run(https.https_get(f"https://{HOST}/", "*/*", context, resolve, interface="nosuchdev0"))
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority.create(tmp_path_factory.mktemp("ca"))
