"""What is, or should be, on the machine for one tunnel: plain values that can be compared.

`desired_state` turns a wish into such values. It is pure; the kernel side reads the same values back.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_interface, ip_network
from typing import Final

from masque_client.host.identity import MAIN_TABLE, TunnelIdentity
from masque_client.host.interface import Family, HostConfiguration, Interface, Network, OuterFlow

FAMILIES: Final[tuple[Family, Family]] = (4, 6)

DEFAULT_ROUTES: Final[dict[Family, Network]] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}

DEFAULT_IN_DISGUISE: Final[dict[Family, int]] = {4: 7, 6: 3}
"""Routes up to this prefix length count as default routes: 0.0.0.0/1 and 128.0.0.0/1, or 2000::/3, are the same wish,
and "everything but one address" (RFC 9484 §4.7.3 ranges) begins with a /1."""

BLOCK_METRIC: Final = 1_000_000
"""An unreachable default yields to a default route through the tunnel, and takes over when that one goes."""


@dataclass(frozen=True, slots=True)
class Ipv6Settings:
    """The device's IPv6 sysctls: nobody behind a TUN answers router solicitations (RFC 9484 §7.1: no SLAAC, no ND)."""

    disable_ipv6: int
    accept_ra: int
    autoconf: int
    router_solicitations: int
    addr_gen_mode: int

    def __str__(self) -> str:
        return "off" if self.disable_ipv6 else "on, " + ("silent" if self == IPV6_SILENT else "as by default")


IPV6_SILENT: Final = Ipv6Settings(disable_ipv6=0, accept_ra=0, autoconf=0, router_solicitations=0, addr_gen_mode=1)
IPV6_OFF: Final = Ipv6Settings(disable_ipv6=1, accept_ra=0, autoconf=0, router_solicitations=0, addr_gen_mode=1)


@dataclass(frozen=True, slots=True)
class Link:
    """The device. `ipv6` is None while the kernel keeps no IPv6 state for it (MTU under 1280); in a wish: as it is."""

    mtu: int
    up: bool
    ipv6: Ipv6Settings | None


class RouteKind(StrEnum):
    """Into the tunnel, or nowhere."""

    TUNNEL = "unicast"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Route:
    """An entry of the tunnel's table."""

    destination: Network
    kind: RouteKind = RouteKind.TUNNEL

    def __str__(self) -> str:
        return f"{'' if self.kind is RouteKind.TUNNEL else self.kind + ' '}{self.destination}"


class RuleKind(StrEnum):
    """What a policy rule of ours does."""

    EXEMPT_FLOW = "exempt-flow"
    """The outer connection, recognised by its addresses and ports: jump to `AFTER`."""
    KEEP_LOCAL = "keep-local"
    """The main table's routes, its default route excepted."""
    TUNNEL = "tunnel"
    """Everything without the mark: look into the tunnel's table."""
    AFTER = "after"
    """Does nothing; the target of `EXEMPT_FLOW`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy rule. KEEP_LOCAL and TUNNEL have a `table`, TUNNEL a `fwmark`, EXEMPT_FLOW a `target` and a `flow`."""

    family: Family
    priority: int
    kind: RuleKind
    table: int | None = None
    fwmark: int | None = None
    target: int | None = None
    flow: OuterFlow | None = None

    def __str__(self) -> str:
        where = f"IPv{self.family} {self.priority}:"
        match self.kind:
            case RuleKind.TUNNEL:
                return f"{where} not fwmark {self.fwmark:#x} lookup {self.table}"
            case RuleKind.KEEP_LOCAL:
                return f"{where} lookup main suppress_prefixlength 0"
            case RuleKind.AFTER:
                return f"{where} nop"
            case RuleKind.EXEMPT_FLOW:
                assert self.flow is not None
                protocol, local, (remote, port) = self.flow.protocol, self.flow.local, self.flow.remote
                source, sport = ("", "") if local is None else (f"from {local[0]} ", f"sport {local[1]} ")
                return f"{where} {source}to {remote} ipproto {protocol} {sport}dport {port} goto {self.target}"


@dataclass(frozen=True, slots=True)
class HostState:
    """All of one tunnel's. `link` is None when the device does not exist."""

    link: Link | None
    addresses: frozenset[Interface] = frozenset()
    routes: frozenset[Route] = frozenset()
    rules: frozenset[Rule] = frozenset()


def desired_state(configuration: HostConfiguration) -> HostState:
    """What the machine looks like when the wish is fulfilled."""
    usable = configuration.usable_families
    blocked = blocked_families(configuration)
    addresses = {ip_interface(address.ip) for address in configuration.addresses if address.version in usable}
    routes = {Route(network) for network in configuration.routes if network.version in usable}
    routes |= {Route(network, RouteKind.UNREACHABLE) for network in configuration.unreachable}
    routes |= {Route(DEFAULT_ROUTES[family], RouteKind.UNREACHABLE) for family in blocked}
    rules = {rule for family in FAMILIES for rule in _rules(configuration, family, routes)}
    return HostState(
        link=Link(configuration.mtu, up=True, ipv6=IPV6_SILENT if 6 in usable else IPV6_OFF),
        addresses=frozenset(addresses),
        routes=frozenset(routes),
        rules=frozenset(rules),
    )


def is_default_in_disguise(network: Network) -> bool:
    """Whether a prefix is a default route, or so short that it is meant as one."""
    return network.prefixlen <= DEFAULT_IN_DISGUISE[network.version]


def blocked_families(configuration: HostConfiguration) -> frozenset[Family]:
    """The families whose other traffic must not leave."""
    blocks = {4: configuration.block_ipv4, 6: configuration.block_ipv6}
    return frozenset(family for family in FAMILIES if blocks[family])


def _rules(configuration: HostConfiguration, family: Family, routes: set[Route]) -> list[Rule]:
    """The rules of one family, none when it has no route."""
    destinations = [route.destination for route in routes if route.destination.version == family]
    if not destinations:
        return []
    identity = TunnelIdentity.of(configuration.device)
    full = any(map(is_default_in_disguise, destinations))
    flow_at, local_at, tunnel_at, after_at = (identity.priority(position, full=full) for position in range(4))
    rules = [Rule(family, tunnel_at, RuleKind.TUNNEL, table=identity.table, fwmark=configuration.fwmark)]
    if full:
        rules.append(Rule(family, local_at, RuleKind.KEEP_LOCAL, table=MAIN_TABLE))
    flows = [flow for flow in configuration.outer_flows if family == 4 and ":" not in flow.remote[0]]
    if flows:  # for IPv4 only: the kernel filters no reverse paths in IPv6
        rules.append(Rule(family, after_at, RuleKind.AFTER))
        rules += [Rule(family, flow_at, RuleKind.EXEMPT_FLOW, target=after_at, flow=flow) for flow in flows]
    return rules
