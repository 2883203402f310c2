"""Writes the seed corpus from the test vectors: `python -m tests.fuzz.seeds`. Past findings in the corpus stay.

A seed's name says what it is. Few and small ones: the fuzzer finds the rest, and keeps it outside the repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.choices import encode_steps
from tests.fuzz.targets import CORPUS
from tests.fuzz.targets.http3 import GOOD_SETTINGS
from tests.unit.engine import raw
from tests.unit.netio.segments import Packet
from tests.vectors import dns, masque, ra

VECTORS = Path(__file__).parents[1] / "vectors"
OK = raw.frame(raw.HEADERS, raw.literal((b":status", b"200"), (b"capsule-protocol", b"?1")))
Seeds = Iterator[tuple[str, bytes]]


def main() -> None:
    """Write every seed."""
    for target, seeds in SEEDS.items():
        directory = CORPUS / target
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.glob("seed-*"):
            old.unlink()
        for name, data in seeds():
            (directory / f"seed-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}").write_bytes(data)


def vectors(module: object) -> Seeds:
    """The vectors of a module that are single hexadecimal strings, and those in its dictionaries."""
    for name, value in vars(module).items():
        if isinstance(value, str) and name.isupper():
            yield name, bytes.fromhex(value)
        elif isinstance(value, dict) and name.isupper():
            yield from ((f"{name} {key}", bytes.fromhex(item)) for key, item in value.items())


def capsules() -> Seeds:
    for name, capsule in (*vectors(masque), *vectors(dns)):
        if not name.startswith(("PACKET", "ICMP", "H3", "VARINT")) or "CAPSULE" in name:
            yield name, b"\x10\1" + capsule


def sessions() -> Seeds:
    for name, capsule in capsules():
        if len(capsule) < 256:
            yield f"client {name}", b"\x05" + encode_steps((0, 0, capsule[2:]))
    for name, packet in vectors(masque):
        if name.startswith(("PACKET_V4_TTL", "ICMP")):
            assigned = bytes.fromhex(masque.ASSIGN_V4_ID_1 + masque.ROUTES_ALL)
            yield f"packet {name}", b"\x05" + encode_steps((0, 0, assigned), (2, 0, packet), (7, 1, packet))
    yield "answer then hello", b"\0" + encode_steps((2, 0, b"hello"), (3, 2, b""), (3, 0, b"capsule-protocol:?1"))
    yield "refusal with body", b"\1" + encode_steps((3, 4, b"retry-after:3\nproxy-status:p"), (0, 1, b"no"))
    yield "proxy and its client's request", b"\x07" + encode_steps((0, 1, bytes.fromhex(masque.REQUEST_ANY_V4_AND_V6)))
    yield "reset", b"\4" + encode_steps((0, 0, b"\0"), (5, 0, b""), (4, 12, b""))


def dns_capsules() -> Seeds:
    for name, capsule in vectors(dns):
        kind = 1 if capsule[:4].hex() == "a74c0fbc" else 0
        length_bytes = 1 << (capsule[4] >> 6)
        yield name, bytes((kind,)) + capsule[4 + length_bytes :]


def packets() -> Seeds:
    for name, packet in vectors(masque):
        if name.startswith(("PACKET_V4_TTL", "ICMP")):
            yield name, b"\0\x05\0" + packet
            yield f"{name} too big", b"\x06\0\x10" + packet
    addresses = bytes.fromhex("20010db812340000000000000000000a20010db8dead00000000000000000001")
    extensions = {"hop-by-hop": 0, "routing": 43, "fragment": 44, "authentication": 51, "destination": 60}
    for name, number in extensions.items():
        body = bytes((58, 0, 0, 8, 0, 0, 0, 0)) * 2
        yield f"ipv6 {name}", b"\0\x05\0\x60\0\0\0" + len(body).to_bytes(2) + bytes((number, 64)) + addresses + body


def offload() -> Seeds:
    for name, packet in {
        "tcp": Packet(bytes(range(90))),
        "tcp ipv6": Packet(bytes(range(90)), version=6, options=bytes.fromhex("0101080a0000000100000002")),
        "udp": Packet(bytes(range(90)), is_tcp=False),
        "udp ipv6": Packet(bytes(range(90)), version=6, is_tcp=False),
    }.items():
        train, acknowledgement = packet.cut(30), bytes(packet.but(payload=b""))
        yield f"{name} train", encode_steps(*((0, 0, segment) for segment in (*train, acknowledgement)))
        yield f"{name} damaged", encode_steps((1, 0, train[0]), (1, 0, train[1][:-1] + b"x"), (1, 0, train[2]))
        yield f"{name} super-packet", encode_steps((2, 0, packet.super_packet(30)))


def quic_headers() -> Seeds:
    for name, data in vectors(masque):
        if name.startswith(("H3_", "VARINT")):
            yield name, data
    yield "initial", bytes.fromhex("c300000001088394c8f03e5157080000449e00000002")
    yield "version negotiation", bytes.fromhex("c0000000000008f067a5502a4262b5000000016b3343cf")


def pvd() -> Seeds:
    for path in sorted((VECTORS / "pvd").glob("*.json")):
        yield path.stem, b"\0" + path.read_bytes()


def pvd_fields() -> Seeds:
    yield "max-age", b'private, max-age="600", no-store'
    yield "date", b"Sun, 22 Nov 2026 12:00:00 GMT"
    yield "etag", b'W/"33a64df5"'
    yield "seconds", b"120"
    yield "date-time", b"2026-11-22T12:00:00.5+01:00"
    yield "host and port", b"[2001:db8::1]:443"
    yield "url", "https://münchen.example:8443/x".encode()


def templates() -> Seeds:
    udp = b"https://proxy.example:4443/masque{?target_host,target_port}\n"
    yield "udp query", udp + b"2001:db8::42\n443\n/masque?target_host=2001%3Adb8%3A%3A42&target_port=443"
    yield "udp path", b"https://[2001:db8::1]/u/{target_host}/{target_port}/\nwww.example\n53\n/u/www.example/53/"
    yield "ip path", b"https://p.example/.well-known/masque/ip/{target}/{ipproto}/\n192.0.2.0/24\n17\n"
    yield "ip wildcard", b"https://p.example/ip?k=1{&target,ipproto}\n*\n*\n/ip?k=1&target=%2A"
    yield "international", "https://p.example/{target_host,target_port}\nmünchen.example\n1\n".encode()
    yield "level 4", b"https://p.example/{+target_host}/{target_port:3}\na\n1\n"


def fields() -> Seeds:
    yield "success", b':status: 200\ncapsule-protocol: ?1;x=y\nproxy-status: p;next-hop="192.0.2.1:53"'
    yield "proxy status", b':status: 502\nproxy-status: a;error=dns_error;details="no such host", b;received-status=404'
    yield "retry", b":status: 503\nretry-after: Sun, 22 Nov 2026 12:00:00 GMT"
    yield "challenge", b':status: 401\nwww-authenticate: Basic realm="x"'
    yield "request", b":method: CONNECT\n:protocol: connect-ip\n:scheme: https\n:authority: p\n:path: /\nte: trailers"


def handshake() -> Seeds:
    complete = [(3, number, b"") for number in range(4)]
    yield "undamaged", encode_steps(*complete)
    yield "damaged packet", encode_steps((3, 0, b"\x20\xff"), *complete)
    yield "damaged server hello", encode_steps((5, 0, b"\x01\x80"), *complete)
    yield "damaged certificate", encode_steps((5, 1, b"\x40\x01"), *complete)
    yield "version negotiation", encode_steps((8, 0, bytes.fromhex("6b3343cf0a1a2a3a")), *complete)
    yield "retry", encode_steps((9, 0, b"a token of some length"), (10, 0, b""))
    yield "close in an initial", encode_steps((1, 0, bytes.fromhex("1c0200000000")))
    yield "noise", encode_steps((0, 0, bytes(range(60))), (1, 0, bytes(range(60))), (6, 0, bytes(range(60))))
    yield "timeouts", encode_steps((10, 0, b""), (10, 0, b""), (11, 0, b""))


def http3() -> Seeds:
    payload = bytes.fromhex(masque.DATAGRAM_HELLO)
    yield "answer and capsule", encode_steps((1, 1, OK), (3, 1, payload), (6, 1, b"\0hello"), (2, 1, b""))
    yield "reset", encode_steps((1, 1, OK), (7, 0x41, b""), (7, 1, b""), (11, 0, b""))
    yield "goaway", encode_steps((3, 0x30, b"\0"), (11, 0, b""))
    yield "other settings", encode_steps((12, 0, raw.CONTROL + raw.settings((0x33, 2), (2, 1))))
    yield "good settings late", encode_steps((12, 0, b""), (1, 0, GOOD_SETTINGS), (11, 0, b""))
    yield "push", encode_steps((0, 0, b"\1\0" + OK), (8, 0, OK))
    yield "qpack", encode_steps((0, 0, b"\2\x3f\xe1\x1f"), (0, 0, b"\3\x80"), (3, 0x11, b"\0\0\xd9"))
    yield "datagrams", encode_steps((5, 0, b""), (5, 0, b"\x40"), (5, 0, b"\xd0" + bytes(8)))
    yield "header section", encode_steps((4, 100, b"capsule-protocol:?1\nserver:x"), (4, 3, b"a:b"))
    yield "frames", encode_steps((9, 0, bytes.fromhex("1e")), (9, 0, bytes.fromhex("1c0a00026869")))
    yield "new connection id", encode_steps((9, 0, bytes.fromhex("180100080102030405060708" + "00" * 16)))


def http2() -> Seeds:
    ok = b"capsule-protocol:?1"
    capsule = bytes.fromhex(masque.DATAGRAM_HELLO)
    yield "tunnel", b"\2" + encode_steps((8, 0x28, ok), (9, 0, capsule), (12, 0, b"hello"), (9, 0x80, b""))
    yield "tunnel byte by byte", b"\6" + encode_steps((8, 0x28, ok), (9, 0, capsule), (11, 0x80, capsule))
    yield "goaway", b"\2" + encode_steps((7, 7, bytes(8)), (10, 0, b""))
    yield "goaway with an error", b"\2" + encode_steps((7, 7, bytes.fromhex("000000010000000b") + b"calm"))
    yield "reset", b"\2" + encode_steps((8, 0x28, ok), (2, 0, bytes.fromhex("0000000008")), (13, 0, b""))
    yield "window", b"\2" + encode_steps((3, 2, bytes.fromhex("007fffffff")), (6, 8, bytes.fromhex("7fffffff")))
    yield "ping", b"\2" + encode_steps((14, 0, b""), (6, 0x16, bytes(8)), (15, 0, b""))
    yield "server", b"\3" + encode_steps((11, 0, capsule), (9, 0x80, capsule))
    yield "bad first frame", b"\0" + encode_steps((6, 6, bytes(8)))
    yield "settings", b"\0" + encode_steps((6, 4, bytes.fromhex("000800000001")), (6, 4, bytes.fromhex("000800000000")))


def router_advertisements() -> Seeds:
    for name, option in (("R1", ra.R1), ("R2", ra.R2), ("R3", ra.R3), ("prefix", ra.OTHER_PREFIX)):
        yield name, ra.RA_HEADER + option
    yield "resolver", ra.RA_HEADER + bytes.fromhex("1903 0000 00000e10 20010db8000000000000000000000053")


def https_records() -> Seeds:
    yield "alpn", bytes.fromhex("00010000010006026833026832")
    yield "alpn and port", bytes.fromhex("000100000100030268330003000220fb")
    yield "pvd", bytes.fromhex("000100000b0000")
    yield "alias", b"\0\0\3pvd\7example\0"
    yield "mandatory", bytes.fromhex("0001000000000400030004000300020050000400040a000001")


def http3_layer() -> Seeds:
    payload = bytes.fromhex(masque.DATAGRAM_HELLO)
    yield "answer and capsule", b"\0" + encode_steps((1, 1, OK), (3, 1, payload), (7, 1, b"\0hello"), (2, 1, b""))
    yield "trailers", b"\0" + encode_steps((1, 1, OK), (3, 0x11, b"\0\0\xd9"))
    yield "refusal", b"\0" + encode_steps((5, 47, b"server:x"), (2, 1, raw.frame(raw.DATA, b"no")), (10, 0, b""))
    yield "goaway", b"\0" + encode_steps((3, 0x30, b"\4"), (3, 0x30, b"\0"), (10, 0, b""))
    yield "settings in pieces", b"\1" + encode_steps((1, 0, GOOD_SETTINGS[:3]), (1, 0, GOOD_SETTINGS[3:]), (10, 0, b""))
    yield "bad settings", b"\1" + encode_steps((1, 0, raw.CONTROL + raw.settings((0x33, 2), (2, 1))))
    yield "critical streams", b"\0" + encode_steps((0, 0, b"\2\x3f\xe1\x1f"), (0, 0, b"\3\x80"), (8, 0, b""))
    yield "push", b"\0" + encode_steps((0, 0, b"\1\0" + OK), (3, 0x41, b"\0\0\0\xd1"), (9, 0, OK))
    yield "datagrams", b"\0" + encode_steps((6, 0, b"\0x"), (6, 0, b"\x40"), (6, 0, b"\xd0" + bytes(8)))
    yield "stop sending", b"\0" + encode_steps((8, 0x41, b""), (1, 1, OK), (8, 1, b""))


SEEDS = {
    "capsules": capsules,
    "sessions": sessions,
    "dns-capsules": dns_capsules,
    "packets": packets,
    "offload": offload,
    "quic-headers": quic_headers,
    "pvd": pvd,
    "pvd-fields": pvd_fields,
    "router-advertisements": router_advertisements,
    "https-records": https_records,
    "templates": templates,
    "fields": fields,
    "http2": http2,
    "aioquic-handshake": handshake,
    "aioquic-http3": http3,
    "aioquic-http3-layer": http3_layer,
    "qh3-http3-layer": http3_layer,
    "qh3-handshake": handshake,
    "qh3-http3": http3,
}

if __name__ == "__main__":
    main()
