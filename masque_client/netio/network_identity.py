"""Which network this machine is on, as a value that is the same next time and says nothing to others.

A network is its default gateways: interface, address and, for IPv4, the link-layer address, because every home is
192.168.1.1. IPv6 gateways are link-local addresses, which are as good as link-layer ones.
"""

from __future__ import annotations

import hashlib
import socket
import struct
from pathlib import Path

_PROC_NET = Path("/proc/net")
_RTF_UP, _RTF_GATEWAY, _RTF_REJECT = 0x1, 0x2, 0x200
_NOT_RESOLVED = "00:00:00:00:00:00"


def network_identity(proc_net: Path = _PROC_NET) -> str | None:
    """32 hexadecimal digits, or None: no default route, or its gateway has not been talked to yet.

    None is no network: whoever remembers things by network must neither look up nor store anything then.
    """
    try:
        gateways = [*_ipv4_gateways(proc_net), *_ipv6_gateways(proc_net)]
    except (OSError, ValueError, IndexError):
        return None
    if not gateways or any(link_address == _NOT_RESOLVED for *_, link_address in gateways):
        return None
    text = "\n".join(" ".join(gateway) for gateway in sorted(set(gateways)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _ipv4_gateways(proc_net: Path) -> list[tuple[str, str, str]]:
    """`(interface, address, link-layer address)`."""
    neighbours = {}
    for line in (proc_net / "arp").read_text().splitlines()[1:]:
        fields = line.split()
        neighbours[fields[0], fields[-1]] = fields[3].lower()
    gateways = []
    for line in (proc_net / "route").read_text().splitlines()[1:]:
        interface, destination, gateway, flags, *_, mask, _, _, _ = line.split()
        if int(destination, 16) or int(mask, 16) or not _is_usable(int(flags, 16)):
            continue
        address = socket.inet_ntoa(struct.pack("=I", int(gateway, 16)))
        has_gateway = int(flags, 16) & _RTF_GATEWAY
        link_address = neighbours.get((address, interface), _NOT_RESOLVED) if has_gateway else "-"
        gateways.append((interface, address, link_address))
    return gateways


def _ipv6_gateways(proc_net: Path) -> list[tuple[str, str, str]]:
    gateways = []
    path = proc_net / "ipv6_route"
    for line in path.read_text().splitlines() if path.exists() else []:
        destination, length, _, _, gateway, _, _, _, flags, interface = line.split()
        if int(destination, 16) == 0 and int(length, 16) == 0 and _is_usable(int(flags, 16)):
            gateways.append((interface, socket.inet_ntop(socket.AF_INET6, bytes.fromhex(gateway)), "-"))
    return gateways


def _is_usable(flags: int) -> bool:
    return bool(flags & _RTF_UP) and not flags & _RTF_REJECT
