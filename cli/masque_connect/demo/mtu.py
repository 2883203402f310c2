"""Paths that carry less than an Ethernet: tunnels over them, and one that shrinks under a transfer.

    1500, 1400, 1340      the link between router and proxy has this MTU; both its ends know, the client hears by ICMP
    drop                  1500 becomes 1400 while an upload runs; again ICMP tells
    silent-drop           likewise, but on the relay's path larger packets vanish without a word: a black hole

Through each, 10 MiB go up and down, and the MTU of tunnel and path is what the client says of itself at the end.
Only HTTP/3 cares for the path MTU, so the client uses nothing else. First all that ICMP tells, in one world; then the
black hole, in another one whose paths lead through the relay.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from masque_client.protocol.mtu import inner_max, udp_payload_for_link
from masque_client.testing.ping import ping
from masque_client.testing.transfer import TransferResult, download, upload
from masque_connect.demo import world as w
from masque_connect.demo.actors import MASQUE_CONNECT, READY_TIMEOUT_S, Actor, StepFailed
from masque_connect.demo.interrupts import Interrupts
from masque_connect.demo.servers import start_origin, start_proxy, start_relay
from masque_connect.demo.settings import MIB, Settings
from masque_connect.demo.staging import blank_result, stage
from masque_connect.render import remark

DEFAULT_MIB = 10
FULL, NARROW, NARROWEST = 1500, 1400, 1340
"""Path MTUs. 1340 is the smallest that carries IPv6 inside."""
DROP_AFTER = 0.2
"""The path shrinks when this part of the upload has been handed to the kernel."""
NEWS_TIMEOUT_S = 30.0
"""How long the client may take to say that the path has changed; it takes one second or two."""
SILENCE_TIMEOUT_S = 90.0
"""Of a transfer whose path has shrunk in silence: TCP waits twice as long before each repetition, up to that moment."""


def run_mtu(settings: Settings, interrupts: Interrupts) -> dict[str, Any]:
    """Run the scenario; returns its JSON object. On failure the last log lines of all processes are shown."""
    names = (*map(str, _STEADY), "drop", "silent-drop")
    result = blank_result("mtu", settings, cases={name: {"ok": False} for name in names})
    for through_relay in (False, True):
        if "error" not in result:
            world = w.World(interrupts, through_relay=through_relay)
            stage(world, lambda world: _Scenario(world, settings, result).run(), result)
    result["ok"] = all(case["ok"] for case in result["cases"].values())
    return result


_STEADY = (FULL, NARROW, NARROWEST)


@dataclass(frozen=True, slots=True)
class _Case:
    """What to do when part of the upload is under way, and the path MTU at the end."""

    name: str
    path: int
    drop: Callable[[], Any] | None = None
    is_told: bool = True
    """By ICMP."""


class _Scenario:
    def __init__(self, world: w.World, settings: Settings, result: dict[str, Any]) -> None:
        self.world = world
        self.settings = settings
        self.result = result
        self.size = MIB * (settings.size_mib or DEFAULT_MIB)

    def run(self) -> None:
        """All cases of this world; each fills in its part of the result."""
        start_origin(self.world)
        self.result["engine"] = start_proxy(self.world, self.settings.engine)
        if self.world.through_relay:
            relay, limit = start_relay(self.world, "--control", takes_orders=True), udp_payload_for_link(NARROW, 4)
            self._run_case(_Case("silent-drop", NARROW, lambda: relay.order({"mtu": limit}), is_told=False))
        else:
            for mtu in _STEADY:
                self._set_path(mtu)
                self._run_case(_Case(str(mtu), mtu))
            self._set_path(FULL)
            self._run_case(_Case("drop", NARROW, lambda: self._set_link(NARROW)))
        self.result["leftovers"] += self.world.stop_all()

    # --- the path ---------------------------------------------------------------------------------------------------

    def _set_path(self, mtu: int) -> None:
        """A path of this MTU that nobody has heard of yet."""
        self._set_link(mtu)
        for namespace in (self.world.client, self.world.router, self.world.proxy, self.world.target):
            namespace.ip("route", "flush", "cache")

    def _set_link(self, mtu: int) -> None:
        for namespace, peer in ((self.world.router, w.PROXY_ADDRESS), (self.world.proxy, "10.70.2.1")):
            namespace.ip("link", "set", namespace.route_to(peer)["dev"], "mtu", str(mtu))

    # --- a case -----------------------------------------------------------------------------------------------------

    def _run_case(self, case: _Case) -> None:
        up, status = self._up(case.name)
        url = w.service_urls()[0]
        with self.world.client.entered():
            sent = upload(url, self.size, timeout_s=SILENCE_TIMEOUT_S, report_progress=self._dropping(case))
            received = download(url, self.size, timeout_s=SILENCE_TIMEOUT_S)
        if not (sent.sha256_ok and received.sha256_ok):
            raise StepFailed(f"a transfer of the case {case.name} was damaged")
        status = self._await_news(case, up, status)
        self.world.stop(up)
        self.result["cases"][case.name] = report = self._report(case, status, sent, received)
        remark(
            f"{case.name}: path {report['mtu']['path']}, tunnel {report['mtu']['tunnel']}, "
            f"up at {sent.mbit_s:.0f}, down at {received.mbit_s:.0f} Mbit/s"
        )

    def _await_news(self, case: _Case, up: Actor, status: dict[str, Any]) -> dict[str, Any]:
        """The client's status when it knows the path; where nothing but probes can tell, when it knows it about.

        A probe that is answered late, on a busy machine, counts as lost, and costs each packet some bytes.
        """
        deadline = time.monotonic() + NEWS_TIMEOUT_S
        while status["mtu"]["path"] != case.path:
            try:
                status = up.next_line(max(0.1, deadline - time.monotonic()))
            except StepFailed:
                if case.is_told or not NARROWEST <= status["mtu"]["path"] < case.path:
                    raise
                break
        return status

    def _report(
        self, case: _Case, status: dict[str, Any], sent: TransferResult, received: TransferResult
    ) -> dict[str, Any]:
        tunnel, seconds = status["mtu"]["tunnel"], sent.seconds + received.seconds
        return {
            "ok": tunnel == inner_max(udp_payload_for_link(status["mtu"]["path"], 4)) and status["http_version"] == 3,
            "mtu": {"tunnel": tunnel, "path": status["mtu"]["path"]},
            "bytes": sent.bytes + received.bytes,
            "seconds": round(seconds, 3),
            "mbit_s": round((sent.bytes + received.bytes) * 8e-6 / seconds, 1),
            "upload_mbit_s": round(sent.mbit_s, 1),
            "download_mbit_s": round(received.mbit_s, 1),
        }

    def _dropping(self, case: _Case) -> Callable[[int], None] | None:
        """Lets the path shrink in mid-upload, once."""
        if (drop := case.drop) is None:
            return None
        is_due = True

        def report_progress(done: int) -> None:
            nonlocal is_due
            if is_due and done >= DROP_AFTER * self.size:
                is_due = False
                drop()
                remark(f"{case.name}: the path has shrunk after {done // MIB} MiB")

        return report_progress

    def _up(self, name: str) -> tuple[Actor, dict[str, Any]]:
        """Start `up` and wait until a ping has come back; returns it and its status."""
        options = ("--ca", str(self.world.ca_file), "--engine", str(self.settings.engine))
        command = (*MASQUE_CONNECT, "up", w.PROXY_NAME, "--foreground", "--http", "3", "--json", *options)
        up = self.world.start(f"up-{name}", self.world.client, *command)
        status = up.next_line()
        deadline = time.monotonic() + READY_TIMEOUT_S
        with self.world.client.entered():
            while not ping(w.SERVICE_4, count=1).received:
                if time.monotonic() > deadline:
                    raise StepFailed(f"no ping to {w.SERVICE_4} came back through the tunnel")
        return up, status
