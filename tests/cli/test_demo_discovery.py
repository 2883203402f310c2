"""The demonstration's scenario `discovery`, as anybody runs it: no privilege, only loopback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

from masque_connect.demo.scenarios import SCENARIOS

DEMO = (sys.executable, "-m", "masque_connect.main", "demo", "--scenario", "discovery", "--json")
TIMEOUT_S = 150
PATIENCE_S = 30.0
"""The scenario's own limit of three seconds is for an idle machine; under load only the order of things is tested."""


def test_one_name_in_the_right_proxy_and_policy_out() -> None:
    done = subprocess.run(DEMO, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    assert (result["schema_version"], result["scenario"]) == (1, "discovery")
    assert "error" not in result and result["clean"] is True and result["leftovers"] == [], done.stderr + done.stdout
    for part in ("discovery", "routing", "refresh", "refusal"):
        assert result[part]["ok"] is True, result[part]
    assert {flow["target"]: flow["seen_from"] for flow in result["routing"]["flows"]} == {
        "excluded": "direct",
        "named": "light",
        "special": "full",
        "other": "light",
    }
    assert 1.0 < result["failover"]["seconds"] < PATIENCE_S, "a dead proxy costs its head start"
    assert result["failover"]["through"] == "light"
    assert result["reopening"]["seconds"] < PATIENCE_S and result["reopening"]["through"] == "full"
    assert [result[part]["limit_seconds"] for part in ("failover", "reopening")] == [3.0, 3.0]
    assert done.returncode == (0 if result["ok"] else 1)
    refresh = result["refresh"]
    assert (refresh["through"], refresh["lifetime_seconds"]) == ("light", 17.0) and refresh["requests"] >= 2
    assert [entry["exit_status"] for entry in result["refusal"]["refused"]] == [65, 65, 65, 65, 6, 65]


def test_interrupted_it_leaves_nothing() -> None:
    demo = subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert demo.stderr is not None
    first = demo.stderr.readline()  # the proxies are up
    demo.send_signal(signal.SIGINT)
    _, remarks = demo.communicate(timeout=TIMEOUT_S)
    assert demo.returncode == 130, first + remarks
    assert "Traceback" not in remarks
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    port = first.partition("localhost:")[2].partition("/")[0]
    assert port and not any(f"localhost:{port}/" in line for line in listing.splitlines())


def test_every_scenario_can_be_loaded() -> None:
    for scenario in SCENARIOS.values():
        assert callable(scenario.load(is_privileged=True))
    assert SCENARIOS["udp-blocked"].load(is_privileged=False) is None
    assert callable(SCENARIOS["first-tunnel"].load(is_privileged=False))
