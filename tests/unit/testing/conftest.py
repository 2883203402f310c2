"""A proxy for the length of a scenario."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from masque_client.engine.interface import EngineName
from masque_client.testing.certificates import CertificateAuthority
from tests.unit.testing.proxy_client import Run, Scenario, bench


@pytest.fixture
def run(authority: CertificateAuthority) -> Run:
    def run_scenario(scenario: Scenario, *faults: str, engine: EngineName = EngineName.AUTO, **more: Any) -> None:
        async def session() -> None:
            async with bench(authority, engine, *faults, **more) as running:
                await scenario(running)

        asyncio.run(session())

    return run_scenario
