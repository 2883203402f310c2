"""Which cells there are, and how one is run and judged."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from masque_client.testing import netns
from tests.interop.checks import CHECKS, FAILURES
from tests.interop.model import Cell, Deviation, Feature, Protocol, Role, Status
from tests.interop.peer import Peer
from tests.interop.peers import all_peers
from tests.interop.programs import BuildFailed, Unavailable
from tests.interop.scene import Scene
from tests.interop.stage import Scenario, Stage

ENGINES = ("aioquic", "qh3")
CELL_TIMEOUT_S = 120.0
"""Past this the processes of a cell are killed: somebody hangs, or trickles."""
QUICK = (Feature.HANDSHAKE, Feature.ECHO, Feature.IPV6, Feature.NOT_FOUND)
_NOT_ASKED_OF_CLIENTS = {Feature.RESTART: "whether and when it reconnects is a foreign client's own affair"}


def scenarios(peers: Sequence[str] = (), engines: Sequence[str] = ENGINES) -> list[Scenario]:
    """All of them, or those of the peers named. Unknown names are a `ValueError`."""
    known = {peer.name: peer for peer in all_peers()}
    if unknown := [name for name in peers if name not in known]:
        raise ValueError(f"no peer {unknown[0]!r}; there are {', '.join(known)}")
    return [
        Scenario(peer, role, protocol, engine)
        for name, peer in known.items()
        if not peers or name in peers
        for role, protocols in ((Role.PROXY, peer.proxies), (Role.CLIENT, peer.clients))
        for protocol in Protocol
        if protocol in protocols
        for engine in engines
    ]


def run(scenario: Scenario, features: Iterable[Feature] = Feature) -> Iterator[Cell]:
    """Run one scenario in a scene of its own, cell by cell."""
    if reason := unavailable(scenario):
        for feature in features:
            yield skipped(scenario, feature, reason)
        return
    try:
        scenario.peer.build()
    except Unavailable as error:
        for feature in features:
            yield skipped(scenario, feature, str(error))
        return
    except BuildFailed as error:
        for feature in features:
            yield replace(skipped(scenario, feature, str(error)), status=Status.FAIL)
        return
    with Scene() as scene:
        stage = Stage(scene, scenario)
        for feature in features:
            yield run_cell(stage, feature)


def run_cell(stage: Stage, feature: Feature) -> Cell:
    """Ask one question and judge the answer by what is known of the peer."""
    scenario = stage.scenario
    if reason := lack(scenario, feature):
        return skipped(scenario, feature, reason)
    started, processes = time.monotonic(), stage.scene.started
    watchdog = threading.Timer(CELL_TIMEOUT_S, stage.kill)
    watchdog.start()
    try:
        status, detail = Status.OK, CHECKS[feature](stage)
    except FAILURES as error:
        status, detail = Status.FAIL, f"{type(error).__name__}: {error}"
    finally:
        watchdog.cancel()
    status, detail = judge(status, detail, known_deviation(scenario, feature))
    seconds = round(time.monotonic() - started, 2)
    log = stage.scene.tails(processes) if status is Status.FAIL else ()
    return replace(skipped(scenario, feature, detail), status=status, seconds=seconds, log=log)


def judge(status: Status, detail: str, known: Deviation | None) -> tuple[Status, str]:
    """A failure that a known deviation explains is one; a deviation that is gone must be noticed."""
    if known is None:
        return status, detail
    if status is Status.OK:
        return Status.FAIL, f"passes although it is listed as a deviation ({known.fault}): strike it out"
    if known.symptom in detail:
        return Status.DEVIATION, f"{known.fault} ({known.clause})"
    return status, detail


def known_deviation(scenario: Scenario, feature: Feature) -> Deviation | None:
    """What is known of the peer in this cell."""
    cell = (scenario.role, scenario.protocol, feature)
    return next(
        (
            deviation
            for deviation in scenario.peer.deviations
            if (deviation.role, deviation.protocol, deviation.feature) == cell
            and deviation.engine in (None, scenario.engine)
        ),
        None,
    )


def lack(scenario: Scenario, feature: Feature) -> str | None:
    """Why a cell is not asked of this peer at all."""
    if feature is not Feature.HANDSHAKE and known_deviation(scenario, Feature.HANDSHAKE):
        return "no handshake, as is known"
    reason = scenario.peer.lacks.get((scenario.role, scenario.protocol, feature))
    return reason or (_NOT_ASKED_OF_CLIENTS.get(feature) if scenario.role is Role.CLIENT else None)


def unavailable(scenario: Scenario) -> str | None:
    """Why nothing of a scenario can run on this machine."""
    if scenario.engine == "qh3" and importlib.util.find_spec("qh3") is None:
        return "NEEDS the fast engine: pip install '.[fast]'"
    if reason := netns.unavailable_reason():
        return f"NEEDS network namespaces: {reason}"
    return None


def skipped(scenario: Scenario, feature: Feature, reason: str) -> Cell:
    """A cell that was not asked."""
    return Cell(scenario.peer.name, scenario.role, scenario.protocol, scenario.engine, feature, Status.SKIPPED, reason)


def deviations(peers: Iterable[Peer]) -> list[tuple[Peer, Deviation]]:
    """The one table of everything that is known to be wrong, and whose fault it is."""
    return [(peer, deviation) for peer in peers for deviation in peer.deviations]
