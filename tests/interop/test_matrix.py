"""Every cell of the matrix as a test. With `--interop`; one scenario: `-k masque-go-proxy-connect-udp-qh3`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop.matrix import run_cell, scenarios, unavailable
from tests.interop.model import Feature, Status
from tests.interop.programs import BuildFailed, Unavailable
from tests.interop.scene import Scene
from tests.interop.stage import Scenario, Stage

pytestmark = [pytest.mark.interop, pytest.mark.netns]


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    scenario: Scenario = request.param
    if reason := unavailable(scenario):
        pytest.skip(reason)
    try:
        scenario.peer.build()
    except Unavailable as error:
        pytest.skip(str(error))
    except BuildFailed as error:
        pytest.fail(str(error), pytrace=False)
    with Scene() as scene:
        yield Stage(scene, scenario)


@pytest.mark.parametrize("feature", list(Feature))
@pytest.mark.parametrize("stage", scenarios(), indirect=True, ids=str, scope="module")
def test_cell(stage: Stage, feature: Feature) -> None:
    cell = run_cell(stage, feature)
    if cell.status is Status.SKIPPED:
        pytest.skip(cell.detail)
    if cell.status is Status.FAIL:
        pytest.fail("\n".join([cell.detail, *cell.log]), pytrace=False)
