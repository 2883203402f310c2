"""A device's MTU, its up and down, and its IPv6 sysctls."""

from __future__ import annotations

import errno
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from pyroute2 import IPRoute

from masque_client.host.state import Ipv6Settings, Link

_IFF_UP: Final = 0x1
_IFF_LOWER_UP: Final = 0x1_0000  # carrier; a TUN device has it while somebody holds it open


def device_index(route: IPRoute, device: str) -> int | None:
    """The device's index, or None when there is no such device."""
    found = route.link_lookup(ifname=device) if device else ()
    return found[0] if found else None


def read_link(route: IPRoute, device: str) -> Link | None:
    """The device as it is, or None."""
    index = device_index(route, device)
    if index is None:
        return None
    message = next(iter(route.get_links(index)))
    return Link(mtu=message.get_attr("IFLA_MTU"), up=bool(message["flags"] & _IFF_UP), ipv6=_read_ipv6(device))


def open_devices(route: IPRoute) -> list[str]:
    """The devices that are up with a carrier: of the TUN devices, those that somebody holds open."""
    wanted = _IFF_UP | _IFF_LOWER_UP
    return [link.get_attr("IFLA_IFNAME") for link in route.get_links() if link["flags"] & wanted == wanted]


def set_link(route: IPRoute, device: str, **values: Any) -> None:
    """Change `mtu` or `state` of a device."""
    index = device_index(route, device)
    if index is None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    route.link("set", index=index, **values)


def write_ipv6(device: str, settings: Ipv6Settings) -> None:
    """Write the sysctls, switching IPv6 on last, so that the device comes up silent."""
    values = asdict(settings)
    for name in sorted(values, key="disable_ipv6".__eq__):
        path = _sysctl(device, name)
        if path.read_text().strip() != str(values[name]):
            path.write_text(f"{values[name]}\n")


def _read_ipv6(device: str) -> Ipv6Settings | None:
    try:
        return Ipv6Settings(*(int(_sysctl(device, name).read_text()) for name in Ipv6Settings.__dataclass_fields__))
    except FileNotFoundError:  # the kernel keeps no IPv6 state under an MTU of 1280, or was built without
        return None


def _sysctl(device: str, name: str) -> Path:
    return Path("/proc/sys/net/ipv6/conf", device, name)
