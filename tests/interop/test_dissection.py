"""The wire as we claim it is, by the word of tshark: real sessions, captured, decrypted and dissected.

Client and proxy use different engines, so that no QUIC library talks to itself. Expected bytes are written out by hand
from the RFCs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from masque_client.testing.netns import Lab, Namespace
from tests.interop.dissector import End, missing_tools
from tests.interop.programs import Unavailable
from tests.interop.recorded import ASSIGNED, CLIENT, ECHO_PORTS, GATEWAYS, PROXY, Stage, exchange
from tests.interop.wire import InnerUdp, type_length_values, udp_inside, variable_length_integer

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(
        missing_tools() is not None, reason=f"NEEDS {missing_tools()} (apt-get install tshark): nobody reads the wire"
    ),
]

LOCAL_PORTS = (5353, 5354)
HELLO, OTHER_HELLO = b"independent eyes", b"see more"
PEER_ENGINE = {"aioquic": "qh3", "qh3": "aioquic"}
IP_PATH = "/.well-known/masque/ip/*/*/"

QUIC_1 = 1
DATAGRAM_FRAMES = {0x30, 0x31}
CONNECTION_CLOSE_BY_APPLICATION = 0x1D
ENABLE_CONNECT_PROTOCOL, H3_DATAGRAM = 0x08, 0x33
MAX_DATAGRAM_FRAME_SIZE = 0x20
DATAGRAM_CAPSULE = 0x00


def compact(hexadecimal: str) -> str:
    return hexadecimal.replace(" ", "")


# RFC 9484 §4.7.2. Request IDs 1 and 2: any IPv4 address, any IPv6 address.
ADDRESS_REQUEST = compact("02 1a  01 04 00000000 20  02 06 00000000000000000000000000000000 80")
# RFC 9484 §4.7.1. One answer to each; Request IDs of 0 where nobody asked.
ADDRESS_ASSIGN = compact("01 1a  01 04 0a590002 20  02 06 fd890000000000000000000000000002 80")
ADDRESS_ASSIGN_UNASKED = compact("01 1a  00 04 0a590002 20  00 06 fd890000000000000000000000000002 80")
# RFC 9484 §4.7.3. 10.89.0.0 to 10.89.0.255 and fd89:: to fd89::ffff:ffff:ffff:ffff, all protocols.
ROUTE_ADVERTISEMENT = compact(
    "03 2c  04 0a590000 0a5900ff 00  06 fd890000000000000000000000000000 fd89000000000000ffffffffffffffff 00"
)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Lab() as lab:
        yield Stage.build(lab, tmp_path)


UDP_COMMAND = [
    "udp",
    *(f"{local}={PROXY}:{echo}" for local, echo in zip(LOCAL_PORTS, ECHO_PORTS, strict=True)),
    *("--proxy", f"https://{PROXY}"),
]
UP_COMMAND = ["up", f"https://{PROXY}", "--foreground"]


def talk_through_ports(client: Namespace) -> None:
    for port, payload in zip(LOCAL_PORTS, (HELLO, OTHER_HELLO), strict=True):
        exchange(client, payload, "127.0.0.1", port)


def talk_through_tunnel(client: Namespace) -> None:
    for gateway in GATEWAYS:
        exchange(client, HELLO, gateway, ECHO_PORTS[0])


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
        assert end.settings[H3_DATAGRAM] == 1  # RFC 9297 §2.1.1
        assert end.frame_types & DATAGRAM_FRAMES
    limits = [variable_length_integer(end.parameters[MAX_DATAGRAM_FRAME_SIZE])[0] for end in (client, proxy)]
    assert limits[0] == 65535  # RFC 9221 §3: recommended
    assert limits[1] >= max(map(len, client.datagrams)) + 2  # type and length count
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


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["aioquic", "qh3"])
def test_connect_udp_over_http3(stage: Stage, engine: str) -> None:
    """RFC 9298 §5: quarter stream ID, Context ID 0, the UDP payload; nothing on the stream."""
    seen = stage.run(
        stage.our_proxy(PEER_ENGINE[engine]), [*UDP_COMMAND, "--http", "3", "--engine", engine], talk_through_ports
    )
    client, proxy = seen.ends[CLIENT], seen.ends[PROXY]
    assert seen.complaints == []
    assert_http3(client, proxy)
    assert client.headers == {
        0: extended_connect("connect-udp", udp_path(ECHO_PORTS[0])),
        4: extended_connect("connect-udp", udp_path(ECHO_PORTS[1])),
    }
    assert_accepted(proxy, {0, 4})
    assert client.datagrams == [b"\x00\x00" + HELLO, b"\x01\x00" + OTHER_HELLO]
    assert proxy.datagrams == [b"\x00\x00echo:" + HELLO, b"\x01\x00echo:" + OTHER_HELLO]
    assert set(client.content.values()) | set(proxy.content.values()) <= {b""}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["aioquic", "qh3"])
def test_connect_ip_over_http3(stage: Stage, engine: str) -> None:
    """RFC 9484 §6: quarter stream ID, Context ID 0, one whole IP packet; configuration in capsules on the stream."""
    seen = stage.run(
        stage.our_proxy(PEER_ENGINE[engine]), [*UP_COMMAND, "--http", "3", "--engine", engine], talk_through_tunnel
    )
    client, proxy = seen.ends[CLIENT], seen.ends[PROXY]
    assert seen.complaints == []
    assert_http3(client, proxy)
    assert client.headers == {0: extended_connect("connect-ip", IP_PATH)}
    assert_accepted(proxy, {0})
    assert configuration(client, 0) == [ADDRESS_REQUEST]
    assert configuration(proxy, 0) == [ROUTE_ADVERTISEMENT, ADDRESS_ASSIGN]
    assert_packets(http3_payloads(client), http3_payloads(proxy))


@pytest.mark.interop
@pytest.mark.parametrize("engine", ["aioquic", "qh3"])
def test_connect_ip_with_connect_ip_go(stage: Stage, engine: str) -> None:
    """The same with a proxy that is not ours, where nobody agrees out of habit."""
    command = ["up", f"https://{PROXY}/vpn", "--foreground", "--address-request", "never"]
    try:
        proxy_command = stage.connect_ip_go()
    except Unavailable as error:
        pytest.skip(str(error))
    seen = stage.run(proxy_command, [*command, "--http", "3", "--engine", engine], talk_through_tunnel)
    client, proxy = seen.ends[CLIENT], seen.ends[PROXY]
    assert seen.complaints == []
    assert_http3(client, proxy)
    assert client.headers == {0: extended_connect("connect-ip", "/vpn")}
    assert dict(proxy.headers[0]).items() >= {(b":status", b"200"), (b"capsule-protocol", b"?1")}
    assert configuration(client, 0) == []
    assert configuration(proxy, 0) == [ADDRESS_ASSIGN_UNASKED, ROUTE_ADVERTISEMENT]
    assert_packets(http3_payloads(client), http3_payloads(proxy))


@pytest.mark.slow
def test_connect_udp_over_http2(stage: Stage) -> None:
    """RFC 9297 §3.5: DATAGRAM capsules, which hold a Context ID and the UDP payload."""
    seen = stage.run(stage.our_proxy("auto"), [*UDP_COMMAND, "--http", "2"], talk_through_ports)
    client, proxy = seen.ends[CLIENT], seen.ends[PROXY]
    assert seen.complaints == []
    assert_http2(client, proxy)
    assert client.headers == {
        1: extended_connect("connect-udp", udp_path(ECHO_PORTS[0])),
        3: extended_connect("connect-udp", udp_path(ECHO_PORTS[1])),
    }
    assert_accepted(proxy, {1, 3})
    assert client.content == {1: b"\x00\x11\x00" + HELLO, 3: b"\x00\x09\x00" + OTHER_HELLO}
    assert proxy.content == {1: b"\x00\x16\x00echo:" + HELLO, 3: b"\x00\x0e\x00echo:" + OTHER_HELLO}


@pytest.mark.slow
def test_connect_ip_over_http2(stage: Stage) -> None:
    """The same capsules, and DATAGRAM capsules that hold a Context ID and one whole IP packet."""
    seen = stage.run(stage.our_proxy("auto"), [*UP_COMMAND, "--http", "2"], talk_through_tunnel)
    client, proxy = seen.ends[CLIENT], seen.ends[PROXY]
    assert seen.complaints == []
    assert_http2(client, proxy)
    assert client.headers == {1: extended_connect("connect-ip", IP_PATH)}
    assert_accepted(proxy, {1})
    assert configuration(client, 1) == [ADDRESS_REQUEST]
    assert configuration(proxy, 1) == [ROUTE_ADVERTISEMENT, ADDRESS_ASSIGN]
    assert_packets(capsule_payloads(client, 1), capsule_payloads(proxy, 1))


def http3_payloads(end: End) -> list[bytes]:
    """What DATAGRAM frames carry behind quarter stream ID and Context ID, which are both 0 (RFC 9297 §2.1)."""
    assert {datagram[:2] for datagram in end.datagrams} == {b"\x00\x00"}
    return [datagram[2:] for datagram in end.datagrams]


def capsule_payloads(end: End, stream: int) -> list[bytes]:
    """What DATAGRAM capsules carry behind the Context ID, which is 0 (RFC 9297 §3.5)."""
    datagrams = [value for kind, value in type_length_values(end.content[stream]) if kind == DATAGRAM_CAPSULE]
    assert {datagram[:1] for datagram in datagrams} == {b"\x00"}
    return [datagram[1:] for datagram in datagrams]


def configuration(end: End, stream: int) -> list[str]:
    """The other capsules of a stream, in hex; they are all shorter than 64 bytes."""
    return [
        f"{kind:02x}{len(value):02x}{value.hex()}"
        for kind, value in type_length_values(end.content[stream])
        if kind != DATAGRAM_CAPSULE
    ]


def assert_packets(outbound: list[bytes], inbound: list[bytes]) -> None:
    """Our two datagrams and their echoes are among the packets, and every packet is well-formed."""
    ours, theirs = [udp_inside(packet) for packet in outbound], [udp_inside(packet) for packet in inbound]
    for address, gateway in zip(ASSIGNED, GATEWAYS, strict=True):
        assert ours.count(InnerUdp(address, gateway, HELLO)) == 1
        assert theirs.count(InnerUdp(gateway, address, b"echo:" + HELLO)) == 1
