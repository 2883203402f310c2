"""Networks told apart by their gateways, from the kernel's tables."""

from __future__ import annotations

from pathlib import Path

from masque_client.netio.network_identity import network_identity

ARP = """IP address       HW type     Flags       HW address            Mask     Device
192.168.1.1      0x1         0x2         {mac}     *        {interface}
192.168.1.7      0x1         0x2         02:00:00:00:00:77     *        wlan0
"""
ROUTE = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
{interface}\t00000000\t0101A8C0\t{flags}\t0\t0\t600\t00000000\t0\t0\t0
{interface}\t0001A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\t0\t0\t0
"""
ZEROS = "0" * 32
IPV6_DEFAULT = f"{ZEROS} 00 {ZEROS} 00 fe80000000000000020000fffe000001 00000400 00000002 00000000 00000003     wlan0\n"
IPV6_UNREACHABLE = f"{ZEROS} 00 {ZEROS} 00 {ZEROS} ffffffff 00000001 00000000 00200200       lo\n"


def tables(
    directory: Path, *, mac: str = "02:00:00:00:00:01", interface: str = "wlan0", flags: str = "0003", ipv6: str = ""
) -> Path:
    (directory / "arp").write_text(ARP.format(mac=mac, interface=interface))
    (directory / "route").write_text(ROUTE.format(interface=interface, flags=flags))
    (directory / "ipv6_route").write_text(ipv6)
    return directory


def test_the_same_network_has_the_same_name(tmp_path: Path) -> None:
    name = network_identity(tables(tmp_path))
    assert name is not None
    assert len(name) == 32
    assert network_identity(tables(tmp_path)) == name


def test_every_part_of_a_gateway_counts(tmp_path: Path) -> None:
    names = [
        network_identity(tables(tmp_path)),
        network_identity(tables(tmp_path, mac="02:00:00:00:00:02")),
        network_identity(tables(tmp_path, interface="eth0")),
        network_identity(tables(tmp_path, ipv6=IPV6_DEFAULT)),
    ]
    assert None not in names
    assert len(set(names)) == len(names)


def test_routes_that_lead_nowhere_do_not_count(tmp_path: Path) -> None:
    assert network_identity(tables(tmp_path, ipv6=IPV6_UNREACHABLE)) == network_identity(tables(tmp_path))
    assert network_identity(tables(tmp_path, flags="0000", ipv6=IPV6_DEFAULT)) is not None
    assert network_identity(tables(tmp_path, flags="0000")) is None


def test_a_gateway_not_yet_talked_to_is_no_network(tmp_path: Path) -> None:
    assert network_identity(tables(tmp_path, mac="00:00:00:00:00:00")) is None


def test_tables_that_cannot_be_read_are_no_network(tmp_path: Path) -> None:
    assert network_identity(tmp_path) is None
    tables(tmp_path)
    (tmp_path / "route").write_text("header\nnonsense\n")
    assert network_identity(tmp_path) is None


def test_a_link_without_a_gateway_is_its_interface(tmp_path: Path) -> None:
    assert network_identity(tables(tmp_path, flags="0001")) is not None


def test_the_real_tables_are_understood() -> None:
    name = network_identity()
    assert name is None or len(name) == 32
