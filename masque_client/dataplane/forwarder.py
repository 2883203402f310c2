"""The packet's road between a TUN device and a CONNECT-IP session. Nothing else lives on the hot path.

Outbound (host → proxy), one readiness callback per batch:
    1. `on_tun_readable`      the kernel has packets for the tunnel
    2. `TunPort.read`         buffers: with offload super-packets of dozens of packets
    3. `Session.encapsulate`  drop what the proxy would drop, answer with ICMP what can be answered
    4. `send_payloads`        cut into packets and queued in the engine; a full queue stops the reading: backpressure
    5. `flush`                the engine seals, the socket sends (GSO), the timer is armed
Inbound (proxy → host), within `HttpConnection.receive`:
    6. `SessionStream.on_datagrams` → `Session.receive_datagrams`, which merges packets into buffers and judges those
    7. `deliver` → `TunPort.write`
    8. what the kernel has answered by then (TCP acknowledges while it takes a packet) goes stages 2 to 4 at once, and
       leaves with the flush that ends every `receive`: no wake-up, system call or QUIC packet of its own

Nothing awaits and nothing raises per packet; what is dropped is counted where it is dropped.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from masque_client.http.stream import SessionStream
from masque_client.netio.clock import Clock
from masque_client.netio.packing import TunPort
from masque_client.netio.tun import TunDevice

TUN_BATCH = 128
"""Packets read from the TUN device before the socket gets its turn: about 180 kB, a millisecond at 1.4 Gbit/s."""


@dataclass(slots=True)
class Traffic:
    """What went through, in inner IP packets and their bytes. Outbound is host → proxy. Counters only grow."""

    packets_out: int = 0
    bytes_out: int = 0
    packets_in: int = 0
    bytes_in: int = 0


class Forwarder:
    """Moves packets between `start` (session open, TUN device configured) and `stop` (before either goes).

    The session stream must have been made with `on_payloads=forwarder.deliver` and `on_writable=forwarder.resume`.
    """

    def __init__(self, tun: TunDevice, clock: Clock) -> None:
        self.traffic = Traffic()
        self._tun = TunPort(tun)
        self._clock = clock
        self._stream: SessionStream[Any] | None = None
        self._waiting: list[bytes] = []
        self._reading = False
        self._loop = asyncio.get_running_loop()

    def start(self, stream: SessionStream[Any]) -> None:
        """Begin to read the TUN device into `stream`, whose session packs packets as the device does from now on."""
        self._stream = stream
        stream.session.packing = self._tun.packing
        self._read(True)

    def stop(self) -> None:
        """Stop reading; packets that waited for room are dropped. Idempotent."""
        self._read(False)
        self._stream = None
        self._waiting.clear()

    # --- outbound ---------------------------------------------------------------------------------------------------

    def on_tun_readable(self) -> None:
        """Stages 1 to 5."""
        if self._stream is not None and self._take_outbound(self._stream):
            self._stream.flush()

    def resume(self) -> None:
        """The engine's queue has room again: first what waited, then the TUN device."""
        if self._stream is None:
            return
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._send(self._stream, waiting)
            self._stream.flush()
        if not self._waiting:
            self._read(True)

    def _take_outbound(self, stream: SessionStream[Any]) -> bool:
        """Stages 2 to 4; returns whether there is something to flush."""
        buffers = self._tun.read(TUN_BATCH)
        if not buffers:
            return False
        outcome = stream.session.encapsulate(buffers, self._clock.now())
        if outcome.replies:
            self._tun.write_packets(outcome.replies)
        if outcome.send:
            self._send(stream, outcome.send)
        return bool(outcome.send)

    def _send(self, stream: SessionStream[Any], buffers: list[bytes]) -> None:
        taken = stream.send_payloads(buffers)
        if taken < len(buffers):
            self._waiting = buffers[taken:]
            del buffers[taken:]
            self._read(False)
        packets, size = self._tun.packing.measure(buffers)
        self.traffic.packets_out += packets
        self.traffic.bytes_out += size

    def _read(self, wanted: bool) -> None:
        if wanted and not self._reading:
            self._loop.add_reader(self._tun.fileno(), self.on_tun_readable)
        elif self._reading and not wanted:
            self._loop.remove_reader(self._tun.fileno())
        self._reading = wanted

    # --- inbound ----------------------------------------------------------------------------------------------------

    def deliver(self, buffers: list[bytes]) -> None:
        """Stages 7 and 8: hand decapsulated packets to the kernel. The connection flushes after it."""
        self._tun.write(buffers)
        packets, size = self._tun.packing.measure(buffers)
        self.traffic.packets_in += packets
        self.traffic.bytes_in += size
        if self._stream is not None and self._reading:
            self._take_outbound(self._stream)
