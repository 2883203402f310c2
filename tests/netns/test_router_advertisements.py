"""Real router advertisements over a veth pair: client veth ── veth router.

Nothing here is forged: the router's messages leave a raw socket of its own namespace, and the client's kernel checks
their checksum and hop limit as it would on any link.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv6Network

import pytest

from masque_client.errors import ConfigurationError, HostError, PrivilegeError
from masque_client.pvd.ra import ROUTER_SOLICITATION, RouterAdvertisement
from masque_client.pvd.ra_socket import RouterAdvertisementSocket
from masque_client.testing.netns import Lab, Namespace
from tests.vectors.ra import OTHER_PREFIX, R1, R2, RA_HEADER

pytestmark = pytest.mark.netns
PATIENCE_S = 20


class Link:
    """The two ends, and the router's raw socket."""

    def __init__(self, lab: Lab) -> None:
        self.client: Namespace = lab.namespace("client")
        router = lab.namespace("router")
        lab.link(self.client, ["2001:db8::1/64"], router, ["2001:db8::2/64"])
        self.interface = _veth(self.client)
        with router.entered():
            self.socket = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
            self.index = socket.if_nametoindex(_veth(router))
        self.socket.settimeout(PATIENCE_S)

    def advertise(self, *options: bytes, hop_limit: int = 255) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hop_limit)
        self.socket.sendto(RA_HEADER + b"".join(options), ("ff02::1", 0, 0, self.index))

    def listen(self) -> RouterAdvertisementSocket:
        with self.client.entered():
            return RouterAdvertisementSocket(self.interface)


def _veth(namespace: Namespace) -> str:
    return next(str(link["ifname"]) for link in namespace.ip("link") if link["ifname"] != "lo")


@pytest.fixture
def link(lab: Lab) -> Iterator[Link]:
    link = Link(lab)
    with link.socket:
        yield link


def receive(listener: RouterAdvertisementSocket) -> RouterAdvertisement:
    return asyncio.run(asyncio.wait_for(listener.receive(), PATIENCE_S))


def test_an_advertisement_is_read_with_its_pvd(link: Link) -> None:
    with link.listen() as listener:
        link.advertise(R2, OTHER_PREFIX)
        found = receive(listener)
    assert found.router.is_link_local
    assert found.pvd is not None and (found.pvd.pvd_id, found.pvd.sequence_number) == ("example.org", 123)
    assert set(found.prefixes) == {IPv6Network("2001:db8:cafe::/64"), IPv6Network("2001:db8:f00d::/64")}


def test_what_was_forwarded_and_what_is_broken_is_dropped(link: Link) -> None:
    with link.listen() as listener:
        link.advertise(R2, hop_limit=254)
        link.advertise(b"\3\0" + bytes(6))
        link.advertise(R1)
        found = receive(listener)
    assert found.pvd is not None and found.pvd.pvd_id == "cafe.example.com"


def test_routers_are_asked_to_speak(link: Link) -> None:
    with link.listen() as listener:
        link.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        membership = socket.inet_pton(socket.AF_INET6, "ff02::2") + link.index.to_bytes(4, sys.byteorder)
        link.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
        listener.solicit()
        while True:
            message, ancillary, _, _ = link.socket.recvmsg(1000, 100)
            if message[0] == ROUTER_SOLICITATION and len(message) == 8:  # the kernel's own carry an option
                break
    assert int.from_bytes(ancillary[0][2], sys.byteorder) == 255


def test_an_interface_without_ipv6_cannot_be_asked(link: Link) -> None:
    with link.listen() as listener:
        link.client.sysctl(f"net.ipv6.conf.{link.interface}.disable_ipv6", 1)
        with pytest.raises(HostError, match="cannot ask"):
            listener.solicit()


def test_an_unknown_interface() -> None:
    with pytest.raises(ConfigurationError, match="no interface nowhere0"):
        RouterAdvertisementSocket("nowhere0")


def test_without_the_privilege_the_error_says_so() -> None:
    """In a process of its own, which gives up being root."""
    program = (
        "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "from masque_client.pvd.ra_socket import RouterAdvertisementSocket as S\n"
        "S('lo')\n"
    )
    # Everything is imported before the user changes, who may not be able to read this checkout.
    program = f"import {PrivilegeError.__module__}, masque_client.pvd.ra_socket\n" + program
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "PrivilegeError: reading router advertisements needs CAP_NET_RAW" in ended.stderr
