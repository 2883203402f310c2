"""What a session's state asks of this machine: from assignments, advertisements and rules to a `HostConfiguration`.

Pure: the manager asks after every piece of news, and the host applies the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_interface

from masque_client.errors import PvdError
from masque_client.host.interface import HostConfiguration, Interface, Network, OuterFlow
from masque_client.host.state import is_default_in_disguise
from masque_client.protocol.ip_capsules import to_prefixes
from masque_client.protocol.ip_session import ConnectIpSession
from masque_client.pvd.proxies import PvdProxy
from masque_client.tunnel.options import TunnelOptions
from masque_client.tunnel.route_policy import RoutePolicy, Unmatched, route_policy


def host_addresses(session: ConnectIpSession, interface_id: int) -> list[Interface]:
    """One host address of every assigned prefix, alone on its link: what is around it only routes may say.

    `interface_id`: 64 random bits for IPv6 prefixes of /64 and shorter, the same for the tunnel's life.
    """
    hosts = [assigned.host_address(interface_id) for assigned in session.assigned]
    return [ip_interface(host) for host in hosts if host is not None]


def advertised_prefixes(session: ConnectIpSession) -> list[Network]:
    """What the proxy advertises, as prefixes, without those that must never leave this machine or link."""
    return [prefix for prefix in to_prefixes(session.routes) if not (prefix.is_loopback or prefix.is_link_local)]


def wish(
    device: str,
    mtu: int,
    addresses: Sequence[Interface],
    advertised: Sequence[Network],
    proxy: PvdProxy,
    options: TunnelOptions,
    outer: OuterFlow,
) -> tuple[HostConfiguration, RoutePolicy]:
    """The host network to apply, and what the proxy's rules made of its routes.

    Raises:
        PvdError: the rules leave nothing of the routes, or say what routes cannot express and that must not be ignored.
    """
    usable = HostConfiguration(device=device, mtu=mtu, addresses=tuple(addresses)).usable_families
    policy = _judge([route for route in advertised if route.version in usable], proxy, options)
    unreachable = policy.excluded if options.unmatched is Unmatched.BLOCK else ()
    is_full_tunnel = any(is_default_in_disguise(route) for route in (*policy.tunnel, *unreachable))
    configuration = HostConfiguration(
        device=device,
        mtu=mtu,
        addresses=tuple(address for address in addresses if address.version in usable),
        routes=policy.tunnel,
        unreachable=unreachable,
        # A full tunnel of one family must not let the other one leak past it.
        block_ipv4=is_full_tunnel and 4 not in usable,
        block_ipv6=is_full_tunnel and 6 not in usable,
        outer_flows=(outer,),
    )
    return configuration, policy


def _judge(advertised: list[Network], proxy: PvdProxy, options: TunnelOptions) -> RoutePolicy:
    """What the rules let into the tunnel."""
    policy = route_policy(advertised, proxy, options.proxies.proxies, options.proxies.rules)
    if policy.unsupported and options.strict_rules:
        raise PvdError(
            "; ".join(map(str, policy.unsupported)), hint="leave out --strict-rules to tunnel in spite of it"
        )
    if advertised and not policy.tunnel:
        raise PvdError(
            f"the rules let nothing that {proxy.authority.host} advertises into the tunnel",
            hint="see the rules: masque-connect discover HOST",
        )
    return policy
