"""Client×server pairs of engines, for every test that wants them: a plugin of `tests/conftest.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from masque_client.engine import available_engines
from masque_client.engine.interface import EngineConfiguration, EngineName, TlsConfiguration
from masque_client.testing.certificates import CertificateAuthority, Credentials
from tests.sim.link import Conditions, Pair

PROXY = "proxy.example"

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
