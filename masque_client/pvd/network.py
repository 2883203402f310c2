"""The provisioning domain that a network announces, and its document: `ra`, `ra_socket` and `fetch` in one call.

Everything goes through that network (RFC 8801 §4.1, §7): the names are asked of the resolvers it advertised, the
document is fetched over its interface. For showing to people; `trust.NetworkPvdTrust` guards every other use.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv6Address

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype

from masque_client.engine.interface import Address, TlsConfiguration
from masque_client.errors import NameResolutionError, PvdError, TimedOut
from masque_client.netio.resolver import Resolve
from masque_client.pvd.discover import Discovery, discover
from masque_client.pvd.fetch import DEFAULT_OPTIONS, FetchOptions
from masque_client.pvd.ra import RouterAdvertisement
from masque_client.pvd.ra_socket import RouterAdvertisementSocket
from masque_client.pvd.source import PvdSource

LISTEN_TIMEOUT_S = 10.0
QUERY_TIMEOUT_S = 2.0
DNS_PORT = 53


@dataclass(frozen=True, slots=True)
class NetworkDiscovery:
    """What one network says.

    Attributes:
        interface: where it was heard.
        advertisement: the first one with a PvD option; `pvd` is not None.
        found: the document; None when the network says that there is none (the H flag).
    """

    interface: str
    advertisement: RouterAdvertisement
    found: Discovery | None


async def discover_network(
    interface: str,
    *,
    tls: TlsConfiguration | None = None,
    options: FetchOptions = DEFAULT_OPTIONS,
    timeout_s: float = LISTEN_TIMEOUT_S,
) -> NetworkDiscovery:
    """Ask the routers of a link for their PvD and fetch its document at once, because a person is waiting.

    Raises:
        PrivilegeError, ConfigurationError, HostError: see `RouterAdvertisementSocket`.
        TimedOut: no router answered.
        PvdError: the routers name no PvD, or its document is unusable.
        MasqueError: else as `fetch_pvd`.
    """
    advertisement = await _listen(interface, timeout_s)
    option = advertisement.pvd
    if option is None:
        raise PvdError(
            f"the network at {interface} names no provisioning domain", hint="name a host instead: discover HOST"
        )
    if not option.has_document:
        return NetworkDiscovery(interface, advertisement, None)
    options = replace(
        options,
        interface=interface,
        ra_prefixes=advertisement.prefixes,
        resolve=resolve_through(interface, advertisement.resolvers),
    )
    # Not cached: an entry would have to belong to this attachment to the network, which no name tells apart.
    found = await discover(PvdSource.well_known(option.pvd_id), tls=tls, options=options)
    return NetworkDiscovery(interface, advertisement, found)


async def _listen(interface: str, timeout_s: float) -> RouterAdvertisement:
    """The first advertisement with a PvD, or the last one without when the time is over."""
    heard: RouterAdvertisement | None = None
    with RouterAdvertisementSocket(interface) as listener:
        listener.solicit()
        try:
            async with asyncio.timeout(timeout_s):
                while heard is None or heard.pvd is None:
                    heard = await listener.receive()
        except TimeoutError as error:
            if heard is None:
                raise TimedOut(
                    f"no router advertisement at {interface} within {timeout_s:g} s", hint="the link has no IPv6 router"
                ) from error
    return heard


def resolve_through(interface: str, resolvers: Sequence[IPv6Address]) -> Resolve:
    """A `Resolve` that asks only these servers, through this interface."""

    async def resolve(host: str, port: int) -> Sequence[Address]:
        if not resolvers:
            raise NameResolutionError(f"the network at {interface} advertises no resolver to ask for {host}")
        for resolver in resolvers:
            try:
                addresses = await asyncio.to_thread(_query, host, resolver, interface)
            except (dns.exception.DNSException, OSError):
                continue
            if not addresses:
                raise NameResolutionError(f"{host} has no addresses, says the resolver {resolver}")
            return [(address, port) for address in addresses]
        raise NameResolutionError(f"no resolver of the network at {interface} answers for {host}")

    return resolve


def _query(host: str, resolver: IPv6Address, interface: str) -> list[str]:
    addresses = []
    for kind in (dns.rdatatype.AAAA, dns.rdatatype.A):
        question = dns.message.make_query(host, kind)
        # With its scope a link-local server is found at all; others ignore it.
        server = f"{resolver}%{interface}" if resolver.is_link_local else str(resolver)
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as bound:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            answer = dns.query.udp(question, server, timeout=QUERY_TIMEOUT_S, port=DNS_PORT, sock=bound)
        if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise OSError(f"the resolver answers {dns.rcode.to_text(answer.rcode())}")
        addresses += [record.address for rrset in answer.answer if rrset.rdtype == kind for record in rrset]
    return addresses
