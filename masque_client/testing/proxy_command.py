"""`python -m masque_client.testing.proxy`: the command line of the test proxy."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from masque_client.engine.interface import Address, EngineName
from masque_client.errors import MasqueError
from masque_client.host import system_network
from masque_client.protocol.dns_capsules import AssignedDns, Nameserver
from masque_client.protocol.nat64 import is_translation_prefix
from masque_client.protocol.scope import IpAddress, IpPrefix
from masque_client.protocol.uri_template import DEFAULT_IP_PATH, DEFAULT_UDP_PATH
from masque_client.testing.addresses import format_address, parse_address
from masque_client.testing.certificates import CertificateAuthority, Credentials
from masque_client.testing.credentials import Authentication
from masque_client.testing.ip_client import ClientNames
from masque_client.testing.misbehave import FAULTS, parse_misbehaviour
from masque_client.testing.proxy import MasqueProxy, ProxyConfiguration

_DESCRIPTION = """\
MASQUE proxy (HTTP/3 and HTTP/2: CONNECT-UDP, CONNECT-IP; PvD document) for DEMOS AND TESTS. Not for production: it
keeps an unencrypted CA key, trusts its options and can be told to break the standards. Prints one JSON line on stdout
when it is ready. CONNECT-IP through a TUN device needs CAP_NET_ADMIN and a kernel that forwards
(net.ipv4.ip_forward=1, net.ipv6.conf.all.forwarding=1); CONNECT-UDP needs no privilege."""


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m masque_client.testing.proxy",
        description=_DESCRIPTION,
        epilog="faults: " + ", ".join(FAULTS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = parser.add_argument_group("where")
    where.add_argument("--listen", action="append", type=parse_address, required=True, metavar="ADDR:PORT")
    where.add_argument("--name", default="localhost", help="host name in templates, certificate and PvD document")
    where.add_argument("--pvd-listen", action="append", type=_address_or_none, default=[], metavar="ADDR:PORT|none")
    where.add_argument("--h2-listen", action="append", type=parse_address, default=[], metavar="ADDR:PORT")
    where.add_argument("--no-http2", action="store_true", help="HTTP/1.1 alone on TCP: the PvD document")
    where.add_argument("--pvd-document", type=Path, metavar="FILE", help="serve this instead of a generated one")
    identity = parser.add_argument_group("identity")
    identity.add_argument("--ca-dir", type=Path, metavar="DIR", help="make a CA and a certificate there")
    identity.add_argument("--certificate", type=Path, metavar="PEM")
    identity.add_argument("--key", type=Path, metavar="PEM")
    identity.add_argument("--auth", default="none", metavar="none|mtls|basic:USER:PASSWORD|bearer:TOKEN")
    identity.add_argument("--auth-status", type=int, choices=[401, 407], default=401)
    identity.add_argument("--client-ca", type=Path, metavar="PEM", help="for --auth mtls; default: the CA of --ca-dir")
    what = parser.add_argument_group("what it offers")
    what.add_argument("--tunnel-types", default="udp,ip", metavar="udp,ip")
    what.add_argument("--udp-path", default=DEFAULT_UDP_PATH, metavar="TEMPLATE", help="path and query")
    what.add_argument("--ip-path", default=DEFAULT_IP_PATH, metavar="TEMPLATE")
    what.add_argument("--pool4", type=_prefix, metavar="PREFIX", help="addresses for CONNECT-IP clients")
    what.add_argument("--pool6", type=_prefix, metavar="PREFIX")
    what.add_argument("--route", action="append", type=_prefix, default=[], metavar="PREFIX", help="advertised")
    what.add_argument("--allow", action="append", type=_prefix, default=[], metavar="PREFIX", help="more UDP targets")
    what.add_argument("--dns", type=_addresses, default=[], metavar="ADDR[,ADDR]", help="a nameserver for the clients")
    what.add_argument("--dns-zone", action="append", metavar="ZONE", help="that it knows; default: every name")
    what.add_argument("--search", action="append", default=[], metavar="DOMAIN", help="for short names")
    what.add_argument("--pref64", action="append", type=_prefix, default=[], metavar="PREFIX", help="NAT64, announced")
    what.add_argument("--tun", default="masqueproxy%d", metavar="NAME|none", help="none discards all IP packets")
    what.add_argument("--no-offload", action="store_true", help="move packets through the TUN device one by one")
    how = parser.add_argument_group("how")
    how.add_argument("--engine", type=EngineName, choices=list(EngineName), default=EngineName.AUTO)
    how.add_argument("--max-udp-payload", type=int, metavar="BYTES", help="default: as the client's first packet")
    how.add_argument("--misbehave", action="append", default=[], metavar="FAULT[=VALUE]")
    how.add_argument("--secrets-log", type=Path, metavar="FILE", help="append TLS secrets, for Wireshark and tshark")
    how.add_argument("--log-level", default="warning", choices=["debug", "info", "warning", "error"])
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM; exit status 0 then, 1 when it could not start, 2 for wrong options."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=options.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    if options.log_level == "warning":
        logging.getLogger("quic").setLevel(logging.ERROR)  # qh3 warns of every client that says goodbye
    try:
        configuration, ready = _configure(options)
    except ValueError as error:
        parser.error(str(error))
    except (MasqueError, OSError) as error:
        return _fail(error)
    try:
        asyncio.run(_run(configuration, ready))
    except (MasqueError, OSError) as error:
        return _fail(error)
    return 0


def _configure(options: argparse.Namespace) -> tuple[ProxyConfiguration, dict[str, Any]]:
    authentication = Authentication.parse(options.auth, options.auth_status)
    types = set(options.tunnel_types.split(","))
    if not types <= {"udp", "ip"}:
        raise ValueError("--tunnel-types takes udp, ip or udp,ip")
    credentials, files = _credentials(options, authentication)
    client_ca = options.client_ca or files.get("ca_file")
    if authentication.scheme == "mtls" and client_ca is None:
        raise ValueError("--auth mtls needs --client-ca or --ca-dir")
    return ProxyConfiguration(
        credentials=credentials,
        listen=options.listen,
        name=options.name,
        pvd_listen=[address for address in options.pvd_listen if address is not None],
        h2_listen=options.h2_listen,
        http2=not options.no_http2,
        pvd_document=options.pvd_document.read_bytes() if options.pvd_document else None,
        udp_path=options.udp_path if "udp" in types else None,
        ip_path=options.ip_path if "ip" in types else None,
        pools=[pool for pool in (options.pool4, options.pool6) if pool is not None],
        routes=options.route,
        names=client_names(options),
        allow=options.allow,
        tun=None if options.tun == "none" or "ip" not in types else options.tun,
        offload=not options.no_offload,
        engine=options.engine,
        authentication=authentication,
        client_ca=client_ca,
        misbehaviour=parse_misbehaviour(options.misbehave),
        max_udp_payload=options.max_udp_payload,
        secrets_log=options.secrets_log,
    ), {name: str(file) for name, file in files.items()}


def _credentials(options: argparse.Namespace, authentication: Authentication) -> tuple[Credentials, dict[str, Path]]:
    """The certificate to use, and the files that clients may need."""
    if options.certificate is not None and options.key is not None:
        return Credentials(options.certificate, options.key), {"certificate": options.certificate}
    if options.ca_dir is None:
        raise ValueError("give --certificate and --key, or --ca-dir to have them made")
    authority = CertificateAuthority.create(options.ca_dir)
    literals = {host for host, _ in options.listen if not ipaddress.ip_address(host).is_unspecified}
    credentials = authority.issue([options.name, *sorted(literals - {options.name})])
    files = {"ca_file": authority.ca_file, "certificate": credentials.certificate}
    if authentication.scheme == "mtls":
        client = authority.issue(["masque-test-client"], client=True)
        files |= {"client_certificate": client.certificate, "client_key": client.key}
    return credentials, files


async def _run(configuration: ProxyConfiguration, ready: dict[str, Any]) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with MasqueProxy(configuration, system_network() if configuration.tun else None) as proxy:
        ready = {
            "ready": "proxy",
            "pid": os.getpid(),
            "engine": proxy.engine,
            "name": configuration.name,
            "listen": [format_address(address) for address in proxy.addresses],
            "pvd": [format_address(address) for address in proxy.pvd.addresses],
            "templates": dict(proxy.templates),
            "tun": proxy.tun.name if proxy.tun else None,
            **ready,
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await stopped.wait()


def client_names(options: argparse.Namespace) -> ClientNames:
    """What --dns, --dns-zone, --search and --pref64 mean: one configuration for all clients.

    Zones without a nameserver are claimed and cannot be resolved.

    Raises:
        ValueError: a name or prefix that clients must refuse.
    """
    v4, v6 = (tuple(address for address in options.dns if address.version == version) for version in (4, 6))
    nameservers = (Nameserver(1, v4, v6),) if options.dns else ()
    zones = tuple(options.dns_zone) if options.dns_zone is not None else (("",) if options.dns else ())
    assigned = AssignedDns(nameservers, zones, tuple(options.search))
    if problem := assigned.find_problem():
        raise ValueError(problem)
    if bad := [prefix for prefix in options.pref64 if prefix.version == 4 or not is_translation_prefix(prefix)]:
        raise ValueError(f"{bad[0]} cannot be a NAT64 prefix")
    return ClientNames((assigned,) if assigned != AssignedDns() else (), tuple(options.pref64))


def _addresses(text: str) -> list[IpAddress]:
    return [ipaddress.ip_address(address) for address in text.split(",")]


def _prefix(text: str) -> IpPrefix:
    return ipaddress.ip_network(text)


def _address_or_none(text: str) -> Address | None:
    return None if text == "none" else parse_address(text)


def _fail(error: Exception) -> int:
    sys.stderr.write(f"error: {error}\n")
    if isinstance(error, MasqueError):
        sys.stderr.write(f"hint: {error.hint}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
