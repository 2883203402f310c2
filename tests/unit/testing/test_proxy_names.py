"""What the test proxy tells its CONNECT-IP clients of DNS and NAT64."""

from __future__ import annotations

import argparse
import asyncio
from ipaddress import IPv6Network, ip_address

import pytest

from masque_client.engine.interface import EngineName
from masque_client.protocol.dns_capsules import AssignedDns, DnsAssignment, Nameserver, Pref64
from masque_client.protocol.ip_session import DnsAssigned, Pref64Assigned, RoutesAdvertised
from masque_client.testing.certificates import CertificateAuthority
from masque_client.testing.ip_client import ClientNames
from masque_client.testing.proxy_command import build_parser, client_names
from tests.unit.testing.proxy_client import bench

NAT64 = IPv6Network("64:ff9b::/96")


def server(*addresses: str) -> Nameserver:
    parsed = [ip_address(address) for address in addresses]
    return Nameserver(
        1,
        tuple(address for address in parsed if address.version == 4),
        tuple(address for address in parsed if address.version == 6),
    )


@pytest.mark.parametrize("engine", [EngineName.AIOQUIC, EngineName.QH3])
def test_names_are_assigned_behind_the_routes(authority: CertificateAuthority, engine: EngineName) -> None:
    names = ClientNames((AssignedDns((server("10.80.0.53"),), ("corp.example",), ("corp.example",)),), (NAT64,))

    async def scenario() -> None:
        async with bench(authority, engine, names=names) as running:
            tunnel = await running.open_ip()
            assert (await tunnel.event(DnsAssigned)).dns == DnsAssignment(names.dns)
            assert (await tunnel.event(Pref64Assigned)).pref64 == Pref64((NAT64,))

    asyncio.run(scenario())


def test_nothing_is_told_unless_asked_for(authority: CertificateAuthority) -> None:
    async def scenario() -> None:
        async with bench(authority) as running:
            tunnel = await running.open_ip()
            await tunnel.event(RoutesAdvertised)
            running.proxy.listener.close()
            await tunnel.ended()
            told = [tunnel.events.get_nowait() for _ in range(tunnel.events.qsize())]
            assert not [event for event in told if isinstance(event, (DnsAssigned, Pref64Assigned))]

    asyncio.run(scenario())


# --- options ---


def parse(*options: str) -> argparse.Namespace:
    return build_parser().parse_args(["--listen", "127.0.0.1:0", *options])


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ClientNames()),
        (["--dns", "10.0.0.53,fd00::53"], ClientNames((AssignedDns((server("10.0.0.53", "fd00::53"),), ("",)),))),
        (
            [
                "--dns",
                "10.0.0.53",
                "--dns-zone",
                "corp.example",
                "--dns-zone",
                "lab.example",
                "--search",
                "corp.example",
            ],
            ClientNames((AssignedDns((server("10.0.0.53"),), ("corp.example", "lab.example"), ("corp.example",)),)),
        ),
        (["--dns-zone", "corp.example"], ClientNames((AssignedDns((), ("corp.example",)),))),
        (["--pref64", "64:ff9b::/96"], ClientNames((), (NAT64,))),
    ],
)
def test_options(options: list[str], names: ClientNames) -> None:
    assert client_names(parse(*options)) == names


@pytest.mark.parametrize(
    "options", [["--dns-zone=-corp"], ["--search="], ["--pref64", "fd00::/33"], ["--pref64", "10.0.0.0/8"]]
)
def test_options_that_say_nothing_sensible(options: list[str]) -> None:
    with pytest.raises(ValueError, match=r"domain|NAT64"):
        client_names(parse(*options))
