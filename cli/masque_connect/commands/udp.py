"""masque-connect udp LOCAL=TARGET … --proxy P: local UDP ports to remote targets, through CONNECT-UDP."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from masque_client.engine.interface import Address
from masque_client.errors import ConfigurationError, MasqueError, concerns_whole_proxy
from masque_client.http.connector import ProxyConnection
from masque_client.netio.clock import Clock, MonotonicClock
from masque_client.protocol.uri_template import UdpTemplate
from masque_client.pvd.match import FlowKind
from masque_client.pvd.proxies import PvdProxy
from masque_client.sockets.port_forwarder import Forward, PortForwarder
from masque_client.tunnel.router import Decision, Way, blocked
from masque_connect import options as shared
from masque_connect.render import SCHEMA_VERSION, Live, print_json_line, rates, remark
from masque_connect.routing import FlowRemarks, Routing, add_routing, open_routing
from masque_connect.running import run_until_signal

RECONNECT_PAUSE_S = 1.0
"""After a proxy's goodbye: one that says it again and again must not be called without end."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `udp` to the command line."""
    parser = commands.add_parser(
        "udp",
        help="local UDP ports to remote targets",
        description="Forward local UDP ports to remote targets through a CONNECT-UDP proxy. Needs no privilege.",
    )
    parser.add_argument(
        "forwards",
        nargs="+",
        metavar="LOCAL=TARGET",
        help="as 127.0.0.1:5353=9.9.9.9:53 or 5353=dns.example:53; a bare local port is on 127.0.0.1",
    )
    parser.add_argument("--proxy", required=True, metavar="HOST|URL", help="a host to discover, or a URI template")
    parser.add_argument(
        "--listen-anywhere",
        action="store_true",
        help="allow a local address other than loopback: everybody who reaches it may use your tunnel",
    )
    add_routing(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout when ready")
    shared.add_connection(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Forward until interrupted, or until the proxy goes away or proves to be of no use."""
    forwards = [parse_forward(text, allow_any=options.listen_anywhere) for text in options.forwards]
    return run_until_signal(_run(options, forwards))


async def _run(options: argparse.Namespace, forwards: list[Forward]) -> int:
    clock = MonotonicClock()
    async with AsyncExitStack() as stack:
        routing = await stack.enter_async_context(open_routing(options, clock))
        failures = _Failures(clock, may_give_up=not routing.has_alternatives)
        ports: list[PortForwarder] = []
        decisions = [await _decide(routing, forward) for forward in forwards]
        for forward in forwards:
            port = PortForwarder(forward, routing.router, clock, on_error=failures.add)
            stack.push_async_callback(port.close)
            ports.append(port)
        for port, decision in zip(ports, decisions, strict=True):
            remark(f"{show_address(port.local_address)} → {_target(port)} {_in_words(decision)}")
        first = next((decision.proxies[0] for decision in decisions if decision.proxies), None)
        proxy = routing.connection_to(first)
        if options.json:
            print_json_line(_describe(first, proxy, ports, decisions))
        remark(f"ready ({_how(proxy)}); stop with Ctrl-C")
        with Live() as live:
            await _watch(routing, first, ports, failures, live)
    return 0


async def _decide(routing: Routing, forward: Forward) -> Decision:
    """Where a forward goes, its proxy connected: what will not work is said before anything is said to be ready.

    Raises:
        DestinationBlocked: nowhere.
        MasqueError: none of its proxies can be had.
    """
    decision = routing.router.decide(FlowKind.UDP, forward.host, forward.port)
    if decision.way is Way.BLOCKED:
        raise blocked(decision)
    if decision.way is Way.PROXY:
        decision = replace(decision, proxies=(await routing.router.warm(decision),))
    return decision


def _describe(
    first: PvdProxy | None, proxy: ProxyConnection | None, ports: list[PortForwarder], decisions: list[Decision]
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "state": "ready",
        "proxy": first and _authority(first),
        "proxy_address": proxy and proxy.address[0],
        "http_version": proxy and proxy.http_version,
        "fallback_reason": proxy and proxy.fallback_reason,
        "engine": proxy and proxy.http.engine.name,
        "forwards": [
            {
                "local": show_address(port.local_address),
                "target": _target(port),
                "way": str(decision.way),
                "proxy": _authority(decision.proxies[0]) if decision.proxies else None,
                "reason": decision.reason,
            }
            for port, decision in zip(ports, decisions, strict=True)
        ],
    }


def _in_words(decision: Decision) -> str:
    if decision.proxies:
        return f"through {decision.proxies[0].authority.host}"
    return f"DIRECTLY, through no proxy ({decision.reason})"


def _how(proxy: ProxyConnection | None) -> str:
    if proxy is None:
        return "no proxy is used"
    carrier = shared.carrier(proxy.http_version, proxy.fallback_reason)
    return f"{carrier} with {proxy.http.engine.name}, {proxy.address[0]}"


def _authority(proxy: PvdProxy) -> str:
    assert isinstance(proxy.proxy, UdpTemplate)
    return proxy.proxy.authority


def _target(port: PortForwarder) -> str:
    return show_address((port.forward.host, port.forward.port))


class _Failures:
    """What becomes of the errors that end flows: the command ends when `fatal` is set, the others are remarks."""

    def __init__(self, clock: Clock, *, may_give_up: bool) -> None:
        self.fatal: asyncio.Future[MasqueError] = asyncio.get_running_loop().create_future()
        self._may_give_up = may_give_up
        self._remarks = FlowRemarks(clock)

    def add(self, error: MasqueError) -> None:
        if self._may_give_up and concerns_whole_proxy(error):
            if not self.fatal.done():
                self.fatal.set_result(error)
        else:
            self._remarks.add(error)


async def _watch(
    routing: Routing, proxy: PvdProxy | None, ports: list[PortForwarder], failures: _Failures, live: Live
) -> None:
    """Refresh the live line every second until the only proxy, or our hope in it, is gone; then raise why."""
    forever: asyncio.Future[MasqueError] = asyncio.get_running_loop().create_future()
    is_only_proxy = proxy is not None and not routing.has_alternatives
    closed = asyncio.ensure_future(_lost(routing, proxy)) if proxy is not None and is_only_proxy else forever
    either: list[asyncio.Future[Any]] = [closed, failures.fatal]
    sent = received = 0
    try:
        while not closed.done() and not failures.fatal.done():
            now_sent = sum(port.statistics.bytes_out for port in ports)
            now_received = sum(port.statistics.bytes_in for port in ports)
            flows = sum(port.flows for port in ports)
            live.update(f"{flows} flows  {rates(now_sent - sent, now_received - received, routing.statistics())}")
            sent, received = now_sent, now_received
            await asyncio.wait(either, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
    finally:
        closed.cancel()
    if failures.fatal.done():
        raise failures.fatal.result()
    raise closed.result()


async def _lost(routing: Routing, proxy: PvdProxy) -> MasqueError:
    """Wait until the proxy is gone for good; says why. One that says goodbye (GOAWAY) is connected to anew.

    Raises:
        MasqueError: it cannot be reached any more.
    """
    while True:
        connection = await routing.router.pool.connection(proxy.authority)
        await connection.http.wait_closed()
        if not connection.http.going_away:
            return connection.http.closed_error()
        await asyncio.sleep(RECONNECT_PAUSE_S)


def parse_forward(text: str, *, allow_any: bool) -> Forward:
    """`LOCAL=TARGET` → `Forward`.

    Raises:
        ConfigurationError: malformed, or a local address beyond loopback that was not allowed.
    """
    local_text, equals, target = text.partition("=")
    hint = "write LOCAL=TARGET, such as 127.0.0.1:5353=9.9.9.9:53"
    if not equals:
        raise ConfigurationError(f"{text!r} has no '='", hint=hint)
    host, port = split_authority(target, hint)
    if local_text.isdecimal():
        local_text = f"127.0.0.1:{local_text}"
    local_host, local_port = split_authority(local_text, hint, lowest=0)
    try:
        address = ipaddress.ip_address(local_host)
    except ValueError as error:
        raise ConfigurationError(f"{local_host!r} is no local IP address", hint=hint) from error
    if not address.is_loopback and not allow_any:
        raise ConfigurationError(
            f"{local_host} can be reached from other machines, which would make you an open proxy",
            hint="use 127.0.0.1 or ::1, or say --listen-anywhere",
        )
    return Forward((str(address), local_port), host, port)


def split_authority(text: str, hint: str, *, lowest: int = 1) -> Address:
    """`HOST:PORT`, IPv6 in brackets.

    Raises:
        ConfigurationError: it is not, with this hint.
    """
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not bare or (":" in bare) != host.startswith("["):
        raise ConfigurationError(f"{text!r} is not HOST:PORT", hint=f"{hint}; an IPv6 address goes in brackets")
    if not (port.isascii() and port.isdecimal() and lowest <= int(port) <= 65535):
        raise ConfigurationError(f"{port!r} is no port", hint=hint)
    return bare, int(port)


def show_address(address: Address) -> str:
    """As a person writes it."""
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
