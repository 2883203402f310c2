"""The test proxy with a real TUN device, from its command line, and a client that is nothing but sessions.

client 192.0.2.1 ───── proxy 192.0.2.2,  TUN 10.89.0.1/24 fd89::1/64
"""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from masque_client.engine.interface import EngineName, TlsConfiguration
from masque_client.http.connector import ConnectOptions, connect
from masque_client.protocol.connect import ip_request_headers
from masque_client.protocol.icmp import compose_echo_request, parse_echo_reply
from masque_client.protocol.ip_session import AddressesAssigned, ConnectIpSession, RoutesAdvertised
from masque_client.protocol.session import Role
from masque_client.protocol.uri_template import IpTemplate
from masque_client.testing.netns import Lab, Namespace
from tests.netns.commands import PATIENCE_S, read_json
from tests.unit.testing.proxy_client import Tunnel

pytestmark = pytest.mark.netns

GATEWAYS = {4: ipaddress.ip_address("10.89.0.1"), 6: ipaddress.ip_address("fd89::1")}
OPTIONS = ["--listen", "192.0.2.2:443", "--name", "192.0.2.2", "--pool4", "10.89.0.0/24", "--pool6", "fd89::/64"]
TAKEN_DEVICE = "eth1"
ROUTES = ["--route", "10.89.0.0/24", "--route", "fd89::/64"]


@pytest.fixture
def lab() -> Iterator[tuple[Namespace, Namespace]]:
    with Lab() as lab:
        client, proxy = lab.namespace("client"), lab.namespace("proxy")
        lab.link(client, ["192.0.2.1/24"], proxy, ["192.0.2.2/24"], names=("eth0", TAKEN_DEVICE))
        proxy.set_forwarding()
        yield client, proxy


def start(where: Namespace, directory: Path, *options: str) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    command = [sys.executable, "-m", "masque_client.testing.proxy", *OPTIONS, *ROUTES, "--ca-dir", str(directory)]
    process = where.spawn(*command, *options, stdout=subprocess.PIPE)
    return process, read_json(process)


async def ping(tunnel: Tunnel, destination: Any, size: int) -> bytes:
    """Send one echo request of `size` bytes from our address; returns the packet that comes back."""
    source = next(
        entry.prefix.network_address for entry in tunnel.session.assigned if entry.prefix.version == destination.version
    )
    data = bytes(size - (28 if destination.version == 4 else 48))
    request = compose_echo_request(source.packed, destination.packed, 7, 1, data)
    outcome = tunnel.session.encapsulate([request])
    assert outcome.send == [request], tunnel.session.drops
    tunnel.send(request)
    return await tunnel.payload()


def drain(tunnel: Tunnel) -> list[bytes]:
    return [tunnel.payloads.get_nowait() for _ in range(tunnel.payloads.qsize())]


@pytest.mark.parametrize("engine", [EngineName.AIOQUIC, EngineName.QH3])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_packets_reach_the_kernel_and_nothing_stays(
    lab: tuple[Namespace, Namespace], tmp_path: Path, engine: EngineName, number: signal.Signals
) -> None:
    client, proxy = lab
    before = proxy.snapshot()
    process, ready = start(proxy, tmp_path, "--engine", engine)

    async def talk() -> None:
        tls = TlsConfiguration(ca_file=Path(ready["ca_file"]))
        connection = await connect("192.0.2.2", 443, ConnectOptions(engine=engine, tls=tls))
        tunnel = Tunnel(ConnectIpSession(Role.CLIENT))
        headers = ip_request_headers(IpTemplate.parse(ready["templates"]["connect-ip"]).expand())
        await tunnel.stream.open(connection.http, headers)
        await tunnel.event(AddressesAssigned)
        await tunnel.event(RoutesAdvertised)
        try:
            for gateway in GATEWAYS.values():
                for size in (100, 1280, tunnel.stream.max_payload):
                    answer = await ping(tunnel, gateway, size)
                    reply = parse_echo_reply(answer)
                    assert reply is not None
                    assert reply.source == gateway.packed
                    assert len(answer) == size
        finally:
            connection.close()

    with client.entered():
        asyncio.run(talk())
    process.send_signal(number)
    assert process.wait(PATIENCE_S) == 0
    assert before.difference(proxy.snapshot()) == []


def test_two_clients_reach_each_other(lab: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    """Packets for a client's address go to that client and no other: the kernel routes, the router dispatches."""
    client, proxy = lab
    process, ready = start(proxy, tmp_path)

    async def talk() -> None:
        tls = TlsConfiguration(ca_file=Path(ready["ca_file"]))
        tunnels, connections = [], []
        for _ in range(2):
            connections.append(await connect("192.0.2.2", 443, ConnectOptions(tls=tls)))
            tunnels.append(Tunnel(ConnectIpSession(Role.CLIENT)))
            headers = ip_request_headers(IpTemplate.parse(ready["templates"]["connect-ip"]).expand())
            await tunnels[-1].stream.open(connections[-1].http, headers)
            await tunnels[-1].event(AddressesAssigned)
            await tunnels[-1].event(RoutesAdvertised)
        try:
            one, other = (tunnel.session.assigned[0].prefix.network_address for tunnel in tunnels)
            request = compose_echo_request(one.packed, other.packed, 7, 1, b"hello")
            tunnels[0].send(request)
            received = await tunnels[1].payload()
            assert received[12:20] == request[12:20]
            assert received[8] == request[8] - 1  # the kernel forwarded it
            assert all(packet[16:20] == one.packed for packet in drain(tunnels[0]))  # the kernel's ICMP redirect
        finally:
            for connection in connections:
                connection.close()

    with client.entered():
        asyncio.run(talk())
    process.terminate()
    assert process.wait(PATIENCE_S) == 0


def test_taken_device_is_an_error_that_leaves_nothing(lab: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    _, proxy = lab
    before = proxy.snapshot()
    command = [sys.executable, "-m", "masque_client.testing.proxy", *OPTIONS, "--ca-dir", str(tmp_path)]
    done = proxy.run(*command, "--tun", TAKEN_DEVICE, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert before.difference(proxy.snapshot()) == []
