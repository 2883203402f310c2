"""The relay on loopback: forwarding, mappings, the link's effects, and the command line."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import pytest

from masque_client.engine.interface import Address
from masque_client.errors import AddressInUse
from masque_client.testing.addresses import parse_address
from masque_client.testing.link import LinkProfile
from masque_client.testing.relay import MAX_CLIENTS, Relay, profile_from
from masque_client.testing.tcp_relay import TcpRelay

RECEIVE_TIMEOUT_S = 60.0


class Peer:
    """A non-blocking UDP socket with awaitable calls."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind((host, 0))

    @property
    def address(self) -> Address:
        host, port = self.socket.getsockname()[:2]
        return host, port

    def send(self, data: bytes, to: Address) -> None:
        self.socket.sendto(data, to)

    async def receive(self) -> tuple[bytes, Address]:
        loop = asyncio.get_running_loop()
        data, sender = await asyncio.wait_for(loop.sock_recvfrom(self.socket, 65535), RECEIVE_TIMEOUT_S)
        return data, sender[:2]

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


Scenario = Callable[[Relay, Peer, Peer], Awaitable[None]]


def relayed(scenario: Scenario, profile: LinkProfile | None = None, *, host: str = "127.0.0.1") -> None:
    """Run `scenario(relay, client, proxy)` with everything on `host`."""

    async def run() -> None:
        with Peer(host) as client, Peer(host) as proxy, Relay((host, 0), proxy.address, profile, seed=7) as relay:
            await scenario(relay, client, proxy)

    asyncio.run(run())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_directions(host: str) -> None:
    async def scenario(relay: Relay, client: Peer, proxy: Peer) -> None:
        client.send(b"hello", relay.address)
        data, mapped = await proxy.receive()
        assert data == b"hello"
        assert mapped != client.address
        proxy.send(b"and back", mapped)
        assert await client.receive() == (b"and back", relay.address)

    relayed(scenario, host=host)


def test_each_client_has_its_own_mapping() -> None:
    async def scenario(relay: Relay, client: Peer, proxy: Peer) -> None:
        with Peer() as second:
            mapped: dict[Peer, Address] = {}
            for peer in (client, second, client):
                peer.send(b"who", relay.address)
                _, source = await proxy.receive()
                assert mapped.setdefault(peer, source) == source
            assert mapped[client] != mapped[second]
            proxy.send(b"second", mapped[second])
            assert (await second.receive())[0] == b"second"

    relayed(scenario)


def test_rebind_gives_a_new_port_and_orphans_the_old() -> None:
    async def scenario(relay: Relay, client: Peer, proxy: Peer) -> None:
        client.send(b"1", relay.address)
        _, before = await proxy.receive()
        relay.rebind()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
            squatter.bind(before)  # free again; and held, so that the new mapping must differ
            client.send(b"2", relay.address)
            _, after = await proxy.receive()
        assert after != before
        proxy.send(b"new", after)
        assert (await client.receive())[0] == b"new"

    relayed(scenario)


def test_trains_of_equal_datagrams_arrive_whole() -> None:
    async def scenario(relay: Relay, client: Peer, proxy: Peer) -> None:
        for burst in range(20):
            sent = [bytes([burst, index]) * 600 for index in range(50)] + [b"tail"]
            for data in sent:
                client.send(data, relay.address)
            assert [(await proxy.receive())[0] for _ in sent] == sent
        assert relay.statistics()["outbound"]["delivered"] == 20 * 51

    relayed(scenario)


def test_loss_is_decided_by_the_seed() -> None:
    received: list[list[bytes]] = []

    async def scenario(relay: Relay, client: Peer, proxy: Peer) -> None:
        for index in range(100):
            client.send(b"%d" % index, relay.address)
        arrived: list[bytes] = []
        while True:
            counters = relay.outbound.counters
            if counters.offered == 100 and len(arrived) == 100 - counters.lost:
                break
            arrived.append((await proxy.receive())[0])
        received.append(arrived)

    for _ in range(2):
        relayed(scenario, LinkProfile(loss=0.3))
    assert received[0] == received[1]
    assert 50 < len(received[0]) < 90


def test_delay_of_both_directions() -> None:
    async def scenario(relay: Relay, client: Peer, proxy: Peer) -> None:
        started = time.monotonic()
        client.send(b"ping", relay.address)
        _, mapped = await proxy.receive()
        assert time.monotonic() - started >= 0.03
        proxy.send(b"pong", mapped)
        await client.receive()
        assert time.monotonic() - started >= 0.06

    relayed(scenario, LinkProfile(delay_s=0.03))


def test_profile_at_run_time() -> None:
    async def scenario(relay: Relay, client: Peer, proxy: Peer) -> None:
        relay.set_profile(LinkProfile(mtu=100))
        client.send(bytes(101), relay.address)
        client.send(bytes(100), relay.address)
        assert len((await proxy.receive())[0]) == 100
        assert relay.outbound.counters.too_large == 1

    relayed(scenario)


def test_oldest_mapping_gives_way() -> None:
    async def scenario(relay: Relay, client: Peer, proxy: Peer) -> None:
        client.send(b"first", relay.address)
        _, first = await proxy.receive()
        for number in range(MAX_CLIENTS):
            relay._upstream(("192.0.2.1", number))
        assert relay.statistics()["clients"] == MAX_CLIENTS
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
            squatter.bind(first)  # its socket was closed

    relayed(scenario)


def test_taken_address() -> None:
    async def scenario(relay: Relay, client: Peer, proxy: Peer) -> None:
        with pytest.raises(AddressInUse):
            Relay(relay.address, proxy.address)

    relayed(scenario)


def test_close_may_be_repeated() -> None:
    async def scenario(relay: Relay, client: Peer, proxy: Peer) -> None:
        client.send(b"late", relay.address)
        relay.close()

    relayed(scenario, LinkProfile(delay_s=60))


def test_tcp_passes_and_half_closes() -> None:
    async def run() -> None:
        async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                writer.write(line.upper())
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(shout, "127.0.0.1", 0) as server:
            relay = TcpRelay(server.sockets[0].getsockname())
            address = await relay.start(("127.0.0.1", 0))
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"hello")
            writer.write_eof()
            assert await reader.read() == b"HELLO"
            writer.close()
            await writer.wait_closed()
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"anybody there?\n")
            assert await reader.readline() == b"ANYBODY THERE?\n"
            await relay.close()
            assert await reader.read() == b""  # cut
            writer.close()
            await writer.wait_closed()

    asyncio.run(run())


def test_command_line_units() -> None:
    options = {"loss": 1.0, "delay": 20.0, "bandwidth": 50.0, "mtu": 1300, "jitter": None}
    profile = profile_from(options)
    assert profile.loss == pytest.approx(0.01)
    assert profile.delay_s == pytest.approx(0.02)
    assert profile.bandwidth_bit_s == pytest.approx(50e6)
    assert profile.mtu == 1300
    with pytest.raises(ValueError, match="speed"):
        profile_from({"speed": 1})


def test_command_line_relays_obeys_and_stops() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as proxy,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        proxy.bind(("127.0.0.1", 0))
        proxy.settimeout(RECEIVE_TIMEOUT_S)
        to = f"127.0.0.1:{proxy.getsockname()[1]}"
        command = [sys.executable, "-m", "masque_client.testing.relay", "--listen", "127.0.0.1:0", "--to", to]
        with subprocess.Popen(
            [*command, "--delay", "1", "--control"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            address = parse_address(json.loads(process.stdout.readline())["address"])
            client.sendto(b"through", address)
            assert proxy.recv(100) == b"through"
            for line in ('{"mtu": 10, "rebind": true}', "nonsense", "[]", '{"loss": 300}'):
                process.stdin.write(line + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["clients"] == 0
            assert all("error" in json.loads(process.stdout.readline()) for _ in range(3))
            client.sendto(bytes(11), address)
            client.sendto(bytes(10), address)
            assert proxy.recv(100) == bytes(10)
            process.send_signal(signal.SIGTERM)
            assert json.loads(process.stdout.readline())["outbound"]["too_large"] == 1
            assert process.wait(timeout=RECEIVE_TIMEOUT_S) == 0


def test_command_line_says_why_it_cannot_listen() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "masque_client.testing.relay", "--listen", where, "--to", where]
        done = subprocess.run(command, capture_output=True, text=True, timeout=RECEIVE_TIMEOUT_S)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
