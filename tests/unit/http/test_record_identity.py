"""HTTPS records lead to other names and ports, never to another identity (RFC 9460 §9.1)."""

from __future__ import annotations

from pathlib import Path

import dns.rdata
import pytest

from masque_client.engine.interface import Address, TlsConfiguration
from masque_client.errors import NameResolutionError, TlsError
from masque_client.http.connector import ConnectOptions, HttpVersion, connect
from masque_client.testing.certificates import CertificateAuthority
from tests.unit.http.loops import in_loop
from tests.unit.testing.proxy_client import bench


@pytest.mark.parametrize("http", [HttpVersion.HTTP_3, HttpVersion.HTTP_2])
@in_loop
async def test_the_certificate_is_for_the_origin(http: HttpVersion, tmp_path: Path) -> None:
    async def resolve(name: str, port: int) -> list[Address]:
        if name != "localhost":
            raise NameResolutionError(f"{name} has no address")
        return [("127.0.0.1", port)]

    async with bench(CertificateAuthority.create(tmp_path), h2_listen=[("127.0.0.1", 0)]) as running:
        port = running.proxy.addresses[0][1]

        async def query(name: str) -> list[bytes]:
            assert name == "origin.example"
            record = dns.rdata.from_text("IN", "HTTPS", f'1 localhost. alpn="h3,h2" port={port}')
            return [record.to_wire() or b""]

        tls = TlsConfiguration(ca_file=running.ca_file)
        options = ConnectOptions(tls=tls, http=http, query_https=query, resolve=resolve)
        with pytest.raises(TlsError, match=r"origin\.example"):  # though it is good for localhost
            await connect("origin.example", 443, options)
