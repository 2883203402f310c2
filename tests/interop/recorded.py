"""Sessions of the real commands, recorded.

client 192.0.2.1 ───── 192.0.2.2 proxy (captured here),  TUN 10.89.0.1/24 fd89::1/64,  UDP echo on every address
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

from masque_client.testing.certificates import CertificateAuthority
from masque_client.testing.echo import EchoTarget
from masque_client.testing.netns import Lab, Namespace
from tests.interop.dissector import Capture, Dissection, dissect
from tests.interop.peers import connect_ip_go
from tests.netns.commands import end, read_json

CLIENT, PROXY = "192.0.2.1", "192.0.2.2"
POOLS = ("10.89.0.0/24", "fd89::/64")
GATEWAYS, ASSIGNED = ("10.89.0.1", "fd89::1"), ("10.89.0.2", "fd89::2")
ECHO_PORTS = (9000, 9001)
TIMEOUT_S = 60.0
_END_OF_SESSION = b"nothing more of interest"


class Stage(NamedTuple):
    """Two namespaces and a directory; `run` plays one session there."""

    client: Namespace
    proxy: Namespace
    directory: Path

    @classmethod
    def build(cls, lab: Lab, directory: Path) -> Self:
        """A new one; it ends with the lab."""
        client, proxy = lab.namespace("client"), lab.namespace("proxy")
        lab.link(client, [f"{CLIENT}/24"], proxy, [f"{PROXY}/24"], names=("eth0", "eth1"))
        for namespace, device in ((client, "eth0"), (proxy, "eth1")):
            # A capture shows a GSO train as one big UDP datagram, which no dissector can know: have it cut before.
            namespace.ip("link", "set", "dev", device, "gso_max_segs", "1")
        proxy.set_forwarding()
        return cls(client, proxy, directory)

    def our_proxy(self, engine: str) -> list[str]:
        """The command of our test proxy; it assigns addresses when asked."""
        return [
            *(sys.executable, "-m", "masque_client.testing.proxy", "--engine", engine, "--name", PROXY),
            *("--listen", f"{PROXY}:443", "--h2-listen", f"{PROXY}:443", "--allow", f"{PROXY}/32"),
            *("--pool4", POOLS[0], "--pool6", POOLS[1], "--route", POOLS[0], "--route", POOLS[1]),
            *("--secrets-log", str(self._secrets), "--misbehave", "assign-on-request"),
        ]

    def connect_ip_go(self) -> list[str]:
        """The command of connect-ip-go's proxy, at /vpn; it assigns addresses unasked. Raises `Unavailable`."""
        return [
            *(str(connect_ip_go.SERVER.build()), "-listen", f"{PROXY}:443", "-template", f"https://{PROXY}/vpn"),
            *("-pool", POOLS[0], "-pool", POOLS[1], "-route", POOLS[0], "-route", POOLS[1]),
            *("-secrets-log", str(self._secrets)),
        ]

    def run(self, proxy: list[str], client: list[str], talk: Callable[[Namespace], None]) -> Dissection:
        """Start a proxy and a client's command, `talk` in the client's namespace, end the client, dissect all of it."""
        capture = Capture(self.proxy, "eth1")
        authority = CertificateAuthority.create(self.directory)
        credentials = authority.issue([PROXY])
        files = (f"--certificate={credentials.certificate}", f"--key={credentials.key}")
        read_json(self.proxy.spawn(*proxy, *files, stdout=subprocess.PIPE))
        leak = self.directory / "leak"
        process = self.client.spawn(
            *(sys.executable, "-m", "masque_connect.main", *client, "--json", "--ca", str(authority.ca_file)),
            stdout=subprocess.PIPE,
            env=os.environ | {"SSLKEYLOGFILE": str(leak)},
        )
        read_json(process)
        with ExitStack() as stack:
            with self.proxy.entered():
                for address in (PROXY, *GATEWAYS):
                    for port in ECHO_PORTS:
                        stack.enter_context(EchoTarget("echo", (address, port)))
            talk(self.client)
        assert end(process, signal.SIGINT) == 130
        assert not leak.exists(), "the client wrote its secrets where its environment said"
        with self.client.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(_END_OF_SESSION, (PROXY, 9))
        file = self.directory / "session.pcap"
        file.write_bytes(capture.stop_after(_END_OF_SESSION))
        return dissect(file, self._secrets)

    @property
    def _secrets(self) -> Path:
        return self.directory / "secrets"


def exchange(where: Namespace, payload: bytes, host: str, port: int) -> None:
    """Send a UDP datagram and wait for its echo."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with where.entered(), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.sendto(payload, (host, port))
        assert sock.recv(2048) == b"echo:" + payload
