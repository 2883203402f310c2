"""What a peer may send to a session, and what its owner may ask of it meanwhile: actions for `watched.Watched`."""

from __future__ import annotations

import ipaddress

from hypothesis import strategies as st

from masque_client.protocol.capsule import encode_capsule
from masque_client.protocol.ip_capsules import (
    AssignedAddress,
    IpAddressRange,
    RequestedAddress,
    encode_address_assign,
    encode_address_request,
    encode_route_advertisement,
)
from masque_client.protocol.varint import MAX_VARINT
from tests.unit.protocol.packets import build, extension, fragment
from tests.vectors import dns, masque

PREFIXES = [ipaddress.ip_network(text) for text in ("192.0.2.11/32", "10.1.0.0/16", "2001:db8:1::a/128", "fd00::/64")]
RANGES = sorted(
    (
        IpAddressRange.from_prefix(ipaddress.ip_network(text), protocol)
        for text, protocol in [
            ("198.51.100.0/24", 0), ("203.0.113.0/24", 17), ("10.1.2.0/24", 6), ("169.254.0.0/16", 0),
            ("2001:db8:2::/48", 0), ("2001:db8:3::/48", 17), ("ff00::/8", 58), ("224.0.0.0/4", 17),
        ]
    ),
    key=lambda route: route.sort_key,
)  # fmt: skip
ADDRESSES = {
    4: ["192.0.2.11", "192.0.2.12", "10.1.2.3", "198.51.100.2", "203.0.113.9", "127.0.0.1", "0.0.0.0", "169.254.7.7",
        "224.0.0.251", "255.255.255.255"],
    6: ["2001:db8:1::a", "2001:db8:1::b", "fd00::7", "2001:db8:2::2", "2001:db8:3::9", "::1", "::", "fe80::1",
        "ff02::1", "ff05::2"],
}  # fmt: skip
TYPE_0_ROUTING = b"\x11\0\0" + bytes(5)
BEGINNINGS = [
    *((protocol, b"") for protocol in (1, 6, 17, 58, 132)),
    *((next_header, extension(17)) for next_header in (0, 60, 43)),
    (0, extension(58)),
    (0, extension(43) + TYPE_0_ROUTING),
    (43, TYPE_0_ROUTING),
    (44, fragment(17, 0)),
    (44, fragment(6, 0)),
    (44, fragment(58, 9)),
    (60, b"\x11\x05" + bytes(6)),  # an extension header that is longer than the packet
    (60, b"\x11"),
    (51, extension(6)),
    (59, b""),
]
"""The protocol that the IP header names, and what the payload begins with."""


@st.composite
def packets(draw):
    """Mostly whole packets between addresses that matter, some with extension headers, some spoilt."""
    pool = ADDRESSES[draw(st.sampled_from([4, 6]))]
    source, destination = draw(st.sampled_from(pool)), draw(st.sampled_from(pool))
    protocol, beginning = draw(st.sampled_from(BEGINNINGS))
    packet = build(source, destination, beginning + draw(st.binary(max_size=12)), protocol)
    match draw(st.integers(0, 5)):
        case 0:
            return packet[: draw(st.integers(0, len(packet)))]
        case 1:
            return packet + draw(st.binary(min_size=1, max_size=4))
        case 2:
            position = draw(st.integers(0, len(packet) - 1))
            return packet[:position] + draw(st.binary(min_size=1, max_size=1)) + packet[position + 1 :]
        case _:
            return packet


contexts = st.sampled_from([b"\0"] * 6 + [b"\x40\0", b"\2", b"\x80", b""])
payloads = st.builds(bytes.__add__, contexts, packets() | st.binary(max_size=20))
prefix_lists = st.lists(st.sampled_from(PREFIXES), max_size=3, unique=True)
range_lists = st.sets(st.sampled_from(range(len(RANGES))), max_size=5).map(
    lambda chosen: [RANGES[i] for i in sorted(chosen)]
)
good_capsules = (
    prefix_lists.map(lambda prefixes: encode_address_assign(AssignedAddress(0, prefix) for prefix in prefixes))
    | range_lists.map(encode_route_advertisement)
    | st.integers(1, 9).map(lambda id: encode_address_request([RequestedAddress(id, PREFIXES[0])]))
    | payloads.map(lambda payload: encode_capsule(0, payload))
    | st.builds(encode_capsule, st.integers(4, MAX_VARINT), st.binary(max_size=20))
    | st.sampled_from([dns.FULL_TUNNEL, dns.SPLIT_TUNNEL, dns.NOTHING, dns.THREE_PREFIXES]).map(bytes.fromhex)
)
bad_capsules = st.sampled_from(
    [*masque.INVALID_IP_CAPSULES.values(), *dns.MALFORMED_DNS.values(), *dns.MALFORMED_PREF64.values()]
).map(bytes.fromhex)


@st.composite
def streams(draw):
    """Capsules one after another, in every second stream with a few octets changed, lost or put in."""
    stream = bytearray(b"".join(draw(st.lists(good_capsules, max_size=6))))
    if draw(st.integers(0, 3)) == 0:
        stream += draw(bad_capsules | st.binary(max_size=12))
    if draw(st.booleans()):
        for _ in range(draw(st.integers(1, 3))):
            position = draw(st.integers(0, len(stream)))
            stream[position : position + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(stream)


ANSWERS = [
    [(b":status", b"200"), (b"capsule-protocol", b"?1")],
    [(b":status", b"200")],
    [(b":status", b"103")],
    [(b":status", b"101")],
    [(b":status", b"403"), (b"proxy-status", b"p; error=denied")],
    [(b":status", b"2xx")],
    [(b":status", b"200"), (b":status", b"200")],
    [(b"server", b"x")],
    [],
]
codes = st.sampled_from([0, 0x100, 0x10C, MAX_VARINT])
peer_actions = (
    st.tuples(st.just("headers"), st.sampled_from(ANSWERS), st.booleans())
    | st.tuples(
        st.just("data"),
        streams(),
        st.sampled_from(["whole", "octets", "sevens"]),
        st.integers(0, 7).map(lambda n: n == 0),
    )
    | st.tuples(st.just("datagrams"), st.lists(payloads, max_size=6))
    | st.tuples(st.just("reset"), codes)
    | st.tuples(st.just("stop"), codes)
)
our_actions = (
    st.tuples(st.just("accept"))
    | st.tuples(st.just("assign"), prefix_lists)
    | st.tuples(st.just("advertise"), range_lists)
    | st.tuples(st.just("request"), st.integers(1, 5))
    | st.tuples(st.just("send"), st.lists(packets() | st.binary(max_size=30), max_size=6))
    | st.tuples(st.just("narrow"), st.sampled_from([30, 48, 1280, 65_575]))
    | st.tuples(st.just("close"))
)
