"""masque-connect up HOST|URL --foreground: a CONNECT-IP tunnel bound to a TUN device."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from masque_client.engine.interface import TlsConfiguration
from masque_client.errors import ConfigurationError, MasqueError
from masque_client.host import system_network
from masque_client.host.interface import DEFAULT_FWMARK
from masque_client.netio.clock import MonotonicClock
from masque_client.protocol.quic_invariants import version_number
from masque_client.pvd.proxies import PvdProxy
from masque_client.tunnel.manager import ConnectIpTunnel
from masque_client.tunnel.options import AddressRequestMode, TunnelOptions
from masque_client.tunnel.proxies import ProxyChoice, document_source, ip_proxies, past_tunnels
from masque_client.tunnel.status import TunnelStatus
from masque_connect import options as shared
from masque_connect.dns_report import describe_dns, dns_lines
from masque_connect.render import SCHEMA_VERSION, Live, print_json_line, rates, remark
from masque_connect.routing import add_routing
from masque_connect.running import run_until_signal


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `up` to the command line."""
    parser = commands.add_parser(
        "up",
        help="open a tunnel for IP packets",
        description="Open a CONNECT-IP tunnel: a TUN device with the addresses and routes that the proxy assigns. "
        "Needs CAP_NET_ADMIN. Everything is undone when it ends.",
    )
    parser.add_argument("proxy", metavar="HOST|URL", help="a host to discover, or a URI template")
    parser.add_argument("--foreground", action="store_true", help="run until Ctrl-C, without the agent")
    parser.add_argument("--interface", default="masque%d", metavar="NAME", help="name of the TUN device")
    parser.add_argument("--no-offload", action="store_true", help="move packets through the TUN device one by one")
    shared.add_choice(
        parser,
        "--address-request",
        default=AddressRequestMode.AUTO,
        text="when to ask the proxy for addresses (default: auto: after waiting half a second for them)",
    )
    parser.add_argument(
        "--give-up-after",
        type=_patience,
        metavar="SECONDS|never",
        help="how long a lost tunnel may try to come back, while nothing leaves outside of it; 0 ends it at once "
        "(default: never)",
    )
    add_routing(parser)
    parser.add_argument(
        "--strict-rules",
        action="store_true",
        help="fail when the proxy's rules say something that routes cannot do, instead of warning",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line and change on stdout")
    shared.add_connection(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Hold the tunnel until interrupted or until it ends."""
    if not options.foreground:
        raise ConfigurationError("there is no background agent yet", hint="add --foreground")
    return run_until_signal(_run(options))


async def _run(options: argparse.Namespace) -> int:
    host = system_network()
    tls, authenticator = shared.tls_configuration(options), shared.authenticator(options)
    tunnel_options = TunnelOptions(
        proxies=await ip_proxies(options.proxy, tls),
        engine=options.engine,
        congestion_control=options.congestion_control,
        http=options.http,
        tls=tls,
        authenticator=authenticator,
        grease=options.grease,
        patience_s=options.timeout,
        give_up_after_s=options.give_up_after,
        refresh_proxies=_refresh(options.proxy, tls),
        interface=options.interface,
        offload=not options.no_offload,
        address_request=options.address_request,
        failover=options.failover,
        unmatched=options.unmatched,
        memory=shared.memory(tls),
        strict_rules=options.strict_rules,
    )

    news = _News(as_json=options.json)

    def announce() -> None:
        news.tell(tunnel.status())

    def on_proxy_failure(proxy: PvdProxy, error: MasqueError) -> None:
        if len(tunnel_options.proxies.candidates) > 1:
            remark(f"{proxy.authority}: {error}")

    tunnel = ConnectIpTunnel(
        tunnel_options, host, MonotonicClock(), on_change=announce, on_proxy_failure=on_proxy_failure
    )
    async with tunnel:
        announce()
        with Live() as live:
            error = await _watch(tunnel, live)
    raise error


def _refresh(proxy: str, tls: TlsConfiguration) -> Callable[[], Awaitable[ProxyChoice]] | None:
    """How to ask for the proxies again while the tunnel is down; None where no document names them."""
    if document_source(proxy) is None:
        return None
    return partial(ip_proxies, proxy, tls, past_tunnels(DEFAULT_FWMARK))


async def _watch(tunnel: ConnectIpTunnel, live: Live) -> MasqueError:
    """Refresh the live line every second until the tunnel ends; returns why."""
    closed = asyncio.ensure_future(tunnel.wait_closed())
    sent = received = 0
    try:
        while not closed.done():
            status = tunnel.status()
            traffic = status.traffic
            if status.outage is None:
                now = rates(traffic.bytes_out - sent, traffic.bytes_in - received, status.connection)
            else:
                now = f"reconnecting, attempt {status.outage.attempt}"
            live.update(f"{status.interface}  {now}  offload {status.offload}")
            sent, received = traffic.bytes_out, traffic.bytes_in
            await asyncio.wait([closed], timeout=1.0)
        return closed.result()
    finally:
        closed.cancel()


class _News:
    """Tells of every change: one JSON line each, or remarks of which none is said twice in a row."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._before: TunnelStatus | None = None

    def tell(self, status: TunnelStatus) -> None:
        """Something has changed: this is how it is now."""
        before, self._before = self._before, status
        if self._as_json:
            print_json_line(describe(status))
        elif status.outage is not None:
            if before is None or before.outage is None or before.outage.reason != status.outage.reason:
                remark(f"the tunnel is down: {status.outage.reason}; reconnecting, and nothing leaves outside of it")
        else:
            self._tell_connected(status, before)

    def _tell_connected(self, status: TunnelStatus, before: TunnelStatus | None) -> None:
        if before is not None and before.outage is not None:
            remark(f"the tunnel is back after {status.down_s:.1f} s")
        if before is not None and (gone := set(before.addresses) - set(status.addresses)):
            remark(f"  the proxy took back {', '.join(sorted(gone))}: connections from there end")
        _introduce(status)


def _introduce(status: TunnelStatus) -> None:
    verified = (
        "no probe came back: not verified" if status.probe_rtt_s is None else f"{status.probe_rtt_s * 1e3:.1f} ms"
    )
    carrier = shared.carrier(status.http_version, status.fallback_reason)
    remark(f"tunnel to {status.proxy} ({status.proxy_address}) over {carrier} with {status.engine}")
    remark(f"  device    {status.interface}, MTU {status.mtu}, offload {status.offload}")
    remark(f"  addresses {', '.join(status.addresses)}")
    remark(f"  routes    {', '.join(status.routes) or 'none advertised'}")
    if status.excluded:
        remark(f"  excluded  {', '.join(status.excluded)}")
    for rule in status.unsupported_rules:
        remark(f"  WARNING   not honoured: {rule}")
    for line in dns_lines(status.dns):
        remark(f"  {line}")
    remark(f"  probe     {verified}")
    remark("  undo      Ctrl-C")


def describe(status: TunnelStatus) -> dict[str, Any]:
    """The JSON form of a status. Fields are only ever added."""
    return {
        "schema_version": SCHEMA_VERSION,
        "state": status.state,
        "reason": None if status.outage is None else status.outage.reason,
        "attempt": None if status.outage is None else status.outage.attempt,
        "reconnects": status.reconnects,
        "down_s": None if status.down_s is None else round(status.down_s, 3),
        "verified": status.probe_rtt_s is not None,
        "proxy": status.proxy,
        "proxy_address": status.proxy_address,
        "http_version": status.http_version,
        "quic_version": version_number(status.connection.quic_version),
        "fallback_reason": status.fallback_reason,
        "engine": status.engine,
        "interface": status.interface,
        "offload": status.offload,
        "addresses": status.addresses,
        "routes": status.routes,
        "excluded_routes": status.excluded,
        "unsupported_rules": status.unsupported_rules,
        "dns": describe_dns(status.dns, applied=False),
        "mtu": {
            "tunnel": status.mtu,
            "path": status.path_mtu,
            "udp_payload": status.connection.max_udp_payload or None,
        },
        "full_ipv6": status.full_ipv6,
        "drops": status.drops,
        "violations": status.violations,
        "liveness": {"silent_s": round(status.liveness.silent_s, 3), "pings": status.liveness.pings},
        "probe_rtt_ms": None if status.probe_rtt_s is None else round(status.probe_rtt_s * 1000, 3),
    }


def _patience(text: str) -> float | None:
    if text == "never":
        return None
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError("is neither a number of seconds nor 'never'")
    return seconds
