"""Congestion control for the aioquic engine: the library's controllers, which also count, and how packets are spread.

`ALGORITHMS` says what aioquic calls ours. CUBIC is the default: Reno takes minutes to regain a large window, because
it grows by one packet per round trip.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aioquic.quic.congestion.base import QuicCongestionControl, register_congestion_control
from aioquic.quic.congestion.cubic import CubicCongestionControl
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.recovery import QuicPacketPacer

from masque_client.engine.interface import CongestionControl
from masque_client.engine.pacing import BURST_PACKETS, BURST_S, RATE_FACTOR


class Counting(QuicCongestionControl):
    """A mixin in front of a controller of aioquic's: counts lost packets.

    Lost path MTU probes are neither counted nor a sign of congestion (RFC 9000 §14.4).
    """

    packets_lost = 0

    def __init__(self, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.probes: set[int] = set()
        """Packet numbers of probes under way."""

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        """Keep probes from the controller, and count the others."""
        lost = list(packets)
        if self.probes and (probes := [packet for packet in lost if packet.packet_number in self.probes]):
            super().on_packets_expired(packets=probes)  # type: ignore[safe-super]  # a mixin: the next class has it
            lost = [packet for packet in lost if packet not in probes]
        if lost:
            self.packets_lost += len(lost)
            super().on_packets_lost(now=now, packets=lost)  # type: ignore[safe-super]


class _Cubic(Counting, CubicCongestionControl):
    pass


class _Reno(Counting, RenoCongestionControl):
    pass


register_congestion_control("masque-cubic", _Cubic)
register_congestion_control("masque-reno", _Reno)

ALGORITHMS: Final = {
    CongestionControl.AUTO: "masque-cubic",
    CongestionControl.RENO: "masque-reno",
    CongestionControl.CUBIC: "masque-cubic",
}


class BurstPacer(QuicPacketPacer):
    """aioquic's pacer with the bucket of `pacing.Pacer`: it measures its bucket in seconds at the current rate."""

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        """See aioquic."""
        super().update_rate(int(congestion_window * RATE_FACTOR), smoothed_rtt)
        assert self.packet_time is not None
        self.bucket_max = max(self.bucket_max, BURST_S, BURST_PACKETS * self.packet_time)

    def next_send_time(self, now: float) -> float | None:  # type: ignore[override]  # aioquic's returns None, too
        """See aioquic; a timer per batch, not per packet."""
        waits = super().next_send_time(now) is not None
        return now + self.bucket_max / 2 if waits else None
