"""The Linux adapter: `HostNetwork` on the kernel of this machine, through netlink.

pyroute2's synchronous interface runs an event loop of its own and refuses to work in a thread that already runs one
("This event loop is already running"). So one worker thread holds the netlink socket and makes every call; the
caller may be an asyncio program or not. The worker starts with the first call and lives in the network namespace of
the thread that made it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Interface, IPv6Interface
from typing import TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from masque_client.host.identity import TunnelIdentity
from masque_client.host.interface import HostConfiguration
from masque_client.host.linux.addresses import change_address, read_addresses
from masque_client.host.linux.links import device_index, open_devices, read_link, set_link, write_ipv6
from masque_client.host.linux.routes import change_route, read_routes, slots_with_routes
from masque_client.host.linux.rules import change_rule, read_rules, slots_with_rules
from masque_client.host.plan import Change, Entry, SetIpv6, SetMtu, SetUp
from masque_client.host.reconcile import Kernel, ReconcilingNetwork
from masque_client.host.state import HostState, Route, Rule

T = TypeVar("T")


class LinuxKernel:
    """The `Kernel` of the network namespace in which it was made. Use it in a thread without an event loop."""

    def __init__(self) -> None:
        self._route = IPRoute(strict_check=True)

    def observe(self, identity: TunnelIdentity) -> HostState:
        """See `Kernel.observe`."""
        return _translated(lambda: self._observe(identity))

    def perform(self, identity: TunnelIdentity, change: Change) -> None:
        """See `Kernel.perform`."""
        _translated(lambda: self._perform(identity, change))

    def dead_tunnels(self) -> Sequence[TunnelIdentity]:
        """See `Kernel.dead_tunnels`."""
        used = _translated(lambda: slots_with_rules(self._route) | slots_with_routes(self._route))
        alive = {TunnelIdentity.of(device).slot for device in _translated(lambda: open_devices(self._route))}
        return [TunnelIdentity.gone(slot) for slot in sorted(used - alive)]

    def close(self) -> None:
        """Close the netlink socket."""
        self._route.close()

    def _observe(self, identity: TunnelIdentity) -> HostState:
        index = device_index(self._route, identity.device)
        return HostState(
            link=read_link(self._route, identity.device),
            addresses=frozenset() if index is None else read_addresses(self._route, index),
            routes=read_routes(self._route, identity.table),
            rules=read_rules(self._route, identity.slot),
        )

    def _perform(self, identity: TunnelIdentity, change: Change) -> None:
        match change:
            case SetMtu(mtu):
                set_link(self._route, identity.device, mtu=mtu)
            case SetUp(up):
                set_link(self._route, identity.device, state="up" if up else "down")
            case SetIpv6(settings):
                write_ipv6(identity.device, settings)
            case Entry(verb, Route() as route):
                change_route(self._route, verb, identity.table, self._index(identity, verb), route)
            case Entry(verb, Rule() as rule):
                change_rule(self._route, verb, rule)
            case Entry(verb, IPv4Interface() | IPv6Interface() as address):
                index = self._index(identity, "add")
                assert index is not None
                change_address(self._route, verb, index, address)

    def _index(self, identity: TunnelIdentity, verb: str) -> int | None:
        index = device_index(self._route, identity.device)
        if index is None and verb == "add":
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return index


class LinuxHostNetwork:
    """`HostNetwork` on the kernel. Safe in a thread that runs an event loop."""

    def __init__(self, kernel: Callable[[], Kernel] = LinuxKernel) -> None:
        self._make_kernel = kernel
        self._network: ReconcilingNetwork | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="netlink")

    def apply(self, configuration: HostConfiguration) -> None:
        """See `HostNetwork.apply`."""
        self._call(lambda network: network.apply(configuration))

    def plan(self, configuration: HostConfiguration) -> Sequence[str]:
        """See `HostNetwork.plan`."""
        return self._call(lambda network: network.plan(configuration))

    def observe(self, device: str) -> HostState:
        """See `HostNetwork.observe`."""
        return self._call(lambda network: network.observe(device))

    def restore(self) -> None:
        """See `HostNetwork.restore`."""
        self._call(lambda network: network.restore())

    def clean_up(self) -> Sequence[str]:
        """See `HostNetwork.clean_up`."""
        return self._call(lambda network: network.clean_up())

    def close(self) -> None:
        """See `HostNetwork.close`. Harmless when repeated; no other call may follow."""
        if self._network is not None:
            self._call(lambda network: network.close())
            self._network = None
        self._worker.shutdown()

    def _call(self, action: Callable[[ReconcilingNetwork], T]) -> T:
        return self._worker.submit(lambda: action(self._opened())).result()

    def _opened(self) -> ReconcilingNetwork:
        if self._network is None:
            self._network = ReconcilingNetwork(self._make_kernel())
        return self._network


def _translated(action: Callable[[], T]) -> T:
    """Netlink's refusals as OSError, which is what they are."""
    try:
        return action()
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code)) from error
