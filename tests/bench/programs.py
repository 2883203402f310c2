"""What a row can be made of: each implementation knows how to be a proxy or a client in the stage's world.

A peer gets the best settings that a user of it would find: packets of the link's size, and no option against speed.
Started means started: `measure` finds out by itself when traffic gets through.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from masque_client.netio import offload
from masque_client.protocol.uri_template import DEFAULT_IP_PATH, DEFAULT_UDP_PATH
from masque_connect.demo import world as w
from masque_connect.demo.actors import MASQUE_CONNECT, PYTHON, Actor
from tests.bench import wireguard
from tests.bench.stage import AUTHORITY, UDP_LOCAL, UDP_TARGET, Stage
from tests.interop.programs import GoProgram

CONNECT_IP_SERVER = GoProgram("connectip-server", "connectip", "./server")
CONNECT_IP_CLIENT = GoProgram("connectip-client", "connectip", "./client")
MASQUE_PROXY = GoProgram("masque-proxy", "masque", "./proxy")
MASQUE_CLIENT = GoProgram("masque-client", "masque", "./client")
WIREGUARD_GO = GoProgram("wireguard-go", "wireguard", "golang.zx2c4.com/wireguard")


@functools.cache
def binary(program: GoProgram) -> str:
    """Its path, built at the first call: asking the cache costs time that a connecting client does not have.

    Raises:
        Unavailable, BuildFailed: see `GoProgram.build`.
    """
    return str(program.build())


class Program(Protocol):
    """An implementation. Roles that it does not have raise `NotImplementedError`: the table of rows never asks."""

    @property
    def builds(self) -> tuple[GoProgram, ...]:
        """What must be built before it can start."""
        ...

    def start_proxy(self, stage: Stage) -> Actor:
        """Start it as the proxy of the row."""
        ...

    def start_tunnel(self, stage: Stage, proxy: Program) -> Actor:
        """Start it as the client that carries IP packets to the services behind `proxy`."""
        ...

    def start_forwarder(self, stage: Stage, proxy: Program) -> Actor:
        """Start it as the client that carries datagrams from UDP_LOCAL to UDP_TARGET through `proxy`."""
        ...

    @property
    def ip_template(self) -> str:
        """Of it as a proxy."""
        ...

    @property
    def udp_template(self) -> str:
        """Of it as a proxy."""
        ...


class Build(StrEnum):
    """How an installation of ours moves packets through its TUN device."""

    COMPILED = "compiled"
    """As super-packets, with the compiled module: what `up` does where that was built."""
    NO_OFFLOAD = "no-offload"
    """One by one, as asked for."""
    PURE_PYTHON = "pure-python"
    """As an installation without a compiler does."""


@dataclass(frozen=True, slots=True)
class Ours:
    """This checkout, both the client and the test proxy, which have the same engine and the same way with the TUN."""

    engine: str
    build: Build = Build.COMPILED

    builds = ()
    ip_template = f"https://{AUTHORITY}{DEFAULT_IP_PATH}"
    udp_template = f"https://{AUTHORITY}{DEFAULT_UDP_PATH}"

    def start_proxy(self, stage: Stage) -> Actor:
        """The test proxy."""
        proxy = stage.start(
            stage.world.proxy,
            *self._environment,
            *PYTHON,
            "masque_client.testing.proxy",
            *("--listen", AUTHORITY, "--no-http2", "--name", w.PROXY_NAME),
            *("--certificate", str(stage.credentials.certificate), "--key", str(stage.credentials.key)),
            *("--pool4", w.POOL_4, "--pool6", w.POOL_6, "--engine", self.engine, *self._switches),
            *(part for route in w.SERVICE_ROUTES for part in ("--route", route)),
        )
        proxy.next_line()
        return proxy

    def start_tunnel(self, stage: Stage, proxy: Program) -> Actor:
        """`masque-connect up`."""
        options = ("--foreground", "--json", *self._options(stage), *self._switches)
        return stage.start(stage.world.client, *self._environment, *MASQUE_CONNECT, "up", proxy.ip_template, *options)

    def start_forwarder(self, stage: Stage, proxy: Program) -> Actor:
        """`masque-connect udp`."""
        forward = f"{UDP_LOCAL[0]}:{UDP_LOCAL[1]}={UDP_TARGET[0]}:{UDP_TARGET[1]}"
        options = ("--proxy", proxy.udp_template, "--json", *self._options(stage))
        return stage.start(stage.world.client, *self._environment, *MASQUE_CONNECT, "udp", forward, *options)

    def problem(self) -> str | None:
        """Why this installation is not the one that is asked for, or None."""
        if self.build is Build.COMPILED and not offload.IS_WORTHWHILE:
            return "the compiled offload module was not built in this installation"
        return None

    @property
    def _environment(self) -> tuple[str, ...]:
        return ("env", "MASQUE_PURE_PYTHON=1") if self.build is Build.PURE_PYTHON else ()

    @property
    def _switches(self) -> tuple[str, ...]:
        return ("--no-offload",) if self.build is Build.NO_OFFLOAD else ()

    def _options(self, stage: Stage) -> tuple[str, ...]:
        return "--ca", stage.ca, "--engine", self.engine, "--http", "3"


@dataclass(frozen=True, slots=True)
class ConnectIpGo:
    """connect-ip-go on quic-go: the small programs of the interop tests, a TUN device and a plain loop each way."""

    builds = (CONNECT_IP_SERVER, CONNECT_IP_CLIENT)
    ip_template = f"https://{AUTHORITY}/vpn"
    udp_template = ""

    def start_proxy(self, stage: Stage) -> Actor:
        """Ready when it says so."""
        proxy = stage.start(
            stage.world.proxy,
            *(binary(CONNECT_IP_SERVER), "-listen", AUTHORITY, "-template", self.ip_template),
            *("-certificate", str(stage.credentials.certificate), "-key", str(stage.credentials.key)),
            *("-pool", w.POOL_4, "-pool", w.POOL_6, *_GO_SIZES, "-mtu", _GO_TUNNEL_MTU),
            *(part for route in w.SERVICE_ROUTES for part in ("-route", route)),
        )
        proxy.next_line()
        return proxy

    def start_tunnel(self, stage: Stage, proxy: Program) -> Actor:
        """With the device and the routes that it sets up."""
        return stage.start(
            stage.world.client,
            *(binary(CONNECT_IP_CLIENT), "-template", proxy.ip_template, "-ca", stage.ca),
            *(*_GO_SIZES, "-mtu", _GO_TUNNEL_MTU),
        )

    def start_forwarder(self, stage: Stage, proxy: Program) -> Actor:
        """It carries IP packets only."""
        raise NotImplementedError


_GO_SIZES = ("-initial-packet-size", "1452")  # quic-go's largest, and what its path MTU discovery would end at
_GO_TUNNEL_MTU = "1400"  # less the short header, the frame and the identifiers, rounded down


@dataclass(frozen=True, slots=True)
class MasqueGo:
    """masque-go on quic-go: its proxy, and its client as a local UDP forwarder."""

    builds = (MASQUE_PROXY, MASQUE_CLIENT)
    ip_template = ""
    udp_template = f"https://{AUTHORITY}/masque?h={{target_host}}&p={{target_port}}"

    def start_proxy(self, stage: Stage) -> Actor:
        """Ready when it says so."""
        proxy = stage.start(
            stage.world.proxy,
            *(binary(MASQUE_PROXY), "-listen", AUTHORITY, "-template", self.udp_template, *_GO_SIZES),
            *("-certificate", str(stage.credentials.certificate), "-key", str(stage.credentials.key)),
        )
        proxy.next_line()
        return proxy

    def start_tunnel(self, stage: Stage, proxy: Program) -> Actor:
        """It carries datagrams only."""
        raise NotImplementedError

    def start_forwarder(self, stage: Stage, proxy: Program) -> Actor:
        """One local port."""
        return stage.start(
            stage.world.client,
            *(binary(MASQUE_CLIENT), "-template", proxy.udp_template, "-ca", stage.ca, *_GO_SIZES),
            *("-listen", f"{UDP_LOCAL[0]}:{UDP_LOCAL[1]}", "-target", f"{UDP_TARGET[0]}:{UDP_TARGET[1]}"),
        )


@dataclass(frozen=True, slots=True)
class WireGuardGo:
    """wireguard-go as it comes: no MASQUE, but the yardstick for a tunnel in user space; TUN and UDP offload are on."""

    client: wireguard.KeyPair
    server: wireguard.KeyPair

    builds = (WIREGUARD_GO,)
    ip_template = udp_template = ""

    @classmethod
    def with_new_keys(cls) -> WireGuardGo:
        """A pair that knows each other."""
        return cls(wireguard.KeyPair.generate(), wireguard.KeyPair.generate())

    def start_proxy(self, stage: Stage) -> Actor:
        """The side that waits."""
        device = f"wgp{stage.suffix}"
        actor = stage.start(stage.world.proxy, binary(WIREGUARD_GO), "--foreground", device)
        peer = wireguard.Peer(self.client.public, (w.POOL_4,))
        wireguard.configure(device, wireguard.configuration(self.server.private, peer, 443))
        stage.world.proxy.ip("address", "add", w.POOL_4.replace(".0/", ".1/"), "dev", device)
        stage.world.proxy.ip("link", "set", device, "up")
        return actor

    def start_tunnel(self, stage: Stage, proxy: Program) -> Actor:
        """The side that calls, and routes the services into the tunnel."""
        device = f"wgc{stage.suffix}"
        actor = stage.start(stage.world.client, binary(WIREGUARD_GO), "--foreground", device)
        peer = wireguard.Peer(self.server.public, (w.SERVICE_ROUTES[0],), AUTHORITY)
        wireguard.configure(device, wireguard.configuration(self.client.private, peer))
        stage.world.client.ip("address", "add", w.POOL_4.replace(".0/", ".2/"), "dev", device)
        stage.world.client.ip("link", "set", device, "up")
        stage.world.client.ip("route", "add", w.SERVICE_ROUTES[0], "dev", device)
        return actor

    def start_forwarder(self, stage: Stage, proxy: Program) -> Actor:
        """It carries IP packets only."""
        raise NotImplementedError
