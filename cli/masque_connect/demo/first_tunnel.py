"""The main job, end to end: discovery → DNS through CONNECT-UDP → ping and transfers through CONNECT-IP → clean-up.

Every step uses the public command line in the client's namespace; traffic is made by this process, moved into that
namespace, so that what is measured is what any program there would get.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from masque_client.errors import MasqueError
from masque_client.testing.dns import Answer, query
from masque_client.testing.ping import ping
from masque_client.testing.transfer import TransferResult, download, upload
from masque_connect.demo import world as w
from masque_connect.demo.actors import MASQUE_CONNECT, Actor, StepFailed
from masque_connect.demo.interrupts import Interrupts
from masque_connect.demo.servers import start_origin, start_proxy, start_relay
from masque_connect.demo.settings import MIB, Settings
from masque_connect.demo.staging import blank_result, stage
from masque_connect.exit_codes import ExitCode
from masque_connect.render import remark, remarks

PINGS = 20
DNS_TRIES = 5
INTERRUPTED = int(ExitCode.INTERRUPTED)
LOCAL_DNS = ("127.0.0.1", 5353)


def run_first_tunnel(settings: Settings, interrupts: Interrupts) -> dict[str, Any]:
    """Run the scenario; returns its JSON object. On failure the logs of all processes are shown."""
    parts = ("discovery", "connect_udp", "connect_ip", "ipv6")
    result = blank_result("first-tunnel", settings, *parts, loss_percent=settings.loss, delay_ms=settings.delay_ms)
    world = w.World(interrupts, through_relay=settings.through_relay)
    stage(world, lambda world: _Scenario(world, settings, result).run(), result)
    result["ok"] = all(result[part]["ok"] for part in parts)
    return result


class _Scenario:
    def __init__(self, world: w.World, settings: Settings, result: dict[str, Any]) -> None:
        self.world = world
        self.settings = settings
        self.result = result
        self.ca = str(world.ca_file)

    def run(self) -> None:
        """All steps in order; each fills in its part of the result."""
        self._start_servers()
        self._measure_bare_path()
        self._discover()
        self._connect_udp()
        self._connect_ip()
        self.result["leftovers"] += self.world.stop_all()

    # --- the servers ------------------------------------------------------------------------------------------------

    def _start_servers(self) -> None:
        start_origin(self.world)
        self.result["engine"] = start_proxy(self.world, self.settings.engine, ipv6=True)
        if self.world.through_relay:
            loss, delay, seed = self.settings.loss, self.settings.delay_ms, self.settings.seed
            start_relay(self.world, "--loss", str(loss), "--delay", str(delay), "--seed", str(seed))
        remark(f"client ─ router ─ proxy ─ target are up; engine {self.result['engine']}")

    def _measure_bare_path(self) -> None:
        if self.world.through_relay:
            return  # the relay carries only the proxy's port: there is no bare path to compare with
        url = w.service_urls()[2]
        down = self._transfer("bare path, download", download, url, self.settings.big_bytes)
        up = self._transfer("bare path, upload", upload, url, self.settings.big_bytes)
        self.result["bare_path"] = {"download_mbit_s": round(down.mbit_s, 1), "upload_mbit_s": round(up.mbit_s, 1)}

    # --- discovery --------------------------------------------------------------------------------------------------

    def _discover(self) -> None:
        started = time.monotonic()
        answer = self._masque_connect("discover", "discover", w.PROXY_NAME, "--json", "--ca", self.ca).next_document()
        protocols = sorted({proxy["protocol"] for proxy in answer.get("proxies", [])})
        self.result["discovery"] = {
            "ok": protocols == ["connect-ip", "connect-udp"],
            "ms": round((time.monotonic() - started) * 1000),
            "protocols": protocols,
        }
        remark(f"discovered at {w.PROXY_NAME}: {', '.join(protocols)}")

    # --- CONNECT-UDP ------------------------------------------------------------------------------------------------

    def _connect_udp(self) -> None:
        forward = f"{LOCAL_DNS[0]}:{LOCAL_DNS[1]}={w.SERVICE_4}:53"
        udp = self._masque_connect("udp", "udp", forward, "--proxy", w.PROXY_NAME, "--json", *self._options)
        udp.next_line()
        rtts = []
        with self.world.client.entered():
            for record_type, wanted in (("A", w.SERVICE_4), ("AAAA", w.SERVICE_6), ("A", w.SERVICE_4)):
                answer = self._ask(record_type)
                if wanted not in answer.values:
                    raise StepFailed(f"{w.SERVICE_NAME} {record_type} gave {answer.values} instead of {wanted}")
                rtts.append(round(answer.rtt_s * 1000, 3))
        status = self.world.stop(udp)
        if status != INTERRUPTED:
            raise StepFailed(f"`udp` ended with exit status {status} instead of {INTERRUPTED} (interrupted)")
        self.result["connect_udp"] = {"ok": True, "rtt_ms": min(rtts), "first_rtt_ms": rtts[0]}
        remark(
            f"DNS through CONNECT-UDP: {len(rtts)} answers about {w.SERVICE_NAME}, the fastest in {min(rtts):.1f} ms"
        )

    def _ask(self, record_type: str) -> Answer:
        """Ask with the retries that DNS over a lossy path needs."""
        failure: MasqueError | None = None
        for _ in range(DNS_TRIES):
            try:
                return query(LOCAL_DNS, w.SERVICE_NAME, record_type, timeout_s=2.0)
            except MasqueError as error:
                failure = error
        raise StepFailed(f"no DNS answer through CONNECT-UDP: {failure}")

    # --- CONNECT-IP -------------------------------------------------------------------------------------------------

    def _connect_ip(self) -> None:
        client = self.world.client
        before = client.snapshot()
        up = self._masque_connect("up", "up", w.PROXY_NAME, "--foreground", "--json", *self._options)
        tunnel = up.next_line()
        mtu = tunnel["mtu"]["tunnel"]
        remark(f"CONNECT-IP: {', '.join(tunnel['addresses'])} on {tunnel['interface']}, MTU {mtu}")
        service_4, service_6, _ = w.service_urls()
        with client.entered():
            pings = ping(w.SERVICE_4, count=PINGS)
        remark(f"ping {w.SERVICE_4}: {pings.received} of {pings.sent} answered, {pings.rtt_ms} ms")
        if not pings.received:
            raise StepFailed(f"no ping to {w.SERVICE_4} came back through the tunnel")
        down = self._transfer("IPv4 download", download, service_4, self.settings.big_bytes)
        sent = self._transfer("IPv4 upload", upload, service_4, self.settings.big_bytes)
        self.result["connect_ip"] = {
            "ok": down.sha256_ok and sent.sha256_ok and pings.received >= pings.sent // 2,
            "verified": tunnel["verified"],
            "mtu": mtu,
            "ping_loss": round(pings.loss, 3),
            "ping_rtt_ms": pings.rtt_ms,
            "bytes": self.settings.big_bytes,
            "download_mbit_s": round(down.mbit_s, 1),
            "upload_mbit_s": round(sent.mbit_s, 1),
            "sha256_ok": down.sha256_ok and sent.sha256_ok,
        }
        self._ipv6(service_6)
        status = self.world.stop(up)
        if status != INTERRUPTED:
            raise StepFailed(f"`up` ended with exit status {status} instead of {INTERRUPTED} (interrupted)")
        self.result["leftovers"] += [f"client: {line}" for line in before.difference(client.snapshot())]

    def _ipv6(self, url: str) -> None:
        with self.world.client.entered():
            pings = ping(w.SERVICE_6, count=PINGS)
        down = self._transfer("IPv6 download", download, url, self.settings.small_bytes)
        sent = self._transfer("IPv6 upload", upload, url, self.settings.small_bytes)
        self.result["ipv6"] = {
            "ok": down.sha256_ok and sent.sha256_ok and pings.received >= pings.sent // 2,
            "ping_loss": round(pings.loss, 3),
            "bytes": self.settings.small_bytes,
            "download_mbit_s": round(down.mbit_s, 1),
            "upload_mbit_s": round(sent.mbit_s, 1),
            "sha256_ok": down.sha256_ok and sent.sha256_ok,
        }

    # --- tools ------------------------------------------------------------------------------------------------------

    @property
    def _options(self) -> tuple[str, ...]:
        """HTTP/3 alone: it is what is measured here. The fallback has a scenario of its own."""
        return "--ca", self.ca, "--engine", str(self.settings.engine), "--http", "3"

    def _masque_connect(self, name: str, *arguments: str) -> Actor:
        return self.world.start(name, self.world.client, *MASQUE_CONNECT, *arguments)

    def _transfer(self, label: str, transfer: Callable[..., TransferResult], url: str, size: int) -> TransferResult:
        with _progress(label, size) as report, self.world.client.entered():
            done = transfer(url, size, report_progress=report)
        remark(
            f"{label}: {size // MIB} MiB at {done.mbit_s:.0f} Mbit/s, SHA-256 {'equal' if done.sha256_ok else 'WRONG'}"
        )
        return done


@contextmanager
def _progress(label: str, size: int) -> Iterator[Callable[[int], None] | None]:
    """A bar on stderr while a transfer runs; nothing when stderr is no terminal."""
    if not remarks.is_terminal:
        yield None
        return
    columns = (f"{label:24}", BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, console=remarks, transient=True) as bar:
        task = bar.add_task(label, total=size)
        yield lambda done: bar.update(task, completed=done)
