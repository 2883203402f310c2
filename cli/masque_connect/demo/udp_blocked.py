"""The network blocks UDP: both kinds of tunnel must work all the same, over HTTP/2, within three seconds.

    1. a tunnel over HTTP/3, for comparison
    2. the router drops UDP to the proxy, in silence: the worst way, because nothing tells the client
    3. `udp` and `up` are started; the clock runs until a DNS answer, until a ping, came back through them
    4. transfers over HTTP/2, to compare with 1
    5. the drop ends while a TCP flow is open inside the tunnel: HTTP/3 takes over, and the flow goes on

The drop is a routing rule of the router (`ip rule … ipproto udp … blackhole`), which needs no firewall tools.
"""

from __future__ import annotations

import time
from typing import Any

from masque_client.testing.dns import query
from masque_client.testing.ping import ping
from masque_client.testing.transfer import SlowUpload, download, upload
from masque_connect.demo import world as w
from masque_connect.demo.actors import MASQUE_CONNECT, READY_TIMEOUT_S, Actor, StepFailed
from masque_connect.demo.first_tunnel import LOCAL_DNS
from masque_connect.demo.interrupts import Interrupts
from masque_connect.demo.servers import start_origin, start_proxy
from masque_connect.demo.settings import MIB, Settings
from masque_connect.demo.staging import blank_result, stage
from masque_connect.render import remark

MAX_SECONDS_TO_DATA = 3.0
"""From the start of a command to the first data that came back through its tunnel."""
DEFAULT_MIB = 32
FLOW_BYTES = 4 * MIB
RETURN_TIMEOUT_S = 60.0
"""HTTP/3 is tried again 10, 20 and 40 seconds after a tunnel had to take HTTP/2."""
_UDP_TO_PROXY = ("ipproto", "udp", "dport", "443", "blackhole")


def run_udp_blocked(settings: Settings, interrupts: Interrupts) -> dict[str, Any]:
    """Run the scenario; returns its JSON object. On failure the last log lines of all processes are shown."""
    parts = ("http3", "connect_udp", "connect_ip", "return_to_http3")
    result = blank_result("udp-blocked", settings, *parts)
    world = w.World(interrupts, through_relay=False)
    stage(world, lambda world: _Scenario(world, settings, result).run(), result)
    result["ok"] = all(result[part]["ok"] for part in parts)
    return result


class _Scenario:
    def __init__(self, world: w.World, settings: Settings, result: dict[str, Any]) -> None:
        self.world = world
        self.settings = settings
        self.result = result
        self.size = MIB * (settings.size_mib or DEFAULT_MIB)
        self.options = ("--ca", str(world.ca_file), "--engine", str(settings.engine), "--json")

    def run(self) -> None:
        """All steps in order; each fills in its part of the result."""
        start_origin(self.world)
        self.result["engine"] = start_proxy(self.world, self.settings.engine)
        self._compare_with_http3()
        self.world.router.ip("rule", "add", *_UDP_TO_PROXY)
        remark("the router drops UDP to the proxy")
        self._connect_udp()
        self._connect_ip()
        self.result["leftovers"] += self.world.stop_all()

    def _compare_with_http3(self) -> None:
        # HTTP/3 alone: where a busy machine is late, HTTP/2 would come first, and there was nothing to compare with.
        up, tunnel, seconds = self._up("up-http3", "--http", "3")
        rates = self._transfers("HTTP/3")
        self.world.stop(up)
        self.result["http3"] = {"ok": tunnel["http_version"] == 3, "seconds_to_data": seconds, **rates}

    def _connect_udp(self) -> None:
        forward = f"{LOCAL_DNS[0]}:{LOCAL_DNS[1]}={w.SERVICE_4}:53"
        started = time.monotonic()
        udp = self._start("udp", "udp", forward, "--proxy", w.PROXY_NAME)
        status = udp.next_line()
        with self.world.client.entered():
            answer = query(LOCAL_DNS, w.SERVICE_NAME, "A", timeout_s=READY_TIMEOUT_S)
        seconds = round(time.monotonic() - started, 3)
        self.world.stop(udp)
        if w.SERVICE_4 not in answer.values:
            raise StepFailed(f"{w.SERVICE_NAME} gave {answer.values} instead of {w.SERVICE_4}")
        self.result["connect_udp"] = self._verdict(status, seconds)

    def _connect_ip(self) -> None:
        up, status, seconds = self._up("up")
        rates = self._transfers("HTTP/2")
        self._return_to_http3(up)
        self.world.stop(up)
        self.result["connect_ip"] = {**self._verdict(status, seconds), "mtu": status["mtu"]["tunnel"], **rates}

    def _return_to_http3(self, up: Actor) -> None:
        """One TCP flow, begun over HTTP/2, must end over HTTP/3 with every byte."""
        with self.world.client.entered(), SlowUpload((w.SERVICE_4, 8080), FLOW_BYTES) as flow:
            flow.send(FLOW_BYTES // 2)
            self.world.router.ip("rule", "delete", *_UDP_TO_PROXY)
            remark("the router lets UDP through again")
            started = time.monotonic()
            status = up.next_line(timeout_s=RETURN_TIMEOUT_S)
            while status["http_version"] != 3:
                status = up.next_line(timeout_s=RETURN_TIMEOUT_S)
            seconds = round(time.monotonic() - started, 1)
            flow.send(FLOW_BYTES - FLOW_BYTES // 2)
            is_whole = flow.finish()
        remark(f"HTTP/3 took over {seconds} s later; the TCP flow inside {'went on' if is_whole else 'BROKE'}")
        self.result["return_to_http3"] = {
            "ok": is_whole and status["fallback_reason"] is None,
            "seconds": seconds,
            "flow_bytes": FLOW_BYTES,
            "flow_survived": is_whole,
        }

    def _verdict(self, status: dict[str, Any], seconds: float) -> dict[str, Any]:
        version, reason = status["http_version"], status["fallback_reason"]
        remark(f"data after {seconds} s over HTTP/{version} ({reason})")
        return {
            "ok": version == 2 and reason == "QUIC blocked" and seconds <= MAX_SECONDS_TO_DATA,
            "seconds_to_data": seconds,
            "http_version": version,
            "fallback_reason": reason,
        }

    def _up(self, name: str, *options: str) -> tuple[Actor, dict[str, Any], float]:
        """Start `up`; returns it, its status, and the seconds until a ping had come back through it."""
        started = time.monotonic()
        up = self._start(name, "up", w.PROXY_NAME, "--foreground", *options)
        status = up.next_line()
        with self.world.client.entered():
            while not ping(w.SERVICE_4, count=1).received:
                if time.monotonic() - started > READY_TIMEOUT_S:
                    raise StepFailed(f"no ping to {w.SERVICE_4} came back through the tunnel")
        return up, status, round(time.monotonic() - started, 3)

    def _transfers(self, label: str) -> dict[str, Any]:
        url = w.service_urls()[0]
        with self.world.client.entered():
            down, up = download(url, self.size), upload(url, self.size)
        if not (down.sha256_ok and up.sha256_ok):
            raise StepFailed(f"a transfer over {label} was damaged")
        remark(f"{label}: {self.size // MIB} MiB down at {down.mbit_s:.0f}, up at {up.mbit_s:.0f} Mbit/s")
        return {
            "bytes": self.size,
            "download_mbit_s": round(down.mbit_s, 1),
            "upload_mbit_s": round(up.mbit_s, 1),
        }

    def _start(self, name: str, *arguments: str) -> Actor:
        return self.world.start(name, self.world.client, *MASQUE_CONNECT, *arguments, *self.options)
