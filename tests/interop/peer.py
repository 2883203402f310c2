"""What a foreign program must tell about itself to take part in the matrix. One file per project under peers/.

    class SingBox(Peer):
        name, version, stack = "sing-box", "1.15.0", "Go, quic-go"
        proxies = clients = frozenset({Protocol.IP})

        def build(self) -> None: ...                                # fetch and compile; may raise Unavailable
        def proxy(self, task: ProxyTask) -> Launch: ...             # how to start it as a proxy
        def client(self, task: ClientTask) -> Launch: ...

    PEERS = (SingBox(),)

Programs run in network namespaces of their own as root: they may make TUN devices, addresses and routes as they like.
They are killed if they do not end on SIGTERM.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from masque_client.protocol.uri_template import DEFAULT_IP_PATH, DEFAULT_UDP_PATH
from masque_client.testing.netns import Namespace
from masque_connect.demo.actors import Actor
from tests.interop.model import Deviation, Feature, Protocol, Role

READY_TIMEOUT_S: Final = 20.0
POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class ProxyTask:
    """What a proxy is to do.

    Attributes:
        listen: `ADDR:PORT`, UDP, and TCP for a peer over HTTP/2.
        url: scheme, host and port, `https://proxy.interop.test:4433`: what precedes a template's path.
        certificate, key, ca: PEM files. The certificate is for the host of `url`.
        pools: one prefix per family to assign addresses from (CONNECT-IP).
        routes: to advertise, in the order of RFC 9484 §4.7.3 (CONNECT-IP); targets lie there.
        mtu: of the proxy's TUN device, bytes.
        basic: credentials to demand, `USER:PASSWORD`; None: none.
        directory: for configuration files; empty at first.
    """

    protocol: Protocol
    listen: str
    url: str
    certificate: Path
    key: Path
    ca: Path
    pools: Sequence[str]
    routes: Sequence[str]
    mtu: int
    basic: str | None
    directory: Path


@dataclass(frozen=True, slots=True)
class ClientTask:
    """What a client is to do: a TUN device with what the proxy assigns, or a local UDP port.

    Attributes:
        template: the whole URI template of our proxy.
        local, target: the UDP port to open, `127.0.0.1:7000`, and where its datagrams go (CONNECT-UDP).
        mtu: of its TUN device, bytes.
        basic: credentials to show; None: none.
    """

    protocol: Protocol
    template: str
    ca: Path
    local: str
    target: str
    mtu: int
    basic: str | None
    directory: Path


Ready = Callable[[Actor, Namespace], None]
"""Waits until a program is ready; raises `StepFailed` or `TimeoutError` if it does not become so."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A command and how to know that it is ready: None means that it prints one JSON line on stdout.

    With a `ready` of its own, stdout goes to the log together with stderr.
    """

    command: Sequence[str]
    ready: Ready | None = None


class Peer(ABC):
    """A foreign implementation, of one version, over one version of HTTP.

    Attributes:
        name: what the table calls it; unique.
        stack: language and QUIC library, for the table.
        http: the HTTP version our client is told to use with it.
        paths: path templates per protocol, for its proxy and for ours when it is the client.
        lacks: what it cannot do at all, with the reason: these cells are skipped.
        deviations: what it is known to do wrong.
        remarks: what it does wrong without failing a cell, each with the clause; they stand below the table.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    stack: ClassVar[str]
    http: ClassVar[str] = "3"
    proxies: ClassVar[frozenset[Protocol]] = frozenset()
    clients: ClassVar[frozenset[Protocol]] = frozenset()
    paths: ClassVar[Mapping[Protocol, str]] = {Protocol.IP: DEFAULT_IP_PATH, Protocol.UDP: DEFAULT_UDP_PATH}
    lacks: ClassVar[Mapping[tuple[Role, Protocol, Feature], str]] = {}
    deviations: ClassVar[Sequence[Deviation]] = ()
    remarks: ClassVar[Sequence[str]] = ()

    @abstractmethod
    def build(self) -> None:
        """Fetch and compile what is needed; quick when it is there. Raises `Unavailable` or `BuildFailed`."""

    def proxy(self, task: ProxyTask) -> Launch:
        """How to start it as a proxy."""
        raise NotImplementedError(f"{self.name} is no proxy")

    def client(self, task: ClientTask) -> Launch:
        """How to start it as a client. It must end, with a status other than 0, when the proxy refuses."""
        raise NotImplementedError(f"{self.name} is no client")


def when_bound(port: int, *, tcp: bool = False) -> Ready:
    """Ready when something is bound to this local UDP (or TCP) port."""

    def ready(actor: Actor, where: Namespace) -> None:
        def is_bound() -> bool:
            return bool(where.run("ss", "-Hnl", "-t" if tcp else "-u", f"sport = :{port}").stdout.strip())

        _await(is_bound, actor, f"{'TCP' if tcp else 'UDP'} port {port}")

    return ready


def when_routed(destination: str) -> Ready:
    """Ready when the namespace has a route to an address that it had none to: a client whose TUN device is set up."""

    def ready(actor: Actor, where: Namespace) -> None:
        family = "-6" if ":" in destination else "-4"
        command = ("ip", family, "route", "get", destination)
        _await(lambda: where.run(*command, check=False).returncode == 0, actor, f"a route to {destination}")

    return ready


def when_logged(pattern: str) -> Ready:
    """Ready when a line of the log matches a regular expression."""

    def ready(actor: Actor, where: Namespace) -> None:
        _await(lambda: re.search(pattern, actor.log.read_text(errors="replace")) is not None, actor, repr(pattern))

    return ready


def _await(condition: Callable[[], bool], actor: Actor, what: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not condition():
        if (status := actor.process.poll()) is not None:
            raise ChildProcessError(f"{actor.name} ended with exit status {status}: {' / '.join(actor.tail()[-3:])}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{actor.name}: no {what} within {READY_TIMEOUT_S:g} s")
        time.sleep(POLL_S)
