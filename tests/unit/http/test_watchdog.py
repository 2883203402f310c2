"""A connection whose path dies, with real sockets: noticed, said in words, and its flows end with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from masque_client.engine.interface import EngineName, TlsConfiguration
from masque_client.errors import ConnectionLost
from masque_client.http import liveness, watchdog
from masque_client.http.connector import ConnectOptions, HttpVersion, connect
from masque_client.testing.certificates import CertificateAuthority
from masque_client.testing.link import LinkProfile
from masque_client.testing.relay import Relay
from masque_client.testing.tcp_relay import TcpRelay
from tests.unit.http.loops import in_loop
from tests.unit.testing.proxy_client import TIMEOUT_S, bench


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything ten times as fast."""
    monkeypatch.setattr(liveness, "KEEP_ALIVE_S", 1.0)
    monkeypatch.setattr(liveness, "QUIET_S", 0.3)
    monkeypatch.setattr(liveness, "PROBE_INTERVAL_S", 0.05)
    monkeypatch.setattr(watchdog, "PATIENCE_S", 0.5)
    monkeypatch.setattr(watchdog, "TCP_PATIENCE_S", 1.5)


@pytest.mark.parametrize("engine", list(EngineName)[:2])
@in_loop
async def test_a_path_that_dies(engine: EngineName, tmp_path: Path, impatient: None) -> None:
    async with bench(CertificateAuthority.create(tmp_path), engine) as running:
        with Relay(("127.0.0.1", 0), running.proxy.addresses[0]) as relay:
            options = ConnectOptions(engine, TlsConfiguration(ca_file=running.ca_file), http=HttpVersion.HTTP_3)
            connection = await connect(*relay.address, options)
            tunnel = await running.open_udp("127.0.0.1", 9, connection=connection)
            while connection.http.liveness().pings < 2:  # idle, and alive
                assert not await connection.http.wait_closed(0.1)
            relay.set_profile(LinkProfile(loss=1.0))
            tunnel.send(b"into the void")
            assert await connection.http.wait_closed(TIMEOUT_S)
            error = await tunnel.ended()
            assert isinstance(error, ConnectionLost) and "no packet from the proxy for" in str(error)
            assert connection.http.liveness().pings > 5


@in_loop
async def test_a_path_that_dies_under_http2(tmp_path: Path, impatient: None) -> None:
    async with bench(CertificateAuthority.create(tmp_path), h2_listen=[("127.0.0.1", 0)]) as running:
        relay = TcpRelay(running.proxy.addresses[0])
        address = await relay.start(("127.0.0.1", 0))
        try:
            options = ConnectOptions(tls=TlsConfiguration(ca_file=running.ca_file), http=HttpVersion.HTTP_2)
            connection = await connect(*address, options)
            tunnel = await running.open_udp("127.0.0.1", 9, connection=connection)
            while connection.http.liveness().pings < 2:  # idle, and alive
                assert not await connection.http.wait_closed(0.1)
            relay.swallows = True
            tunnel.send(b"into the void")
            assert await connection.http.wait_closed(TIMEOUT_S)
            error = await tunnel.ended()
            assert isinstance(error, ConnectionLost) and "no packet from the proxy for" in str(error)
        finally:
            await relay.close()
