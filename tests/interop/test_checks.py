"""The checks see what is wrong: our own test proxy plays the peer, with faults, each of which must fail its cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import pytest

from masque_client.testing.netns import unavailable_reason
from masque_connect.demo.actors import PYTHON
from tests.interop import stage as stages
from tests.interop.matrix import run_cell
from tests.interop.model import Feature, Protocol, Role, Status
from tests.interop.peer import Launch, Peer, ProxyTask
from tests.interop.scene import PROXY_NAME, Scene
from tests.interop.stage import Scenario, Stage

pytestmark = [pytest.mark.interop, pytest.mark.netns]


class Ourselves(Peer):
    """Our test proxy in the part of a foreign one."""

    name, version, stack = "ourselves", "0", "Python"
    proxies: ClassVar = frozenset(Protocol)

    def __init__(self, *faults: str) -> None:
        self.faults = faults

    def build(self) -> None:
        pass

    def proxy(self, task: ProxyTask) -> Launch:
        return Launch(
            (
                *(*PYTHON, "masque_client.testing.proxy", "--listen", task.listen, "--name", PROXY_NAME),
                *("--pvd-listen", "none", "--no-http2", "--engine", "aioquic"),
                *("--certificate", str(task.certificate), "--key", str(task.key)),
                *("--pool4", task.pools[0], "--pool6", task.pools[1]),
                *(part for route in task.routes for part in ("--route", route)),
                *(part for fault in self.faults for part in ("--misbehave", fault)),
                *(("--auth", f"basic:{task.basic}") if task.basic else ()),
            )
        )


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    if reason := unavailable_reason():
        pytest.skip(reason)
    with Scene() as scene:
        yield scene


@pytest.mark.parametrize("protocol", list(Protocol))
def test_without_faults_everything_passes(scene: Scene, protocol: Protocol) -> None:
    stage = Stage(scene, Scenario(Ourselves(), Role.PROXY, protocol, "aioquic"))
    cells = [run_cell(stage, feature) for feature in Feature if feature is not Feature.RESTART]
    stage.close_proxy()
    assert [cell for cell in cells if cell.status is not Status.OK] == []


@pytest.mark.parametrize(
    ("fault", "protocol", "feature", "symptom"),
    [
        ("never-assign", Protocol.IP, Feature.HANDSHAKE, "exit status"),
        ("drop-datagrams", Protocol.IP, Feature.ECHO, "0 of 10 pings answered"),
        ("drop-datagrams", Protocol.UDP, Feature.ECHO, "no answer"),
        ("max-payload=1100", Protocol.UDP, Feature.MTU, "no answer to 1200 bytes"),
        ("refuse=500", Protocol.IP, Feature.AUTH, "exit code 8 instead of 5"),
        ("refuse=403", Protocol.IP, Feature.NOT_FOUND, "404 is not named"),
    ],
)
def test_a_fault_fails_its_cell(scene: Scene, fault: str, protocol: Protocol, feature: Feature, symptom: str) -> None:
    stage = Stage(scene, Scenario(Ourselves(fault), Role.PROXY, protocol, "aioquic"))
    cell = run_cell(stage, feature)
    stage.close_proxy()
    assert cell.status is Status.FAIL
    assert symptom in cell.detail


def test_a_proxy_that_lets_everybody_in_fails(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "END_TIMEOUT_S", 5.0)

    class OpenDoor(Ourselves):
        def proxy(self, task: ProxyTask) -> Launch:
            return super().proxy(replace(task, basic=None))

    stage = Stage(scene, Scenario(OpenDoor(), Role.PROXY, Protocol.UDP, "aioquic"))
    cell = run_cell(stage, Feature.AUTH)
    stage.close_proxy()
    assert (cell.status, "although the proxy refused" in cell.detail) == (Status.FAIL, True)
    assert any(line.startswith("refused: ") for line in cell.log)
