"""What the wishes mean for traffic, on the real kernel.

client 192.0.2.1 ── 192.0.2.254 router 198.51.100.254 ── 198.51.100.1 proxy       and the same in IPv6
masque0 10.9.0.1
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from masque_client.errors import PrivilegeError
from masque_client.host.interface import DEFAULT_FWMARK, HostConfiguration, OuterFlow
from masque_client.host.linux.network import LinuxHostNetwork
from masque_client.netio.tun import TunDevice
from masque_client.netio.udp import UdpSocket
from masque_client.testing.netns import CommandFailed, Lab, Namespace

pytestmark = pytest.mark.netns

DEADLINE_S = 60.0
MARK = f"{DEFAULT_FWMARK:#x}"
FULL = HostConfiguration(
    device="masque0",
    mtu=1400,
    addresses=(ip_interface("10.9.0.1/32"), ip_interface("2001:db8:9::1/128")),
    routes=(ip_network("0.0.0.0/0"), ip_network("::/0")),
)


@dataclass
class Site:
    client: Namespace
    proxy: Namespace
    network: LinuxHostNetwork
    tun: TunDevice

    def device_to(self, destination: str, *arguments: str) -> str:
        return str(self.client.route_to(destination, *arguments)["dev"])


@pytest.fixture
def site(lab: Lab) -> Iterator[Site]:
    client, router, proxy = lab.namespace("client"), lab.namespace("router"), lab.namespace("proxy")
    lab.link(client, ["192.0.2.1/24", "2001:db8:1::1/64"], router, ["192.0.2.254/24", "2001:db8:1::254/64"])
    lab.link(router, ["198.51.100.254/24", "2001:db8:2::254/64"], proxy, ["198.51.100.1/24", "2001:db8:2::1/64"])
    router.set_forwarding()
    for host, gateway, gateway6 in [
        (client, "192.0.2.254", "2001:db8:1::254"),
        (proxy, "198.51.100.254", "2001:db8:2::254"),
    ]:
        host.add_route("default", via=gateway)
        host.add_route("default", via=gateway6)
    with client.entered():
        tun, network = TunDevice.open("masque0"), LinuxHostNetwork()
        yield Site(client, proxy, network, tun)
        network.close()
        tun.close()


def test_only_the_marked_socket_stays_outside(site: Site) -> None:
    site.network.apply(FULL)
    for far, near in [("203.0.113.5", "192.0.2.77"), ("2001:db8:5::5", "2001:db8:1::77")]:
        assert site.device_to(far) == "masque0"
        assert site.device_to(far, "mark", MARK) == "veth0"
        assert site.device_to(near) == "veth0", "a directly attached network stays reachable"
    assert site.client.route_to("203.0.113.5")["prefsrc"] == "10.9.0.1"
    assert site.client.route_to("2001:db8:5::5")["prefsrc"] == "2001:db8:9::1"
    site.network.restore()
    assert site.device_to("203.0.113.5") == "veth0"
    assert site.device_to("2001:db8:5::5") == "veth0"


def test_a_split_tunnel_takes_its_destinations_only(site: Site) -> None:
    site.network.apply(replace(FULL, routes=(ip_network("203.0.113.0/24"), ip_network("2001:db8:5::/48"))))
    assert site.device_to("203.0.113.5") == site.device_to("2001:db8:5::5") == "masque0"
    assert site.device_to("203.0.114.5") == site.device_to("2001:db8:6::5") == "veth0"
    assert site.device_to("203.0.113.5", "mark", MARK) == "veth0"


def test_restore_leaves_the_machine_as_it_was(site: Site) -> None:
    site.tun.close()
    before = site.client.snapshot()
    tun = TunDevice.open("masque0")
    site.network.apply(replace(FULL, block_ipv4=True, block_ipv6=True))
    assert len(before.difference(site.client.snapshot())) >= 10
    site.network.restore()
    tun.close()
    assert before.difference(site.client.snapshot()) == []


def test_a_silent_device_has_no_address_of_its_own_making(site: Site) -> None:
    site.network.apply(FULL)
    [link] = site.client.ip("address", "show", "dev", "masque0")
    assert [address["local"] for address in link["addr_info"]] == ["10.9.0.1", "2001:db8:9::1"]
    assert not any("tentative" in address for address in link["addr_info"])


def test_packets_of_a_full_tunnel_come_out_of_the_device(site: Site) -> None:
    site.network.apply(FULL)
    for family, target in [(socket.AF_INET, "203.0.113.5"), (socket.AF_INET6, "2001:db8:5::5")]:
        with socket.socket(family, socket.SOCK_DGRAM) as program:
            program.sendto(b"through the tunnel", (target, 9))
        [packet] = site.tun.read_batch()
        assert packet.endswith(b"through the tunnel")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_blocked_family_fails_at_once(site: Site, family: socket.AddressFamily) -> None:
    target = "203.0.113.5" if family == socket.AF_INET else "2001:db8:5::5"
    keep = 6 if family == socket.AF_INET else 4
    site.network.apply(
        replace(
            FULL,
            addresses=tuple(address for address in FULL.addresses if address.version == keep),
            block_ipv4=keep == 6,
            block_ipv6=keep == 4,
        )
    )
    with socket.socket(family, socket.SOCK_STREAM) as program, pytest.raises(OSError) as caught:
        program.connect((target, 443))
    assert caught.value.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH)
    assert site.device_to(target, "mark", MARK) == "veth0"


def test_the_block_holds_when_the_tunnel_dies(site: Site) -> None:
    site.network.apply(replace(FULL, block_ipv4=True, block_ipv6=True))
    site.tun.close()
    for target in ("203.0.113.5", "2001:db8:5::5"):
        with pytest.raises(CommandFailed, match=r"No route to host|unreachable"):
            site.client.route_to(target)
    assert site.network.clean_up() == [], "a block that this process holds is no leftover"
    site.network.restore()
    assert site.device_to("203.0.113.5") == "veth0"


@pytest.mark.parametrize("strict", [0, 1], ids=["rp_filter=0", "rp_filter=1"])
def test_the_proxys_answers_pass_the_reverse_path_filter(site: Site, strict: int) -> None:
    for scope in ("all", "veth0"):
        site.client.sysctl(f"net.ipv4.conf.{scope}.rp_filter", strict)
    with site.proxy.entered():
        proxy = UdpSocket.bound(("198.51.100.1", 443))
    outer = UdpSocket.connected(proxy.local_address, mark=DEFAULT_FWMARK)
    site.network.apply(FULL)

    def exchange() -> bool:
        """True when the answer arrives, False when the filter counts it."""
        filtered = filtered_packets()
        outer.send_batch([(b"question", proxy.local_address)])
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            proxy.send_batch([(b"answer", source) for _, source in proxy.receive_datagrams()])
            if outer.receive_batch():
                return True
            if filtered_packets() > filtered:
                return False
        raise AssertionError("neither an answer nor a filtered packet")

    assert exchange() is not bool(strict), "without the exemption a strict filter drops the answer"
    site.network.apply(replace(FULL, outer_flows=(OuterFlow("udp", outer.local_address, proxy.local_address),)))
    assert exchange()
    host, port = outer.local_address
    assert site.device_to("198.51.100.1", "from", host) == "masque0", "the exemption is for the flow, not for the host"
    selector = ("from", host, "ipproto", "udp", "sport", str(port), "dport")
    assert site.device_to("198.51.100.1", *selector, "443") == "veth0"
    assert site.device_to("198.51.100.1", *selector, "444") == "masque0"
    outer.close()
    proxy.close()


def filtered_packets() -> int:
    """Packets that reverse-path filtering dropped in this thread's namespace."""
    lines = Path("/proc/thread-self/net/netstat").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("TcpExt:"))
    return int(values[names.index("IPReversePathFilter")])


def test_it_works_inside_a_running_event_loop(site: Site) -> None:
    async def program() -> None:
        site.network.apply(FULL)
        await asyncio.to_thread(site.network.apply, replace(FULL, mtu=1300))

    asyncio.run(program())
    assert Path("/proc/sys/net/ipv6/conf/masque0/mtu").read_text().strip() == "1300"


def test_two_tunnels_do_not_disturb_each_other(site: Site) -> None:
    site.network.apply(FULL)
    before = site.client.snapshot()
    second_tun, second = TunDevice.open("masque1"), LinuxHostNetwork()
    second.apply(
        HostConfiguration(
            "masque1", 1400, (ip_interface("10.8.0.1/32"),), (ip_network("203.0.113.0/24"),), block_ipv6=True
        )
    )
    assert site.device_to("203.0.113.5") == "masque1", "some destinations go before all"
    assert site.device_to("203.0.114.5") == "masque0"
    assert second.clean_up() == site.network.clean_up() == []
    second.restore()
    second.close()
    second_tun.close()
    assert before.difference(site.client.snapshot()) == []


def test_a_killed_process_leaves_only_what_clean_up_removes(site: Site) -> None:
    site.tun.close()
    before = site.client.snapshot()
    program = textwrap.dedent(
        """
        import sys, time
        from ipaddress import ip_interface, ip_network
        from masque_client.host.interface import HostConfiguration
        from masque_client.host.linux.network import LinuxHostNetwork
        from masque_client.netio.tun import TunDevice
        tun, network = TunDevice.open("masque%d"), LinuxHostNetwork()
        default = ip_network("0.0.0.0/0")
        network.apply(HostConfiguration(tun.name, 1400, (ip_interface("10.9.0.1"),), (default,), block_ipv6=True))
        print("applied", flush=True)
        time.sleep(600)
        """
    )
    process = site.client.spawn(sys.executable, "-c", program, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"applied\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert any("rules" in line for line in before.difference(site.client.snapshot()))
    assert site.network.clean_up()
    assert before.difference(site.client.snapshot()) == []


def test_foreign_rules_and_routes_are_left_alone(site: Site) -> None:
    site.client.ip("rule", "add", "priority", "20238", "fwmark", "7", "table", "77")
    site.client.ip("rule", "add", "priority", "25238", "protocol", "static", "table", "77")
    site.client.ip("route", "add", "unreachable", "203.0.113.0/24", "table", "77", "protocol", "77")
    before = site.client.snapshot()
    site.network.apply(replace(FULL, block_ipv4=True))
    site.network.restore()
    site.network.clean_up()
    assert [line for line in before.difference(site.client.snapshot()) if "links" not in line] == []


def test_missing_privilege_names_the_change(site: Site) -> None:
    child = os.fork()
    if child == 0:  # only this child gives up root
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            LinuxHostNetwork().apply(FULL)
        except PrivilegeError as error:
            code = 0 if "could not set the MTU to 1400 on masque0" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_thousand_routes_and_one_more(site: Site) -> None:
    thousand = tuple(ip_network((0x0B00_0000 + (number << 8), 24)) for number in range(1000))
    site.network.apply(replace(FULL, routes=thousand))
    assert site.device_to("11.0.0.9") == site.device_to("11.3.231.9") == "masque0"
    assert site.device_to("11.3.232.9") == "veth0"
    changed = replace(FULL, routes=(*thousand[1:], ip_network("12.0.0.0/8")))
    assert site.network.plan(changed) == ["add route 12.0.0.0/8", "remove route 11.0.0.0/24"]
    site.network.apply(changed)
    assert site.device_to("11.0.0.9") == "veth0"
