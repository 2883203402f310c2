"""sing-box: its `masque-server` and `masque-client` endpoints (RFC 9484), over HTTP/3 and HTTP/2, with TUN devices.

They came with 1.15, which no package registry we build from offers yet: whoever has the program names it in
MASQUE_CONNECT_SING_BOX, or has it in PATH. The configuration follows its documentation of the two endpoints; it has not
met a 1.15 here, so expect to correct this file when it does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from ipaddress import ip_network
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from masque_client.testing.netns import Namespace
from masque_connect.demo.actors import Actor
from tests.interop import scene as s
from tests.interop.model import Feature, Protocol, Role
from tests.interop.peer import ClientTask, Launch, Peer, ProxyTask, Ready, when_bound, when_logged
from tests.interop.programs import Unavailable

PROGRAM_VARIABLE: Final = "MASQUE_CONNECT_SING_BOX"
OLDEST: Final = (1, 15)
DEVICE: Final = "singbox0"
_A_SERVICE: Final = "it is a service that goes on trying when a proxy refuses: there is no end to wait for"


class SingBox(Peer):
    """Over HTTP/3."""

    name = "sing-box"
    version = "1.15 or newer"
    stack = "Go, quic-go (a fork)"
    proxies = clients = frozenset({Protocol.IP})
    lacks: ClassVar = {(Role.CLIENT, Protocol.IP, feature): _A_SERVICE for feature in (Feature.AUTH, Feature.NOT_FOUND)}

    def build(self) -> None:
        find_program()

    def proxy(self, task: ProxyTask) -> Launch:
        host, _, port = task.listen.rpartition(":")
        user, _, password = (task.basic or "").partition(":")
        endpoint = {
            "type": "masque-server",
            "tag": "masque",
            "listen": host,
            "listen_port": int(port),
            "version": [int(self.http)],
            "users": [{"username": user, "password": password}] if task.basic else [],
            "tls": {"enabled": True, "certificate_path": str(task.certificate), "key_path": str(task.key)},
            "path": self.paths[Protocol.IP],
            "address": [_with_first_host(pool) for pool in task.pools],
            "advertise_routes": list(task.routes),
            "system": True,
            "name": DEVICE,
        }
        return self._launch(task, endpoint, ready=when_bound(int(port), tcp=self.http == "2"))

    def client(self, task: ClientTask) -> Launch:
        url = urlsplit(task.template)
        user, _, password = (task.basic or "").partition(":")
        endpoint = {
            "type": "masque-client",
            "tag": "masque",
            "server": s.PROXY_ADDRESS,  # with a name it would want DNS servers configured
            "server_port": url.port,
            "headers": {"Host": url.netloc},
            **({"username": user, "password": password} if task.basic else {}),
            "path": url.path,
            "version": int(self.http),
            "disable_version_fallback": True,
            "tls": {"enabled": True, "server_name": url.hostname, "certificate_path": str(task.ca)},
            "system": True,
            "name": DEVICE,
        }
        return self._launch(task, endpoint, ready=_route_when_assigned)

    def _launch(self, task: ProxyTask | ClientTask, endpoint: dict[str, Any], ready: Ready) -> Launch:
        file = task.directory / "sing-box.json"
        file.write_text(json.dumps({"log": {"level": "info"}, "endpoints": [endpoint]}, indent=2))
        return Launch((find_program(), "run", "-c", str(file), "-D", str(task.directory)), ready=ready)


class SingBoxHttp2(SingBox):
    """Over HTTP/2, packets in capsules."""

    name = "sing-box-h2"
    stack = "Go, net/http2"
    http = "2"


def find_program() -> str:
    """The path of a sing-box with MASQUE endpoints. Raises `Unavailable`."""
    needs = (
        f"NEEDS sing-box {OLDEST[0]}.{OLDEST[1]} or newer in {PROGRAM_VARIABLE} or PATH (https://sing-box.sagernet.org)"
    )
    program = shutil.which(os.environ.get(PROGRAM_VARIABLE, "sing-box"))
    if program is None:
        raise Unavailable(f"{needs}: not found")
    said = subprocess.run((program, "version"), capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < OLDEST:
        raise Unavailable(f"{needs}: {program} says {said.splitlines()[0] if said else 'nothing'!r}")
    return program


def _with_first_host(pool: str) -> str:
    """A pool with the address that its server takes: `10.67.0.1/24`, `fd67::1/64`."""
    network = ip_network(pool)
    return f"{network[1]}/{network.prefixlen}"


def _route_when_assigned(actor: Actor, where: Namespace) -> None:
    """It gives its device addresses and leaves routes to its owner."""
    when_logged(r"assigned \S+/")(actor, where)
    for route in s.ROUTES:
        where.ip("route", "replace", route, "dev", DEVICE)


PEERS = (SingBox(), SingBoxHttp2())
