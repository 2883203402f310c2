"""What can be shown without privilege: discovery and CONNECT-UDP, on loopback, with the public command line."""

from __future__ import annotations

import time
from typing import Any

from masque_client.testing.addresses import parse_address
from masque_client.testing.dns import DEFAULT_RECORDS, DnsResponder, query
from masque_client.testing.pvd_server import WELL_KNOWN_PATH
from masque_connect.demo.actors import MASQUE_CONNECT, PYTHON
from masque_connect.demo.interrupts import Interrupts
from masque_connect.demo.settings import Settings
from masque_connect.demo.staging import blank_result, stage
from masque_connect.demo.workplace import Workshop
from masque_connect.demo.world import SERVICE_NAME
from masque_connect.render import remark

NAME = "localhost"


def run_loopback(settings: Settings, interrupts: Interrupts) -> dict[str, Any]:
    """Run the scenario; returns its JSON object. CONNECT-IP and IPv6 are reported as skipped, not as failed."""
    skipped = {"ok": None, "skipped": "needs root, network namespaces and /dev/net/tun"}
    parts = ("discovery", "connect_udp")
    result = blank_result("loopback", settings, *parts, connect_ip=skipped, ipv6=skipped)
    stage(Workshop(interrupts), lambda workshop: _run(settings, workshop, result), result)
    result["ok"] = all(result[part]["ok"] for part in parts)
    return result


def _run(settings: Settings, workshop: Workshop, result: dict[str, Any]) -> None:
    start, directory = workshop.start, workshop.directory
    with DnsResponder([("127.0.0.1", 0)]) as dns:
        dns.start()
        target = dns.addresses[0]
        proxy = start(
            "proxy",
            *PYTHON,
            "masque_client.testing.proxy",
            *("--listen", "127.0.0.1:0", "--pvd-listen", "127.0.0.1:0", "--name", NAME),
            *("--ca-dir", str(directory / "ca"), "--tunnel-types", "udp", "--tun", "none"),
            *("--allow", "127.0.0.0/8", "--engine", settings.engine),
        )
        ready = proxy.next_line()
        result["engine"] = ready.get("engine", result["engine"])
        url = f"https://{NAME}:{parse_address(ready['pvd'][0])[1]}{WELL_KNOWN_PATH}"
        ca = str(ready["ca_file"])
        started = time.monotonic()
        found = start("discover", *MASQUE_CONNECT, "discover", url, "--json", "--ca", ca).next_document()
        protocols = sorted({entry["protocol"] for entry in found["proxies"]})
        elapsed_ms = round((time.monotonic() - started) * 1000)
        result["discovery"] = {"ok": protocols == ["connect-udp"], "ms": elapsed_ms, "protocols": protocols}
        remark(f"discovered at {url}: {', '.join(protocols)}")
        udp = start(
            "udp",
            *MASQUE_CONNECT,
            *("udp", f"127.0.0.1:0={target[0]}:{target[1]}", "--proxy", url, "--json", "--ca", ca),
            *("--engine", settings.engine),
        )
        local = parse_address(udp.next_line()["forwards"][0]["local"])
        first, second = (query(local, SERVICE_NAME) for _ in range(2))
        rtt_ms = second.rtt_s * 1000
        result["connect_udp"] = {
            "ok": list(first.values) == DEFAULT_RECORDS[SERVICE_NAME]["A"],
            "rtt_ms": round(rtt_ms, 3),
            "first_rtt_ms": round(first.rtt_s * 1000, 3),
        }
        remark(f"DNS through CONNECT-UDP: {SERVICE_NAME} → {', '.join(first.values)} in {rtt_ms:.1f} ms")
