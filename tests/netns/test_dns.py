"""What a proxy assigns about names reaches whoever runs `up`, and nothing of it is applied."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from masque_client.testing.netns import Lab, Namespace
from tests.netns.commands import PATIENCE_S, read_json

pytestmark = pytest.mark.netns


def start(namespace: Namespace, *command: str, log: Path) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    with log.open("wb") as stderr:
        process = namespace.spawn(sys.executable, "-m", *command, stdout=subprocess.PIPE, stderr=stderr)
    return process, read_json(process)


@pytest.mark.parametrize("engine", ["aioquic", "qh3"])
def test_up_shows_it(engine: str, tmp_path: Path) -> None:
    with Lab() as lab:
        namespace = lab.namespace("names")
        proxy, ready = start(
            namespace,
            *("masque_client.testing.proxy", "--listen", "127.0.0.1:4433", "--name", "127.0.0.1"),
            *("--ca-dir", str(tmp_path), "--pvd-listen", "none", "--tun", "gw", "--engine", engine),
            *("--pool4", "10.89.0.0/24", "--pool6", "fd89::/64", "--route", "10.99.0.0/24", "--route", "64:ff9b::/96"),
            *("--dns", "10.99.0.53,192.0.2.53", "--dns-zone", "corp.example", "--search", "corp.example"),
            *("--pref64", "64:ff9b::/96"),
            log=tmp_path / "proxy.log",
        )
        up, status = start(
            namespace,
            *("masque_connect.main", "up", "https://127.0.0.1:4433", "--foreground", "--json", "--engine", engine),
            *("--ca", ready["ca_file"]),
            log=tmp_path / "up.log",
        )
        resolver = {"priority": 1, "port": None, "name": None, "doh_path": None, "is_proxy": False}
        assert status["dns"] == {
            "applied": False,
            # 192.0.2.53 is not routed into the tunnel: asking it in plain text would leak.
            "claims": [
                {
                    "domain": "corp.example",
                    "resolvers": [{**resolver, "transports": ["dns"], "addresses": ["10.99.0.53"]}],
                }
            ],
            "unclaimed": "system",
            "search_domains": ["corp.example"],
            "nat64_prefixes": ["64:ff9b::/96"],
            "remarks": [],
        }
        for process in (up, proxy):
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE_S)
