"""What every scenario in a world shares: make it, run in it, show the logs of a failure, say what was left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from masque_client.errors import MasqueError
from masque_client.testing.netns import Snapshot
from masque_connect.demo.interrupts import Interrupts
from masque_connect.demo.world import World
from masque_connect.render import remark


def stage(
    run: Callable[[World], None], result: dict[str, Any], interrupts: Interrupts, *, through_relay: bool = False
) -> None:
    """Call `run` in a world of its own; adds to `leftovers` of `result`, and sets `error` when it failed."""
    before = Snapshot.take()
    world = World(interrupts, through_relay=through_relay)
    try:
        with world:
            try:
                run(world)
            except (MasqueError, OSError) as error:
                result["error"] = str(error)
                _show_logs(world)
                remark(f"failed: {error}")
    finally:
        result["leftovers"] += before.difference(Snapshot.take()) + world.namespaces_left()


def _show_logs(world: World) -> None:
    for name, lines in world.tails():
        remark(f"--- last lines of {name}")
        for line in lines or ["(silent)"]:
            remark(f"    {line}")
