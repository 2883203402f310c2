"""The test proxy's TLS secrets, for dissectors: of every kind of connection it serves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from masque_client.engine.interface import EngineName, TlsConfiguration
from masque_client.http.connector import ConnectOptions, HttpVersion, connect
from masque_client.testing.certificates import CertificateAuthority
from tests.unit.testing.proxy_client import bench

LABELS = {
    "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
    "SERVER_HANDSHAKE_TRAFFIC_SECRET",
    "CLIENT_TRAFFIC_SECRET_0",
    "SERVER_TRAFFIC_SECRET_0",
}


def labels_of(log: Path) -> list[set[str]]:
    """The labels of each connection, by its client random."""
    connections: dict[str, set[str]] = {}
    for line in log.read_text().splitlines():
        if not line.startswith("#"):
            label, client_random, _ = line.split()
            connections.setdefault(client_random, set()).add(label)
    return list(connections.values())


@pytest.mark.parametrize("engine", [EngineName.AIOQUIC, EngineName.QH3])
def test_secrets_of_every_connection_are_appended(tmp_path: Path, engine: EngineName) -> None:
    log = tmp_path / "secrets"
    authority = CertificateAuthority.create(tmp_path)

    async def session() -> None:
        async with bench(authority, engine, secrets_log=log, h2_listen=[("127.0.0.1", 0)]) as running:
            host, port = running.proxy.addresses[0]
            await running.connect()
            for http in (HttpVersion.HTTP_3, HttpVersion.HTTP_2):
                options = ConnectOptions(http=http, tls=TlsConfiguration(ca_file=authority.ca_file))
                running.connections.append(await connect(host, port, options))

    asyncio.run(session())
    connections = labels_of(log)
    assert len(connections) == 3
    assert all(labels >= LABELS for labels in connections)
