"""The pure parts: what a wish may say, whose numbers are whose, and the order of changes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest

from masque_client.errors import ConfigurationError
from masque_client.host.identity import (
    PROTOCOL,
    SLOTS,
    TunnelIdentity,
    slot_of_priority,
    slot_of_table,
)
from masque_client.host.interface import HostConfiguration
from masque_client.host.plan import plan
from masque_client.host.state import IPV6_OFF, IPV6_SILENT, HostState, Link, desired_state

WISH = HostConfiguration(
    device="masque0",
    mtu=1400,
    addresses=(ip_interface("192.0.2.1/24"), ip_interface("2001:db8::1/64")),
    routes=(ip_network("0.0.0.0/0"), ip_network("::/0")),
)


@pytest.mark.parametrize("mtu", [0, 67, 65_536])
def test_an_impossible_mtu_is_refused(mtu: int) -> None:
    with pytest.raises(ConfigurationError, match="MTU"):
        replace(WISH, mtu=mtu)


@pytest.mark.parametrize("route", ["127.0.0.0/8", "127.0.0.1/32", "::1/128"])
def test_a_route_into_loopback_is_refused(route: str) -> None:
    with pytest.raises(ConfigurationError, match="loopback"):
        replace(WISH, routes=(ip_network(route),))


@pytest.mark.parametrize("hole", ["127.0.0.0/8", "::1/128"])
def test_loopback_stays_reachable(hole: str) -> None:
    with pytest.raises(ConfigurationError, match="loopback"):
        replace(WISH, unreachable=(ip_network(hole),))


def test_a_destination_cannot_be_both_in_the_tunnel_and_unreachable() -> None:
    with pytest.raises(ConfigurationError, match="::/0 cannot both enter"):
        replace(WISH, unreachable=(ip_network("10.0.0.0/8"), ip_network("::/0")))


@pytest.mark.parametrize("mark", [0, -1, 1 << 32])
def test_a_mark_that_marks_nothing_is_refused(mark: int) -> None:
    with pytest.raises(ConfigurationError, match="firewall mark"):
        replace(WISH, fwmark=mark)


@pytest.mark.parametrize(
    ("mtu", "addresses", "families"),
    [
        (1400, "192.0.2.1 2001:db8::1", {4, 6}),
        (1280, "2001:db8::1", {6}),
        (1279, "192.0.2.1 2001:db8::1", {4}),
        (1279, "2001:db8::1", set()),
        (1400, "", set()),
    ],
)
def test_a_family_needs_an_address_and_ipv6_its_mtu(mtu: int, addresses: str, families: set[int]) -> None:
    wish = replace(WISH, mtu=mtu, addresses=tuple(ip_interface(address) for address in addresses.split()))
    assert wish.usable_families == families
    assert {route.destination.version for route in desired_state(wish).routes} == families
    link = desired_state(wish).link
    assert link is not None
    assert link.ipv6 == (IPV6_SILENT if 6 in families else IPV6_OFF)


def test_neighbouring_devices_have_numbers_of_their_own() -> None:
    identities = [TunnelIdentity.of(f"masque{number}") for number in range(200)]
    assert len({identity.table for identity in identities}) == 200
    priorities = [
        identity.priority(n, full=full) for identity in identities for n in range(4) for full in (True, False)
    ]
    assert len(set(priorities)) == 1600
    assert all(0 < priority < 32766 for priority in priorities)


@pytest.mark.parametrize("device", ["masque0", "masque999", "tun", "7", "x-1.2"])
def test_numbers_lead_back_to_their_tunnel(device: str) -> None:
    identity = TunnelIdentity.of(device)
    assert slot_of_table(identity.table) == identity.slot < SLOTS
    for full in (True, False):
        assert {slot_of_priority(identity.priority(n, full=full)) for n in range(4)} == {identity.slot}


@pytest.mark.parametrize("priority", [0, 19_999, 24_000, 24_999, 29_000, 32_766])
def test_other_priorities_are_nobodys(priority: int) -> None:
    assert slot_of_priority(priority) is None


@pytest.mark.parametrize("table", [0, 254, 51_820, 0x4D51_0000 - 1, 0x4D51_0000 + SLOTS])
def test_other_tables_are_nobodys(table: int) -> None:
    assert slot_of_table(table) is None


def test_our_protocol_number_fits_its_field() -> None:
    assert 4 < PROTOCOL < 256, "0 to 4 are the kernel's own (RTPROT_STATIC and below)"


def test_new_things_are_there_before_old_ones_go() -> None:
    old = desired_state(WISH)
    new = desired_state(
        replace(WISH, addresses=(ip_interface("192.0.2.2"),), routes=(ip_network("10.0.0.0/8"),), mtu=1300)
    )
    assert [str(change) for change in plan(old, new)] == [
        "set the MTU to 1300",
        "set IPv6 off",
        "add address 192.0.2.2/32",
        "add route 10.0.0.0/8",
        "add rule IPv4 20238: not fwmark 0x4d51 lookup 1297154107",
        "remove rule IPv6 25238: not fwmark 0x4d51 lookup 1297154107",
        "remove rule IPv4 25238: not fwmark 0x4d51 lookup 1297154107",
        "remove rule IPv6 25237: lookup main suppress_prefixlength 0",
        "remove rule IPv4 25237: lookup main suppress_prefixlength 0",
        "remove route 0.0.0.0/0",
        "remove route ::/0",
        "remove address 192.0.2.1/32",
        "remove address 2001:db8::1/128",
    ]


def test_a_wish_fulfilled_needs_nothing() -> None:
    state = desired_state(WISH)
    assert plan(state, state) == []


def test_the_link_goes_down_last() -> None:
    down = HostState(Link(1500, up=False, ipv6=None))
    words = [str(change) for change in plan(desired_state(WISH), down)]
    assert words[-2:] == ["set the link down", "set the MTU to 1500"]
    assert words[0].startswith("remove rule")
