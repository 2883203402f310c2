"""ICMP echo over a raw socket, as `ping` does it: for demos and tests, so that no ping program is needed.

Needs CAP_NET_RAW. Requests go out at a fixed interval whether or not answers come; each answer is timed.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import time
from dataclasses import dataclass
from ipaddress import ip_address

ECHO_REQUEST, ECHO_REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
PAYLOAD = bytes(range(48))


@dataclass(frozen=True, slots=True)
class PingResult:
    """`loss` is a fraction; `rtt_ms` the median of the answers, None without any."""

    sent: int
    received: int
    rtt_ms: float | None

    @property
    def loss(self) -> float:
        """Fraction of requests that got no answer in time."""
        return 1 - self.received / self.sent


def ping(address: str, *, count: int = 20, interval_s: float = 0.02, wait_s: float = 2.0) -> PingResult:
    """Send `count` echo requests to an IP literal and wait up to `wait_s` after the last for the answers. Blocks."""
    version = ip_address(address).version
    family, protocol = (
        (socket.AF_INET, socket.IPPROTO_ICMP) if version == 4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    )
    identifier = os.getpid() & 0xFFFF
    sent_at: dict[int, float] = {}
    rtts: list[float] = []
    with socket.socket(family, socket.SOCK_RAW, protocol) as sock, selectors.DefaultSelector() as selector:
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ)
        start = time.monotonic()
        while len(rtts) < count:
            now = time.monotonic()
            due = len(sent_at) < count and now >= start + len(sent_at) * interval_s
            if due:
                sequence = len(sent_at) + 1
                sent_at[sequence] = now
                _send(sock, _echo_request(version, identifier, sequence), address)
                continue
            next_send = start + len(sent_at) * interval_s if len(sent_at) < count else None
            deadline = next_send or start + (count - 1) * interval_s + wait_s
            if next_send is None and now >= deadline:
                break
            if selector.select(max(0.0, deadline - now)):
                sequence_seen = _parse_reply(version, sock.recv(65535), identifier)
                if sequence_seen is not None and (then := sent_at.pop(sequence_seen, None)) is not None:
                    rtts.append(time.monotonic() - then)
                    sent_at[-sequence_seen] = then  # answered: keeps the count, ignores duplicates
    rtts.sort()
    return PingResult(count, len(rtts), round(rtts[len(rtts) // 2] * 1000, 3) if rtts else None)


def _send(sock: socket.socket, message: bytes, address: str) -> None:
    try:
        sock.sendto(message, (address, 0))
    except OSError:
        pass  # no route, or no buffer: an unanswered request, which is what the loss counts


def _echo_request(version: int, identifier: int, sequence: int) -> bytes:
    message = struct.pack("!BBHHH", ECHO_REQUEST[version], 0, 0, identifier, sequence) + PAYLOAD
    if version == 6:
        return message  # the kernel fills in the ICMPv6 checksum of raw sockets (RFC 3542 §3.1)
    total = sum(struct.unpack(f"!{len(message) // 2}H", message))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return message[:2] + struct.pack("!H", checksum) + message[4:]


def _parse_reply(version: int, packet: bytes, identifier: int) -> int | None:
    """The sequence number of an answer to us; raw IPv4 sockets deliver the IP header too, IPv6 ones do not."""
    icmp = packet[(packet[0] & 0x0F) * 4 :] if version == 4 else packet
    if len(icmp) < 8 or icmp[0] != ECHO_REPLY[version]:
        return None
    seen, sequence = struct.unpack_from("!HH", icmp, 4)
    return int(sequence) if seen == identifier else None
