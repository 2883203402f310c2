"""Addresses on the device."""

from __future__ import annotations

from ipaddress import ip_interface
from socket import AF_INET, AF_INET6
from typing import Any, Final, Literal

from pyroute2 import IPRoute

from masque_client.host.interface import Interface

_IFA_F_NODAD: Final = 0x02
_IFA_F_NOPREFIXROUTE: Final = 0x200
_SCOPE_LINK: Final = 253


def read_addresses(route: IPRoute, index: int) -> frozenset[Interface]:
    """What the device carries; link-local addresses are the kernel's own doing and left out."""
    return frozenset(
        ip_interface((message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"), message["prefixlen"]))
        for message in route.get_addr(index=index)
        if message["scope"] < _SCOPE_LINK
    )


def change_address(route: IPRoute, verb: Literal["add", "remove"], index: int, address: Interface) -> None:
    """Add or remove one.

    Nobody else can have our address, so IPv6 needs no duplicate detection (RFC 9484 §7.1), and a route to ourselves
    needs no copy in the main table.
    """
    options: dict[str, Any] = (
        {"flags": _IFA_F_NODAD | _IFA_F_NOPREFIXROUTE} if address.version == 6 and verb == "add" else {}
    )
    route.addr(
        "add" if verb == "add" else "del",
        family=AF_INET if address.version == 4 else AF_INET6,
        index=index,
        address=str(address.ip),
        prefixlen=address.network.prefixlen,
        **options,
    )
