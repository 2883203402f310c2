"""A link with a router whose advertisements tests write: client veth ── veth router."""

from __future__ import annotations

import socket
import sys

from masque_client.pvd.ra import ROUTER_SOLICITATION
from masque_client.pvd.ra_socket import RouterAdvertisementSocket
from masque_client.testing.netns import Lab, Namespace
from tests.vectors.ra import RA_HEADER

PATIENCE_S = 60


class Link:
    """The two ends, and the router's raw socket."""

    def __init__(self, lab: Lab) -> None:
        self.client: Namespace = lab.namespace("client")
        router = lab.namespace("router")
        prefixes = ("2001:db8:", "2001:db8:cafe:")
        lab.link(self.client, [f"{p}:1/64" for p in prefixes], router, [f"{p}:53/64" for p in prefixes])
        self.interface = _veth(self.client)
        with router.entered():
            self.socket = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
            self.index = socket.if_nametoindex(_veth(router))
        self.router = router
        self.socket.settimeout(PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        membership = socket.inet_pton(socket.AF_INET6, "ff02::2") + self.index.to_bytes(4, sys.byteorder)
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)

    def advertise(self, *options: bytes, hop_limit: int = 255) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hop_limit)
        self.socket.sendto(RA_HEADER + b"".join(options), ("ff02::1", 0, 0, self.index))

    def await_solicitation(self) -> int:
        """Block until a program on the client solicits, and give the hop limit."""
        while True:
            message, ancillary, _, _ = self.socket.recvmsg(1000, 100)
            if message[0] == ROUTER_SOLICITATION and len(message) == 8:  # the kernel's own carry an option
                return int.from_bytes(ancillary[0][2], sys.byteorder)

    def listen(self) -> RouterAdvertisementSocket:
        with self.client.entered():
            return RouterAdvertisementSocket(self.interface)


def _veth(namespace: Namespace) -> str:
    return next(str(link["ifname"]) for link in namespace.ip("link") if link["ifname"] != "lo")
