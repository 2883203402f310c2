"""A kernel in memory, for tests of everything above `host` and for looking at what would happen.

It copies the habits of Linux that matter here: under an MTU of 1280, or with disable_ipv6, a device loses its IPv6; the
last IPv4 address takes the device's IPv4 routes along; a deleted device takes its routes, while rules and
unreachable routes stay. `tests/host` walks the same list of wishes over this and over the real one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from masque_client.host.identity import TunnelIdentity
from masque_client.host.interface import MIN_IPV6_MTU, Interface
from masque_client.host.plan import Change, Entry, SetIpv6, SetMtu, SetUp
from masque_client.host.reconcile import ReconcilingNetwork
from masque_client.host.state import HostState, Ipv6Settings, Link, Route, RouteKind, Rule

NEW_DEVICE = Link(mtu=1500, up=False, ipv6=Ipv6Settings(0, 1, 1, -1, 0))
"""A TUN device as the kernel makes it."""


@dataclass(slots=True)
class _Device:
    link: Link = NEW_DEVICE
    addresses: set[Interface] = field(default_factory=set)


class FakeKernel:
    """Devices, addresses, routes and rules as values.

    Attributes:
        performed: every change that was made, in order.
        refusal: return an errno to refuse a change, None to allow it.
    """

    def __init__(self, *devices: str) -> None:
        self.performed: list[Change] = []
        self.refusal: Callable[[Change], int | None] = lambda change: None
        self._devices = {device: _Device() for device in devices}
        self._routes: dict[int, set[Route]] = {}
        self._rules: dict[int, set[Rule]] = {}

    def delete_device(self, device: str) -> None:
        """What the end of a process does to its TUN device."""
        del self._devices[device]
        routes = self._routes.get(TunnelIdentity.of(device).slot, set())
        routes -= {route for route in routes if route.kind is RouteKind.TUNNEL}

    # --- Kernel ---------------------------------------------------------------------------------------------------

    def observe(self, identity: TunnelIdentity) -> HostState:
        """See `Kernel.observe`."""
        device = self._devices.get(identity.device)
        return HostState(
            link=device.link if device else None,
            addresses=frozenset(device.addresses if device else ()),
            routes=frozenset(self._routes.get(identity.slot, ())),
            rules=frozenset(self._rules.get(identity.slot, ())),
        )

    def perform(self, identity: TunnelIdentity, change: Change) -> None:
        """See `Kernel.perform`."""
        if code := self.refusal(change):
            raise OSError(code, os.strerror(code))
        if isinstance(change, Entry):
            self._change_entry(identity, change)
        else:
            self._change_link(identity, change)
        self.performed.append(change)

    def dead_tunnels(self) -> Sequence[TunnelIdentity]:
        """See `Kernel.dead_tunnels`."""
        used = {slot for table in (self._routes, self._rules) for slot, entries in table.items() if entries}
        alive = {TunnelIdentity.of(device).slot for device in self._devices}
        return [TunnelIdentity.gone(slot) for slot in sorted(used - alive)]

    def close(self) -> None:
        """See `Kernel.close`."""

    def _change_link(self, identity: TunnelIdentity, change: SetMtu | SetUp | SetIpv6) -> None:
        device = self._device(identity)
        match change:
            case SetUp(up):
                device.link = replace(device.link, up=up)
                if not up:
                    self._lose_routes(identity, 4)
                    self._lose_routes(identity, 6)
                    device.addresses -= {address for address in device.addresses if address.version == 6}
            case SetMtu(mtu):
                ipv6 = None if mtu < MIN_IPV6_MTU else device.link.ipv6 or NEW_DEVICE.ipv6
                device.link = replace(device.link, mtu=mtu, ipv6=ipv6)
            case SetIpv6(settings):
                device.link = replace(device.link, ipv6=settings)
        if device.link.ipv6 is None or device.link.ipv6.disable_ipv6:
            device.addresses -= {address for address in device.addresses if address.version == 6}
            self._lose_routes(identity, 6)

    def _change_entry(self, identity: TunnelIdentity, change: Entry) -> None:
        entries: set[Interface] | set[Route] | set[Rule]
        match change.item:
            case Route():
                entries = self._routes.setdefault(identity.slot, set())
            case Rule():
                entries = self._rules.setdefault(identity.slot, set())
            case _:
                entries = self._device(identity).addresses
        if (change.item in entries) == (change.verb == "add"):
            code = errno.EEXIST if change.verb == "add" else errno.ENOENT
            raise OSError(code, os.strerror(code))
        entries.symmetric_difference_update({change.item})  # type: ignore[arg-type]
        device = self._devices.get(identity.device)
        lost_address = change.verb == "remove" and not isinstance(change.item, Route | Rule)
        if device and lost_address and not any(address.version == 4 for address in device.addresses):
            self._lose_routes(identity, 4)

    def _lose_routes(self, identity: TunnelIdentity, version: int) -> None:
        routes = self._routes.get(identity.slot, set())
        routes -= {route for route in routes if route.kind is RouteKind.TUNNEL and route.destination.version == version}

    def _device(self, identity: TunnelIdentity) -> _Device:
        if identity.device not in self._devices:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return self._devices[identity.device]


class FakeHostNetwork(ReconcilingNetwork):
    """A `HostNetwork` that changes nothing but `kernel`."""

    def __init__(self, *devices: str) -> None:
        self.kernel = FakeKernel(*devices)
        super().__init__(self.kernel)
