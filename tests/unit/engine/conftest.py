"""Client×server pairs of engines for the conformance suite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from masque_client.engine import available_engines
from masque_client.engine.interface import (
    EngineConfiguration,
    EngineName,
    HeadersReceived,
    SettingsReceived,
    TlsConfiguration,
)
from masque_client.testing.certificates import CertificateAuthority, Credentials
from tests.sim.link import Conditions, Pair

PROXY = "proxy.example"
CONNECT_IP = (
    (b":method", b"CONNECT"),
    (b":protocol", b"connect-ip"),
    (b":scheme", b"https"),
    (b":authority", b"proxy.example"),
    (b":path", b"/.well-known/masque/ip/*/*/"),
    (b"capsule-protocol", b"?1"),
)
OK = ((b":status", b"200"), (b"capsule-protocol", b"?1"))

MakePair = Callable[..., Pair]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority.create(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def leaf(authority: CertificateAuthority) -> Credentials:
    return authority.issue([PROXY, "*.wild.example", "198.51.100.2", "2001:db8::2"])


@pytest.fixture(params=list(available_engines()))
def client_engine(request: pytest.FixtureRequest) -> EngineName:
    return EngineName(request.param)


@pytest.fixture(params=list(available_engines()))
def server_engine(request: pytest.FixtureRequest) -> EngineName:
    return EngineName(request.param)


@pytest.fixture
def client_configuration(authority: CertificateAuthority) -> EngineConfiguration:
    return EngineConfiguration(server_name=PROXY, tls=TlsConfiguration(ca_file=authority.ca_file))


@pytest.fixture
def server_configuration(leaf: Credentials) -> EngineConfiguration:
    return EngineConfiguration(is_client=False, tls=TlsConfiguration(certificate=leaf.certificate, key=leaf.key))


@pytest.fixture
def make_pair(
    client_engine: EngineName,
    server_engine: EngineName,
    client_configuration: EngineConfiguration,
    server_configuration: EngineConfiguration,
) -> MakePair:
    """Make a pair; `client=` and `server=` change fields of the configurations, `both=` of both."""

    def make(
        *,
        client: dict[str, Any] | None = None,
        server: dict[str, Any] | None = None,
        both: dict[str, Any] | None = None,
        conditions: Conditions | None = None,
        seed: int = 1,
    ) -> Pair:
        shared = both or {}
        return Pair(
            (client_engine, replace(client_configuration, **shared, **(client or {}))),
            (server_engine, replace(server_configuration, **shared, **(server or {}))),
            conditions,
            seed=seed,
        )

    return make


def settle(pair: Pair) -> Pair:
    """Connect and run until both ends have the other's SETTINGS."""
    pair.connect()
    assert pair.run(lambda: all(end.of_type(SettingsReceived) for end in pair.ends) and len(pair.ends) == 2)
    return pair


def open_tunnel(pair: Pair) -> int:
    """Open a tunnel on a settled pair and return its stream id."""
    stream_id = pair.client.engine.open_request(CONNECT_IP)
    assert pair.run(lambda: any(e.stream_id == stream_id for e in pair.server.of_type(HeadersReceived)))
    pair.server.engine.send_headers(stream_id, OK)
    assert pair.run(lambda: any(e.stream_id == stream_id for e in pair.client.of_type(HeadersReceived)))
    return stream_id
