"""From what the proxy says about names to what this machine is to do about them, so that no query leaks.

A pure function: the same assignment, routes and policy give an equal configuration, and a changed one is applied as a
whole. The rules are those of draft-ietf-masque-connect-ip-dns-06 §3.5 and §5; where it is silent, the stricter reading.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address, IPv6Network

from masque_client.host.dns import DnsClaim, DnsConfiguration, DnsTransport, Resolver, UnclaimedNames
from masque_client.protocol.dns_capsules import DnsAssignment, Nameserver, Pref64
from masque_client.protocol.domain_names import is_within
from masque_client.protocol.scope import IpAddress, IpPrefix

MAX_SEARCH_DOMAINS = 6
MAX_SEARCH_CHARACTERS = 256
"""What resolvers have always taken (resolv.conf(5)); a proxy must not make every short name a dozen queries."""

_ENCRYPTED = frozenset(DnsTransport) - {DnsTransport.PLAIN}
_DOH = frozenset({DnsTransport.HTTPS_2, DnsTransport.HTTPS_3})


class DnsFromProxy(StrEnum):
    """How far the user trusts the proxy with names."""

    OFF = "off"
    """Not at all: whatever it assigns is ignored."""
    SPLIT = "split"
    """With the names that it claims."""
    FULL = "full"
    """With all names: what it does not claim is not resolved."""


@dataclass(frozen=True, slots=True)
class ProxyOrigin:
    """The proxy as its certificate proves it, and the protocol of the connection that carries the tunnel."""

    host: str
    port: int
    transport: DnsTransport = DnsTransport.HTTPS_3


def plan_dns(
    dns: DnsAssignment,
    pref64: Pref64,
    *,
    policy: DnsFromProxy,
    routes: Collection[IpPrefix],
    proxy: ProxyOrigin | None = None,
    zones: Sequence[str] = (),
    supported: Collection[DnsTransport] = frozenset(DnsTransport),
) -> DnsConfiguration:
    """What to do about names while this is what the proxy says.

    Args:
        dns, pref64: the session's current state.
        policy: the user's word.
        routes: what is installed for the tunnel now. Only through them does a query in plain text stay inside.
        proxy: to recognise DoH on the proxy itself.
        zones: `dnsZones` of the proxy's PvD document, canonical (RFC 8801 §4.3). They claim names only together with
            nameservers that the proxy assigned without domains of their own; otherwise a document would do what only
            DNS_ASSIGN may.
        supported: what the host can speak.

    Returns:
        An empty configuration with `DnsFromProxy.OFF`.
    """
    if policy is DnsFromProxy.OFF:
        return DnsConfiguration()
    remarks = [*dns.ignored, *pref64.ignored]
    usable = _Usable(frozenset(supported), routes, proxy, remarks)
    claims = _claims(dns, zones, usable, remarks)
    return DnsConfiguration(
        claims=claims,
        unclaimed=UnclaimedNames.BLOCK if policy is DnsFromProxy.FULL else UnclaimedNames.SYSTEM,
        search_domains=_search_domains(dns, remarks),
        nat64_prefixes=_nat64_prefixes(pref64.prefixes, routes, remarks),
        remarks=tuple(dict.fromkeys(remarks)),
    )


def _claims(dns: DnsAssignment, zones: Sequence[str], usable: _Usable, remarks: list[str]) -> tuple[DnsClaim, ...]:
    """Every claimed domain once, with the resolvers of all configurations that claim it."""
    claimed: dict[str, list[Resolver]] = {}
    without_domains: list[Nameserver] = []
    for configuration in dns.configurations:
        if not configuration.internal_domains:
            without_domains += configuration.nameservers
        resolvers = usable.resolvers(configuration.nameservers) if configuration.internal_domains else []
        for domain in configuration.internal_domains:
            claimed.setdefault(domain, []).extend(resolvers)
    unclaimed_zones = [zone for zone in zones if not any(is_within(zone, domain) for domain in claimed)]
    if without_domains:
        resolvers = usable.resolvers(without_domains)
        claimed |= {zone: list(resolvers) for zone in unclaimed_zones}
        if not unclaimed_zones:
            remarks.append(f"no domain is assigned to {_list(without_domains)}")
    elif unclaimed_zones:
        remarks.append(f"no nameserver is assigned for {_list(unclaimed_zones)}, named by the PvD document")
    return tuple(
        DnsClaim(domain, tuple(sorted(dict.fromkeys(resolvers), key=lambda resolver: resolver.priority)))
        for domain, resolvers in claimed.items()
    )


@dataclass(frozen=True, slots=True)
class _Usable:
    """Decides how a nameserver may be asked, if at all."""

    supported: frozenset[DnsTransport]
    routes: Collection[IpPrefix]
    proxy: ProxyOrigin | None
    remarks: list[str]

    def resolvers(self, nameservers: Iterable[Nameserver]) -> list[Resolver]:
        found = []
        for nameserver in nameservers:
            if (resolver := self._encrypted(nameserver) or self._plain(nameserver)) is not None:
                found.append(resolver)
            else:
                self.remarks.append(f"the nameserver {nameserver} cannot be asked safely")
        return found

    def _encrypted(self, nameserver: Nameserver) -> Resolver | None:
        """By the transports that it lists and we have; its routes do not matter, since nobody can read along."""
        parameters = nameserver.parameters
        if not nameserver.name:
            return None
        transports = tuple(
            DnsTransport(id)
            for id in dict.fromkeys(parameters.alpn)
            if id in _ENCRYPTED & self.supported and (id not in _DOH or parameters.doh_path)
        )
        if not transports:
            return None
        is_doh = not _DOH.isdisjoint(transports)
        return Resolver(
            nameserver.priority,
            transports,
            nameserver.addresses,
            parameters.port,
            nameserver.name,
            parameters.doh_path if is_doh else None,
            self._is_proxy(nameserver, transports),
        )

    def _is_proxy(self, nameserver: Nameserver, transports: Collection[DnsTransport]) -> bool:
        port = nameserver.parameters.port or DnsTransport.HTTPS_3.default_port
        proxy = self.proxy
        return (
            proxy is not None
            and (nameserver.name, port) == (proxy.host, proxy.port)
            and proxy.transport in _DOH.intersection(transports)
        )

    def _plain(self, nameserver: Nameserver) -> Resolver | None:
        """Only for a server that has nothing better for us, allows it, and is inside the tunnel."""
        parameters = nameserver.parameters
        if parameters.no_default_alpn or DnsTransport.PLAIN not in self.supported:
            return None
        addresses = tuple(address for address in nameserver.addresses if self._is_inside(address))
        if not addresses:
            return None
        # RFC 9461 lets `port` move every transport; a server with both kinds cannot have both on one.
        port = None if parameters.alpn else parameters.port
        return Resolver(nameserver.priority, (DnsTransport.PLAIN,), addresses, port)

    def _is_inside(self, address: IpAddress) -> bool:
        """Whether a default route would really lead to `address`: some addresses never leave this machine or link."""
        is_mapped = isinstance(address, IPv6Address) and address.ipv4_mapped is not None  # IPv4 to the kernel
        never_routed = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
        return not (is_mapped or never_routed) and any(address in route for route in self.routes)


def _search_domains(dns: DnsAssignment, remarks: list[str]) -> tuple[str, ...]:
    names = list(dict.fromkeys(name for configuration in dns.configurations for name in configuration.search_domains))
    kept = names[:MAX_SEARCH_DOMAINS]
    while len(" ".join(kept)) > MAX_SEARCH_CHARACTERS:
        kept.pop()
    if len(kept) < len(names):
        remarks.append(f"only the first {len(kept)} of {len(names)} search domains are used")
    return tuple(kept)


def _nat64_prefixes(
    prefixes: Iterable[IPv6Network], routes: Collection[IpPrefix], remarks: list[str]
) -> tuple[IPv6Network, ...]:
    """Those that the tunnel carries: an address made from another would leave outside of it."""
    kept = []
    for prefix in prefixes:
        if any(isinstance(route, IPv6Network) and prefix.subnet_of(route) for route in routes):
            kept.append(prefix)
        else:
            remarks.append(f"no route leads to the NAT64 prefix {prefix}")
    return tuple(kept)


def _list(items: Iterable[object]) -> str:
    return ", ".join(map(str, items))
