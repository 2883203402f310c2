"""masque-connect socks --proxy P: a SOCKS5 server for the programs of this machine; UDP through CONNECT-UDP."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
from pathlib import Path

from masque_client.engine.interface import Address
from masque_client.errors import ConfigurationError
from masque_client.netio.clock import MonotonicClock
from masque_client.netio.secret_file import read_secret
from masque_client.sockets.socks5 import SocksServer
from masque_client.sockets.socks5_wire import Credentials
from masque_client.tunnel.route_policy import Unmatched
from masque_connect import options as shared
from masque_connect.commands.udp import show_address, split_authority
from masque_connect.render import SCHEMA_VERSION, Live, print_json_line, rates, remark
from masque_connect.routing import FlowRemarks, Routing, add_routing, open_routing
from masque_connect.running import run_until_signal

_LISTEN_HINT = "write --listen ADDRESS:PORT, such as 127.0.0.1:1080"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `socks` to the command line."""
    parser = commands.add_parser(
        "socks",
        help="a local SOCKS5 server",
        description="Serve SOCKS5 to local programs: UDP (UDP ASSOCIATE) through CONNECT-UDP proxies, each destination "
        "where the proxies' rules say. TCP (CONNECT) is only served for destinations that --unmatched direct sends "
        "past the proxies. Needs no privilege.",
    )
    parser.add_argument("--proxy", required=True, metavar="HOST|URL", help="a host to discover, or a URI template")
    parser.add_argument(
        "--listen", default="127.0.0.1:1080", metavar="ADDR:PORT", help="where (default: 127.0.0.1:1080)"
    )
    parser.add_argument(
        "--auth-file",
        type=Path,
        metavar="FILE",
        help="one line 'user:password' that clients must present; readable by you alone. Required beyond loopback",
    )
    add_routing(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout when ready")
    shared.add_connection(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted."""
    credentials = read_credentials(options.auth_file)
    listen = parse_listen(options.listen, has_credentials=credentials is not None)
    return run_until_signal(_run(options, listen, credentials))


async def _run(options: argparse.Namespace, listen: Address, credentials: Credentials | None) -> int:
    clock = MonotonicClock()
    async with open_routing(options, clock) as routing:
        server = SocksServer(routing.router, clock, credentials=credentials, on_error=FlowRemarks(clock).add)
        try:
            bound = show_address(await server.start(listen))
            names = list(dict.fromkeys(str(proxy.authority) for proxy in routing.choice.candidates))
            remark(f"SOCKS5 on {bound}, UDP through {' or '.join(names)}; stop with Ctrl-C")
            if options.unmatched is Unmatched.DIRECT:
                remark("what the rules leave over, TCP included, goes DIRECTLY, through no proxy")
            if options.json:
                ready = {"schema_version": SCHEMA_VERSION, "state": "ready", "listen": bound}
                print_json_line({**ready, "proxies": names, "unmatched": str(options.unmatched)})
            with Live() as live:
                await _watch(server, routing, live)
        finally:
            await server.close()
    return 0


async def _watch(server: SocksServer, routing: Routing, live: Live) -> None:
    """Refresh the live line every second, for ever: proxies may come back, and the next flow will find out."""
    sent = received = 0
    while True:
        statistics = server.statistics
        traffic = rates(statistics.bytes_out - sent, statistics.bytes_in - received, routing.statistics())
        live.update(f"{server.clients} clients  {traffic}")
        sent, received = statistics.bytes_out, statistics.bytes_in
        await asyncio.sleep(1.0)


def parse_listen(text: str, *, has_credentials: bool) -> Address:
    """`ADDR:PORT`, on loopback unless clients must present credentials.

    Raises:
        ConfigurationError: malformed, or open to others without a password.
    """
    host, port = split_authority(text, _LISTEN_HINT, lowest=0)
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise ConfigurationError(f"{host!r} is no local IP address", hint=_LISTEN_HINT) from error
    if not address.is_loopback and not has_credentials:
        raise ConfigurationError(
            f"{host} can be reached from other machines, which would make you an open proxy",
            hint="use 127.0.0.1 or ::1, or demand a password with --auth-file",
        )
    return str(address), port


def read_credentials(file: Path | None) -> Credentials | None:
    """The line `user:password` of a private file; None without a file.

    Raises:
        ConfigurationError: unreadable, readable by others, or not that line. The message shows none of it.
    """
    if file is None:
        return None
    username, colon, password = read_secret(file).strip().partition(":")
    credentials = Credentials(username.encode(), password.encode())
    if not colon or not all(1 <= len(part) <= 255 for part in credentials):
        raise ConfigurationError(
            f"{file} holds no credentials", hint="write one line 'user:password', each of 1 to 255 bytes (RFC 1929 §2)"
        )
    return credentials
