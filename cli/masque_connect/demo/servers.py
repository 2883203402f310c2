"""The servers of a world, by their command lines: origin and DNS, the proxy, and the relay of impaired paths."""

from __future__ import annotations

from collections.abc import Iterable

from masque_connect.demo import world as w
from masque_connect.demo.actors import PYTHON, Actor


def start_origin(world: w.World) -> None:
    """HTTP on port 8080 of all the target's addresses; DNS on those that only a tunnel reaches."""
    services = (w.SERVICE_4, f"[{w.SERVICE_6}]")
    origin = world.start(
        "origin",
        world.target,
        *(*PYTHON, "masque_client.testing.origin"),
        *_each("--listen", (f"{host}:8080" for host in (*services, w.BARE_TARGET))),
        *_each("--dns", (f"{host}:53" for host in services)),
    )
    origin.next_line()


def start_proxy(world: w.World, engine: str, *, ipv6: bool = False) -> str:
    """The proxy, with IPv4 inside and perhaps IPv6; returns the engine that it took."""
    proxy = world.start(
        "proxy",
        world.proxy,
        *(*PYTHON, "masque_client.testing.proxy", "--engine", engine),
        *("--listen", f"{w.PROXY_ADDRESS}:443", "--pvd-listen", f"{w.PROXY_ADDRESS}:443"),
        *("--name", w.PROXY_NAME, "--ca-dir", str(world.ca_file.parent)),
        *("--pool4", w.POOL_4, *(("--pool6", w.POOL_6) if ipv6 else ())),
        *_each("--route", w.SERVICE_ROUTES if ipv6 else w.SERVICE_ROUTES[:1]),
    )
    return str(proxy.next_line()["engine"])


def start_relay(world: w.World, *options: str, takes_orders: bool = False) -> Actor:
    """For a world whose client reaches the proxy through it; `options` say what it does to packets."""
    relay = world.start(
        "relay",
        world.router,
        *(*PYTHON, "masque_client.testing.relay", "--tcp"),
        *("--listen", f"{w.RELAY_ADDRESS}:443", "--to", f"{w.PROXY_ADDRESS}:443", *options),
        takes_orders=takes_orders,
    )
    relay.next_line()
    return relay


def _each(option: str, values: Iterable[str]) -> list[str]:
    return [word for value in values for word in (option, value)]
