"""Real router advertisements over a veth pair: client veth ── veth router.

Nothing here is forged: the router's messages leave a raw socket of its own namespace, and the client's kernel checks
their checksum and hop limit as it would on any link.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv6Network

import pytest

from masque_client.errors import ConfigurationError, HostError, PrivilegeError
from masque_client.pvd.ra import RouterAdvertisement
from masque_client.pvd.ra_socket import RouterAdvertisementSocket
from masque_client.testing.netns import Lab
from tests.netns.router import PATIENCE_S, Link
from tests.vectors.ra import OTHER_PREFIX, R1, R2

pytestmark = pytest.mark.netns


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
        listener.solicit()
        assert link.await_solicitation() == 255


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
