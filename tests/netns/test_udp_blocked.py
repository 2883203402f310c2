"""Where a router drops UDP in silence: the demonstration's scenario, and the outer TCP connection beside a full tunnel.

client ─ router ─ proxy ─ target, each a namespace; see masque_connect.demo.world
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from masque_client.testing.netns import Snapshot

DEMO = (sys.executable, "-m", "masque_connect.main", "demo", "--scenario", "udp-blocked", "--json")
TIMEOUT_S = 150
PATIENCE_S = 20.0
"""The scenario's own limit of three seconds is for an idle machine; under load only the order of things is tested."""

pytestmark = pytest.mark.netns


def test_both_kinds_of_tunnel_work_over_http2() -> None:
    before = Snapshot.take()
    done = subprocess.run([*DEMO, "--size", "2"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    assert "error" not in result, done.stderr
    assert result["http3"]["ok"], "the same tunnel is over HTTP/3 while UDP is open"
    for part in ("connect_udp", "connect_ip"):
        assert result[part]["http_version"] == 2
        assert result[part]["fallback_reason"] == "QUIC blocked"
        assert result[part]["seconds_to_data"] < PATIENCE_S
    assert result["connect_ip"]["mtu"] == 1500
    assert result["connect_ip"]["download_mbit_s"] > 0
    assert result["clean"]
    assert before.difference(Snapshot.take()) == []
