"""One scenario: a foreign program in one role, one of our engines in the other, and the tunnel between them.

Nothing runs before a check asks for it, so that any single cell can be run alone; what runs is kept for the next check.
"""

from __future__ import annotations

import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from masque_client.engine.interface import Address
from masque_client.testing.addresses import format_address
from masque_client.testing.certificates import Credentials
from masque_client.testing.netns import Snapshot
from masque_connect.demo.actors import MASQUE_CONNECT, PYTHON, Actor
from tests.interop import reliable_udp
from tests.interop import scene as s
from tests.interop.model import CellFailed, Protocol, Role
from tests.interop.peer import ClientTask, Launch, Peer, ProxyTask

USER, PASSWORD = "interop", "opensesame"
BASIC: Final = f"{USER}:{PASSWORD}"
UNKNOWN_PATH: Final = "/nobody/knows/this"
TUN_MTU: Final = 1500
"""Of foreign TUN devices: what a device has whose owner did not think of it, and more than QUIC will carry."""
END_TIMEOUT_S: Final = 30.0
LOCAL_PORTS: Final = {4: 7004, 6: 7006}


@dataclass(frozen=True, slots=True)
class Scenario:
    """What all cells of one stage have in common. The engine is ours."""

    peer: Peer
    role: Role
    protocol: Protocol
    engine: str

    def __str__(self) -> str:
        return f"{self.peer.name}-{self.role}-{self.protocol}-{self.engine}"


@dataclass
class Running:
    """The client of a tunnel, and what it said when it was ready."""

    actor: Actor
    ready: dict[str, Any] = field(default_factory=dict)


class Stage:
    """See the module. `close_client` and `close_proxy` make the next check start afresh."""

    def __init__(self, scene: s.Scene, scenario: Scenario) -> None:
        self.scene = scene
        self.scenario = scenario
        self.peer, self.protocol = scenario.peer, scenario.protocol
        self.credentials: Credentials = scene.authority.issue([s.PROXY_NAME, s.PROXY_ADDRESS])
        self.before: Snapshot = scene.client.snapshot()
        self._proxy: Actor | None = None
        self._clients: dict[int, Running] = {}

    # --- what checks use --------------------------------------------------------------------------------------------

    def tunnel(self, version: int = 4) -> Running:
        """A tunnel that is open. With CONNECT-UDP there is one per IP version of the target, CONNECT-IP carries both.

        Raises:
            StepFailed, ChildProcessError, TimeoutError: either side did not come up.
        """
        key = version if self.protocol is Protocol.UDP else 0
        if self._proxy is None:
            self._proxy = self._start_proxy(basic=None)
        if key not in self._clients:
            self._clients[key] = self._start_client(version)
        return self._clients[key]

    def udp_service(self, version: int = 4) -> Address:
        """Where a program on the client reaches `reliable_udp` through the tunnel."""
        self.tunnel(version)
        if self.protocol is Protocol.UDP:
            return "127.0.0.1", LOCAL_PORTS[version]
        return s.SERVICES[version], s.UDP_PORT

    def restart_proxy(self) -> None:
        """Kill the proxy, as a crash would, and start it again in the same place."""
        self.tunnel()
        assert self._proxy is not None
        self._proxy.stop(signal.SIGKILL)
        self._proxy = self._start_proxy(basic=None)

    def close_client(self) -> None:
        """End the clients; ours must have ended by itself or end now, and leave nothing behind.

        Raises:
            CellFailed: it left something.
        """
        for running in self._clients.values():
            running.actor.stop()
        self._clients.clear()
        if self.scenario.role is Role.PROXY and (left := self.before.difference(self.scene.client.snapshot())):
            raise CellFailed(f"our client left behind: {left}")

    def close_proxy(self) -> None:
        """End the proxy, its clients first."""
        self.close_client()
        if self._proxy is not None:
            self._proxy.stop()
            self._proxy = None

    def kill(self) -> None:
        """End both sides at once, from any thread. The check that waits for them fails."""
        for actor in (self._proxy, *(running.actor for running in self._clients.values())):
            if actor is not None:
                actor.process.kill()

    def demand_credentials(self) -> None:
        """Start the proxy anew; it now refuses whoever does not show `BASIC`."""
        self.close_proxy()
        self._proxy = self._start_proxy(basic=BASIC)

    def open_with_credentials(self) -> None:
        """Open a tunnel with `BASIC` through such a proxy, and close it. Raises as `tunnel`, and `CellFailed`."""
        with_port = {0 if self.protocol is Protocol.IP else 4: self._start_client(4, basic=BASIC)}
        self._clients = with_port
        reliable_udp_answers(self)
        self.close_proxy()

    def refused(self, *, path: str | None = None) -> Refusal:
        """Start a client, without credentials, or for a path that the proxy does not know; wait for it to end.

        Raises:
            CellFailed: it did not end, or said that it is ready and went on.
        """
        if self._proxy is None:
            self._proxy = self._start_proxy(basic=None)
        self.close_client()
        actor = self.scene.start("refused", self.scene.client, self._client_launch(4, path=path, basic=None))
        deadline = time.monotonic() + END_TIMEOUT_S
        while actor.process.poll() is None:
            if time.monotonic() > deadline:
                actor.stop()
                raise CellFailed(f"the client went on for {END_TIMEOUT_S:g} s although the proxy refused")
            self._knock()
        status = actor.stop()
        if self.scenario.role is Role.PROXY and (left := self.before.difference(self.scene.client.snapshot())):
            raise CellFailed(f"our client left behind: {left}")
        return Refusal(status, " / ".join(actor.tail()[-2:]))

    # --- our side and theirs ----------------------------------------------------------------------------------------

    def _start_proxy(self, *, basic: str | None) -> Actor:
        launch = self._foreign_proxy(basic) if self.scenario.role is Role.PROXY else self._our_proxy(basic)
        actor = self.scene.start("proxy", self.scene.proxy, launch)
        if launch.ready is not None:
            launch.ready(actor, self.scene.proxy)
        else:
            actor.next_line()
        return actor

    def _start_client(self, version: int, basic: str | None = None) -> Running:
        launch = self._client_launch(version, basic=basic)
        actor = self.scene.start("client", self.scene.client, launch)
        if launch.ready is not None:
            launch.ready(actor, self.scene.client)
            return Running(actor)
        return Running(actor, actor.next_line())

    def _client_launch(self, version: int, *, path: str | None = None, basic: str | None) -> Launch:
        template = s.PROXY_URL + (path or self.peer.paths[self.protocol])
        if path is not None and self.protocol is Protocol.UDP:
            template += "/{target_host}/{target_port}"
        if self.scenario.role is Role.PROXY:
            return self._our_client(template, version, basic)
        return self.peer.client(
            ClientTask(
                protocol=self.protocol,
                template=template,
                ca=self.scene.authority.ca_file,
                local=format_address(("127.0.0.1", LOCAL_PORTS[version])),
                target=format_address((s.SERVICES[version], s.UDP_PORT)),
                mtu=TUN_MTU,
                basic=basic,
                directory=self._scratch(),
            )
        )

    def _foreign_proxy(self, basic: str | None) -> Launch:
        return self.peer.proxy(
            ProxyTask(
                protocol=self.protocol,
                listen=format_address((s.PROXY_ADDRESS, s.PROXY_PORT)),
                url=s.PROXY_URL,
                certificate=self.credentials.certificate,
                key=self.credentials.key,
                ca=self.scene.authority.ca_file,
                pools=s.POOLS,
                routes=s.ROUTES,
                mtu=TUN_MTU,
                basic=basic,
                directory=self._scratch(),
            )
        )

    def _our_client(self, template: str, version: int, basic: str | None) -> Launch:
        scratch = self._scratch()
        options = ["--json", "--engine", self.scenario.engine, "--http", self.peer.http]
        options += ["--ca", str(self.scene.authority.ca_file)]
        if basic:
            (scratch / "password").touch(mode=0o600)
            (scratch / "password").write_text(PASSWORD)
            options += ["--user", USER, "--password-file", str(scratch / "password")]
        # What it remembers of networks and proxies is not the next scenario's business, nor the user's.
        memory = ("env", *(f"XDG_{kind}_HOME={scratch}" for kind in ("CACHE", "STATE", "CONFIG")))
        if self.protocol is Protocol.IP:
            return Launch((*memory, *MASQUE_CONNECT, "up", template, "--foreground", *options))
        target = format_address((s.SERVICES[version], s.UDP_PORT))
        return Launch(
            (*memory, *MASQUE_CONNECT, "udp", f"{LOCAL_PORTS[version]}={target}", "--proxy", template, *options)
        )

    def _our_proxy(self, basic: str | None) -> Launch:
        listen = format_address((s.PROXY_ADDRESS, s.PROXY_PORT))
        return Launch(
            (
                *(*PYTHON, "masque_client.testing.proxy", "--listen", listen, "--name", s.PROXY_NAME),
                *(("--h2-listen", listen) if self.peer.http == "2" else ("--pvd-listen", "none", "--no-http2")),
                *("--certificate", str(self.credentials.certificate), "--key", str(self.credentials.key)),
                *("--engine", self.scenario.engine, "--tunnel-types", "ip" if self.protocol is Protocol.IP else "udp"),
                *(f"--{'ip' if self.protocol is Protocol.IP else 'udp'}-path", self.peer.paths[self.protocol]),
                *("--pool4", s.POOLS[0], "--pool6", s.POOLS[1]),
                *(part for route in s.ROUTES for part in ("--route", route)),
                *(("--auth", f"basic:{basic}") if basic else ()),
            )
        )

    def _scratch(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.scene.directory))

    def _knock(self) -> None:
        """With CONNECT-UDP, a client may ask its proxy only when somebody has something to send."""
        with self.scene.client.entered(), reliable_udp.udp_socket("127.0.0.1") as sock:
            if self.protocol is Protocol.UDP:
                reliable_udp.try_to_send(sock, b"Eanybody there?", ("127.0.0.1", LOCAL_PORTS[4]))
            time.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a client ended that a proxy refused."""

    status: int
    words: str


def reliable_udp_answers(stage: Stage) -> None:
    """One datagram goes to the service and back. Raises `CellFailed`."""
    service = stage.udp_service()
    with stage.scene.client.entered():
        reliable_udp.echo(service, b"here we are")
