"""What all scenarios share: a result in which nothing has succeeded yet, and a place that is left as it was found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from masque_client.errors import MasqueError
from masque_connect.demo.settings import Settings
from masque_connect.demo.workplace import Workplace
from masque_connect.render import SCHEMA_VERSION, remark

Place = TypeVar("Place", bound=Workplace)


def blank_result(scenario: str, settings: Settings, *parts: str, **more: Any) -> dict[str, Any]:
    """The JSON object of a scenario, to be filled in; `parts` are those that can succeed."""
    return {
        "schema_version": SCHEMA_VERSION,
        "scenario": scenario,
        "ok": False,
        "engine": str(settings.engine),
        **more,
        **{part: {"ok": False} for part in parts},
        "clean": False,
        "leftovers": [],
    }


def stage(place: Place, run: Callable[[Place], None], result: dict[str, Any]) -> None:
    """Call `run` in its place. `result` learns of a failure (`error`), of `leftovers`, and whether all is `clean`."""
    try:
        with place:
            try:
                run(place)
            except (MasqueError, OSError) as error:
                result["error"] = str(error)
                place.show_logs()
                remark(f"failed: {error}")
    finally:
        result["leftovers"] += place.leftovers()
        result["clean"] = not result["leftovers"]
