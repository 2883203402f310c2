"""The wire as we claim it is, by the word of tshark: real sessions, captured, decrypted and dissected.

client 192.0.2.1 ───── 192.0.2.2 proxy (captured here),  TUN 10.89.0.1/24 fd89::1/64,  UDP echo on every address

Client and proxy use different engines, so that no QUIC library talks to itself. Expected bytes are written out by hand
from the RFCs.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from masque_client.testing.echo import EchoTarget
from masque_client.testing.netns import Lab, Namespace
from tests.interop.dissector import Capture, Dissection, End, dissect, missing_tools
from tests.interop.wire import InnerUdp, type_length_values, udp_inside, variable_length_integer

pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.skipif(
        missing_tools() is not None, reason=f"NEEDS {missing_tools()} (apt-get install tshark): nobody reads the wire"
    ),
]

CLIENT, PROXY = "192.0.2.1", "192.0.2.2"
GATEWAYS, ASSIGNED = ("10.89.0.1", "fd89::1"), ("10.89.0.2", "fd89::2")
ECHO_PORT, OTHER_ECHO_PORT = 9000, 9001
LOCAL_PORT, OTHER_LOCAL_PORT = 5353, 5354
HELLO, OTHER_HELLO = b"independent eyes", b"see more"
END_OF_SESSION = b"nothing more of interest"
PEER_ENGINE = {"aioquic": "qh3", "qh3": "aioquic"}
TIMEOUT_S = 20.0

QUIC_1 = 1
DATAGRAM_FRAMES = {0x30, 0x31}
CONNECTION_CLOSE_BY_APPLICATION = 0x1D
ENABLE_CONNECT_PROTOCOL, H3_DATAGRAM = 0x08, 0x33
MAX_DATAGRAM_FRAME_SIZE = 0x20

# RFC 9484 §4.7.2. Request IDs 1 and 2: any IPv4 address, any IPv6 address.
ADDRESS_REQUEST = "02 1a  01 04 00000000 20  02 06 00000000000000000000000000000000 80"
# RFC 9484 §4.7.1. One answer to each.
ADDRESS_ASSIGN = "01 1a  01 04 0a590002 20  02 06 fd890000000000000000000000000002 80"
# RFC 9484 §4.7.3. 10.89.0.0 to 10.89.0.255 and fd89:: to fd89::ffff:ffff:ffff:ffff, all protocols.
ROUTE_ADVERTISEMENT = (
    "03 2c  04 0a590000 0a5900ff 00  06 fd890000000000000000000000000000 fd89000000000000ffffffffffffffff 00"
)


class Stage(NamedTuple):
    """Two namespaces and a directory; `run` plays one session on it."""

    client: Namespace
    proxy: Namespace
    directory: Path

    def run(self, engine: str, http: str, command: list[str], talk: Callable[[Namespace], None]) -> Dissection:
        """Start a proxy and the client's command, `talk` in the client's namespace, end both, dissect all of it."""
        capture = Capture(self.proxy, "eth1")
        secrets = self.directory / "secrets"
        server = self.proxy.spawn(
            *(sys.executable, "-m", "masque_client.testing.proxy", "--engine", PEER_ENGINE[engine]),
            *("--listen", f"{PROXY}:443", "--h2-listen", f"{PROXY}:443", "--name", PROXY),
            *("--ca-dir", str(self.directory), "--secrets-log", str(secrets)),
            *("--pool4", "10.89.0.0/24", "--pool6", "fd89::/64", "--route", "10.89.0.0/24", "--route", "fd89::/64"),
            *("--allow", f"{PROXY}/32", "--misbehave", "assign-on-request"),
            stdout=subprocess.PIPE,
        )
        ca_file = read_json(server)["ca_file"]
        leak = self.directory / "leak"
        client = self.client.spawn(
            *(sys.executable, "-m", "masque_connect.main", *command, "--json"),
            *("--ca", ca_file, "--engine", engine, "--http", http),
            stdout=subprocess.PIPE,
            env=os.environ | {"SSLKEYLOGFILE": str(leak)},
        )
        ready = read_json(client)
        assert ready["http_version"] == int(http)
        assert ready["engine"] == (engine if http == "3" else "h2")
        with ExitStack() as stack:
            with self.proxy.entered():
                for address in (PROXY, *GATEWAYS):
                    for port in (ECHO_PORT, OTHER_ECHO_PORT):
                        stack.enter_context(EchoTarget("echo", (address, port)))
            talk(self.client)
        client.send_signal(signal.SIGINT)
        assert client.wait(TIMEOUT_S) == 130
        assert not leak.exists(), "the client wrote its secrets where its environment said"
        with self.client.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(END_OF_SESSION, (PROXY, 9))
        file = self.directory / "session.pcap"
        file.write_bytes(capture.stop_after(END_OF_SESSION))
        return dissect(file, secrets)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Lab() as lab:
        client, proxy = lab.namespace("client"), lab.namespace("proxy")
        lab.link(client, [f"{CLIENT}/24"], proxy, [f"{PROXY}/24"], names=("eth0", "eth1"))
        client.ip("link", "set", "dev", "eth0", "gso_max_segs", "1")
        proxy.set_forwarding()
        yield Stage(client, proxy, tmp_path)


def read_json(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"it ended with {process.wait()}"
    value: dict[str, Any] = json.loads(line)
    return value


def exchange(where: Namespace, payload: bytes, host: str, port: int) -> None:
    """Send a UDP datagram and wait for its echo."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with where.entered(), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.sendto(payload, (host, port))
        assert sock.recv(2048) == b"echo:" + payload


def talk_through_ports(client: Namespace) -> None:
    exchange(client, HELLO, "127.0.0.1", LOCAL_PORT)
    exchange(client, OTHER_HELLO, "127.0.0.1", OTHER_LOCAL_PORT)


def talk_through_tunnel(client: Namespace) -> None:
    for gateway in GATEWAYS:
        exchange(client, HELLO, gateway, ECHO_PORT)


UDP_COMMAND = [
    *("udp", f"{LOCAL_PORT}={PROXY}:{ECHO_PORT}", f"{OTHER_LOCAL_PORT}={PROXY}:{OTHER_ECHO_PORT}"),
    *("--proxy", f"https://{PROXY}"),
]
UP_COMMAND = ["up", f"https://{PROXY}", "--foreground"]


def extended_connect(protocol: str, path: str) -> list[tuple[bytes, bytes]]:
    """The request of RFC 9298 §3.4 and RFC 9484 §4.5, in the order of ours."""
    return [
        (b":method", b"CONNECT"),
        (b":protocol", protocol.encode()),
        (b":scheme", b"https"),
        (b":path", path.encode()),
        (b":authority", PROXY.encode()),
        (b"capsule-protocol", b"?1"),
    ]


def udp_path(port: int) -> str:
    return f"/.well-known/masque/udp/{PROXY}/{port}/"


def assert_http3(client: End, proxy: End) -> None:
    """What both tunnel types need of QUIC and HTTP/3."""
    for end in (client, proxy):
        assert end.versions == {QUIC_1}
        assert end.alpn == {"h3"}
        limit, _ = variable_length_integer(end.parameters[MAX_DATAGRAM_FRAME_SIZE])
        assert limit == 65535  # RFC 9221 §3: recommended
        assert end.settings[H3_DATAGRAM] == 1  # RFC 9297 §2.1.1
        assert end.frame_types & DATAGRAM_FRAMES
    assert proxy.settings[ENABLE_CONNECT_PROTOCOL] == 1  # RFC 9220 §3
    assert CONNECTION_CLOSE_BY_APPLICATION in client.frame_types


def assert_http2(client: End, proxy: End) -> None:
    assert client.alpn == proxy.alpn == {"h2"}
    assert proxy.settings[ENABLE_CONNECT_PROTOCOL] == 1  # RFC 8441 §3
    assert client.datagrams == proxy.datagrams == []


def assert_accepted(proxy: End, streams: set[int]) -> None:
    assert proxy.headers.keys() == streams
    for headers in proxy.headers.values():
        assert headers == [(b":status", b"200"), (b"capsule-protocol", b"?1")]


@pytest.mark.parametrize("engine", ["aioquic", "qh3"])
def test_connect_udp_over_http3(stage: Stage, engine: str) -> None:
    """RFC 9298 §5: quarter stream ID, Context ID 0, the UDP payload; nothing on the stream."""
    seen = stage.run(engine, "3", UDP_COMMAND, talk_through_ports)
    client, proxy = seen.ends[CLIENT], seen.ends[PROXY]
    assert seen.complaints == []
    assert_http3(client, proxy)
    assert client.headers == {
        0: extended_connect("connect-udp", udp_path(ECHO_PORT)),
        4: extended_connect("connect-udp", udp_path(OTHER_ECHO_PORT)),
    }
    assert_accepted(proxy, {0, 4})
    assert client.datagrams == [b"\x00\x00" + HELLO, b"\x01\x00" + OTHER_HELLO]
    assert proxy.datagrams == [b"\x00\x00echo:" + HELLO, b"\x01\x00echo:" + OTHER_HELLO]
    assert set(client.content.values()) | set(proxy.content.values()) <= {b""}


@pytest.mark.parametrize("engine", ["aioquic", "qh3"])
def test_connect_ip_over_http3(stage: Stage, engine: str) -> None:
    """RFC 9484 §6: quarter stream ID, Context ID 0, one whole IP packet; configuration in capsules on the stream."""
    seen = stage.run(engine, "3", UP_COMMAND, talk_through_tunnel)
    client, proxy = seen.ends[CLIENT], seen.ends[PROXY]
    assert seen.complaints == []
    assert_http3(client, proxy)
    assert_ip_session(client, proxy, stream=0)
    packets = {}
    for address, end in seen.ends.items():
        assert {datagram[:2] for datagram in end.datagrams} == {b"\x00\x00"}
        packets[address] = [datagram[2:] for datagram in end.datagrams]
    assert_packets(packets[CLIENT], packets[PROXY])


def test_connect_udp_over_http2(stage: Stage) -> None:
    """RFC 9297 §3.5: DATAGRAM capsules, which hold a Context ID and the UDP payload."""
    seen = stage.run("qh3", "2", UDP_COMMAND, talk_through_ports)
    client, proxy = seen.ends[CLIENT], seen.ends[PROXY]
    assert seen.complaints == []
    assert_http2(client, proxy)
    assert client.headers == {
        1: extended_connect("connect-udp", udp_path(ECHO_PORT)),
        3: extended_connect("connect-udp", udp_path(OTHER_ECHO_PORT)),
    }
    assert_accepted(proxy, {1, 3})
    assert client.content == {1: b"\x00\x11\x00" + HELLO, 3: b"\x00\x09\x00" + OTHER_HELLO}
    assert proxy.content == {1: b"\x00\x16\x00echo:" + HELLO, 3: b"\x00\x0e\x00echo:" + OTHER_HELLO}


def test_connect_ip_over_http2(stage: Stage) -> None:
    """The same capsules, and DATAGRAM capsules that hold a Context ID and one whole IP packet."""
    seen = stage.run("qh3", "2", UP_COMMAND, talk_through_tunnel)
    client, proxy = seen.ends[CLIENT], seen.ends[PROXY]
    assert seen.complaints == []
    assert_http2(client, proxy)
    assert_ip_session(client, proxy, stream=1)
    packets = {}
    for address, end in seen.ends.items():
        datagrams = [value for kind, value in type_length_values(end.content[1]) if kind == 0x00]
        assert {datagram[:1] for datagram in datagrams} == {b"\x00"}
        packets[address] = [datagram[1:] for datagram in datagrams]
    assert_packets(packets[CLIENT], packets[PROXY])


def assert_ip_session(client: End, proxy: End, stream: int) -> None:
    """The request, the answer and the capsules that configure, which are alike over both HTTP versions."""
    assert client.headers == {stream: extended_connect("connect-ip", "/.well-known/masque/ip/*/*/")}
    assert_accepted(proxy, {stream})
    assert configuration(client, stream) == [bytes.fromhex(ADDRESS_REQUEST)]
    assert configuration(proxy, stream) == [bytes.fromhex(ROUTE_ADVERTISEMENT), bytes.fromhex(ADDRESS_ASSIGN)]


def configuration(end: End, stream: int) -> list[bytes]:
    """The capsules of a stream that are no DATAGRAM, whole: they are all shorter than 64 bytes."""
    return [
        bytes([kind, len(value)]) + value for kind, value in type_length_values(end.content[stream]) if kind != 0x00
    ]


def assert_packets(outbound: list[bytes], inbound: list[bytes]) -> None:
    """Our two datagrams and their echoes are among the packets, and every packet is well-formed."""
    ours, theirs = [udp_inside(packet) for packet in outbound], [udp_inside(packet) for packet in inbound]
    for address, gateway in zip(ASSIGNED, GATEWAYS, strict=True):
        assert ours.count(InnerUdp(address, gateway, HELLO)) == 1
        assert theirs.count(InnerUdp(gateway, address, b"echo:" + HELLO)) == 1
