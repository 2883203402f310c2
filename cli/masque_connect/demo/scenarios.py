"""The scenarios of `demo`, by name. Their modules are imported when one is chosen: the test kit is heavy."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from masque_connect.demo.interrupts import Interrupts


class Run(Protocol):
    """Runs a scenario to its end and returns its JSON object, in which `ok` and `clean` decide the exit status."""

    def __call__(self, settings: Any, interrupts: Interrupts) -> dict[str, Any]:
        """Raises KeyboardInterrupt, everything taken down, when interrupted."""
        ...


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing to see.

    Attributes:
        purpose: a few words for --help.
        privileged: `module:function` under `masque_connect.demo`, run as root.
        unprivileged: the same for everybody else; None where nothing can be shown without privilege.
    """

    purpose: str
    privileged: str
    unprivileged: str | None = None

    def load(self, *, is_privileged: bool) -> Run | None:
        """The function to call; None when this scenario needs a privilege that is missing."""
        place = self.privileged if is_privileged else self.unprivileged
        if place is None:
            return None
        module, _, function = place.partition(":")
        run: Run = getattr(import_module(f"masque_connect.demo.{module}"), function)
        return run


FIRST_TUNNEL = "first-tunnel"
SCENARIOS: dict[str, Scenario] = {
    FIRST_TUNNEL: Scenario(
        "discovery, CONNECT-UDP and CONNECT-IP with real traffic",
        "first_tunnel:run_first_tunnel",
        "loopback:run_loopback",
    ),
    "udp-blocked": Scenario("tunnels where the network drops UDP: over HTTP/2", "udp_blocked:run_udp_blocked"),
    "mtu": Scenario("paths of 1500, 1400 and 1340 bytes, and two that shrink in mid-transfer", "mtu:run_mtu"),
    "discovery": Scenario(
        "one host name, three proxies: rules, failover, renewal, refusal of bad documents; on loopback",
        "discovery:run_discovery",
        "discovery:run_discovery",
    ),
}
