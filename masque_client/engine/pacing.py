"""How fast packets leave, and how many at a time: a token bucket (RFC 9002 §7.7), sized for timers that are late.

The loop that owns us sleeps in whole milliseconds, so a bucket of a few packets would cap throughput at a few packets
per millisecond. The bucket therefore holds what the rate brings in `BURST_S`, and at least `BURST_PACKETS` packets, the
initial window that RFC 9002 §7.7 allows at once.
"""

from __future__ import annotations

import math

BURST_S = 0.002
BURST_PACKETS = 10
RATE_FACTOR = 1.25
"""Above one window per round trip, so that the window and not the pacer decides (RFC 9002 §7.7 names this value)."""

QUEUED_PACKETS = 24
"""Less than the 32 datagrams that quic-go keeps for a stream, when they fill packets. With 28 a third more was lost."""
HEADROOM = 2
"""Above what is delivered, so that the rate can grow, and double in each round trip."""
RATE_MEMORY = 0.9
"""What a round trip leaves of the highest rate: one that the application did not fill says little about the path."""
CLOCK_S = 0.001
"""qh3 rounds a round trip up to this; what is not above it may be next to nothing."""
RTT_LIFETIME_S = 10.0
"""How long the shortest round trip is believed; as in BBR."""
SAMPLE_PACKETS = 256
LONE_SHARE = 20
"""A peer that sends one lone packet for so many of ours takes ours one by one. Seen: quic-go 1 for 4 to 14, qh3 for
50 and more; one that acknowledges each train, when trains are as short as `QUEUED_PACKETS`, still passes."""


class Pacer:
    """Bytes that may leave now. Unlimited before the first round-trip sample.

    Attributes:
        tokens: bytes that may leave now: while any are left a packet may leave, and overdraw. Who sends takes them out.
    """

    def __init__(self, packet_size: int) -> None:
        self._packet_size = packet_size
        self._rate: float | None = None
        self._burst = 0.0
        self.tokens = math.inf
        self._filled_at = 0.0

    def update(self, congestion_window: int, rtt_s: float | None, now: float) -> None:
        """Take the controller's current numbers and refill."""
        if not rtt_s:
            return
        rate = RATE_FACTOR * congestion_window / rtt_s
        burst = max(rate * BURST_S, BURST_PACKETS * self._packet_size)
        if self._rate is None:
            self.tokens = burst
        elif now > self._filled_at:
            self.tokens += (now - self._filled_at) * rate
        self.tokens = min(self.tokens, burst)
        self._rate, self._burst, self._filled_at = rate, burst, now

    def next_send_time(self) -> float | None:
        """When half a burst may leave again (a timer per batch, not per packet), or None when a packet may now."""
        if self._rate is None or self.tokens > 0:
            return None
        return self._filled_at + (self._burst / 2 - self.tokens) / self._rate


class PathWindow:
    """The bytes in flight that are of use to a peer that takes packets one by one.

    Such a peer keeps what arrives faster than it takes it in a short queue, and drops the rest without telling: quic-go
    keeps 32 datagrams for a stream. qh3's congestion window sees none of that loss, and grows without a bound even when
    it is not used (against RFC 9002 §7.8), so that every super-packet would leave in one burst. Towards such a peer
    no more is in flight than twice what the path has lately delivered in its shortest round trip, and never less than
    fits that queue. A peer that reads whole trains acknowledges whole trains: it sends next to nothing, or trains.

    Attributes:
        sent_packets: packets sent so far to the peer, and `sent_bytes` the bytes of the DATAGRAM frames among them.
        lone_packets: packets from the peer that did not come in a train.
    """

    def __init__(self, packet_size: int) -> None:
        self.sent_packets = 0
        self.sent_bytes = 0
        self.lone_packets = 0
        self._least = QUEUED_PACKETS * packet_size
        self._takes_trains = True
        self._counted = (0, 0)
        self._rate = 0.0
        self._round_began_at = 0.0
        self._delivered = 0
        self._shortest_s = math.inf
        self._probe_at = 0.0
        self._probed_at = 0.0

    def limit(self, congestion_window: int, in_flight: int, latest_rtt_s: float | None, now: float) -> int:
        """Bytes that may be in flight now; `latest_rtt_s` is of the latest acknowledgement."""
        if not latest_rtt_s:
            return congestion_window
        if now >= self._probe_at:  # the route may have changed: see how long an empty path takes
            self._probe_at, self._probed_at, self._shortest_s = now + RTT_LIFETIME_S, now + latest_rtt_s, latest_rtt_s
        self._shortest_s = min(self._shortest_s, latest_rtt_s)
        if (elapsed := now - self._round_began_at) >= latest_rtt_s:
            self._end_round(elapsed, in_flight)
            self._round_began_at = now
        if self._takes_trains:
            return congestion_window
        useful = 0.0 if now < self._probed_at else HEADROOM * self._rate * (self._shortest_s - CLOCK_S)
        return min(congestion_window, max(self._least, int(useful)))

    def _end_round(self, elapsed: float, in_flight: int) -> None:
        delivered = self.sent_bytes - in_flight
        self._rate = max((delivered - self._delivered) / elapsed, self._rate * RATE_MEMORY)
        self._delivered = delivered
        sent, lone = self.sent_packets - self._counted[0], self.lone_packets - self._counted[1]
        if sent >= SAMPLE_PACKETS:
            self._takes_trains = lone * LONE_SHARE < sent
            self._counted = self.sent_packets, self.lone_packets
