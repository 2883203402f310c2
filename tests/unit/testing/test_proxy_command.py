"""The proxy's command line: what it says when it is ready, how it ends, what it refuses."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.unit.testing.proxy_client import TIMEOUT_S

COMMAND = [sys.executable, "-m", "masque_client.testing.proxy"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_line_says_when_it_is_ready_and_stops(tmp_path: Path, number: signal.Signals) -> None:
    options = ["--listen", "127.0.0.1:0", "--pvd-listen", "127.0.0.1:0", "--ca-dir", str(tmp_path), "--tun", "none"]
    with subprocess.Popen([*COMMAND, *options, "--auth", "bearer:t"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["pid"] == process.pid
        assert ready["engine"] in ("aioquic", "qh3")
        assert Path(ready["ca_file"]).is_file()
        context = ssl.create_default_context(cafile=ready["ca_file"])
        url = f"https://{ready['pvd'][0]}/.well-known/pvd"
        document = httpx.get(url, verify=context, trust_env=False, timeout=TIMEOUT_S).json()
        assert {entry["proxy"] for entry in document["proxies"]} == set(ready["templates"].values())
        process.send_signal(number)
        assert process.wait(timeout=TIMEOUT_S) == 0


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--tun", "none"], 2, "--ca-dir"),
        (["--ca-dir", "CA", "--tun", "none", "--misbehave", "nonsense"], 2, "nonsense"),
        (["--ca-dir", "CA", "--tunnel-types", "tcp"], 2, "udp"),
        (["--certificate", "CA/missing.pem", "--key", "CA/missing.key", "--tun", "none"], 1, "error: "),
    ],
)
def test_command_line_errors(tmp_path: Path, options: list[str], status: int, message: str) -> None:
    options = [option.replace("CA", str(tmp_path), 1) if option.startswith("CA") else option for option in options]
    command = [*COMMAND, "--listen", "127.0.0.1:0", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_command_line_taken_port(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [*COMMAND, "--listen", listen, "--ca-dir", str(tmp_path), "--tun", "none"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "hint: " in done.stderr
