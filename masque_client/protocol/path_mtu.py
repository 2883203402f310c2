"""Which packet size the path carries, found out while a connection lives: DPLPMTUD (RFC 8899, RFC 9000 §14.3).

A pure state machine. Sizes are bytes of UDP payload; its owner sends the probes and obeys `size`:

    a probe is acknowledged        → acknowledged(size, now)
    packets were lost              → suspect(now)
    the kernel knows a path MTU    → lower(size, now)
    the timer                      → handle_timeout(now)
    after each of these            → obey `size`; while `probe_due(now)` is a size: send it; probe_sent or give_up
                                     arm a timer for next_timeout()

Three situations are one search with different beginnings, each step of which probes one size until an acknowledgement
proves it or `TRIES` silences disprove it:

- something was lost: is it the size? The present size is probed. If it does not arrive but `BASE` does, the path has
  become a black hole (RFC 8899 §4.3): bisect between them. If not even `BASE` arrives, the path is down, not narrow.
- a size was settled for below the ceiling a while ago: probe the ceiling, then bisect between the present size and it.
- ICMP needs no search: it lowers the size at once, never below `BASE` and never up (RFC 9000 §14.2.1).

While it searches downward the connection keeps its size: full packets are lost either way, small ones pass, and one
change at the end disturbs the flows inside the tunnel once. That takes about a second on a short path.
"""

from __future__ import annotations

from dataclasses import dataclass

from masque_client.protocol.mtu import MIN_UDP_PAYLOAD

BASE = MIN_UDP_PAYLOAD
"""BASE_PLPMTU: what every QUIC path carries."""
GRAIN = 4
"""Sizes searched are multiples of this, as those of real links are; at most `GRAIN` - 1 bytes are given away."""
TRIES = 3
"""MAX_PROBES (RFC 8899 §5.1.2)."""
MIN_WAIT_S = 0.12
"""How long a probe may at least take: acknowledgements are delayed by 25 ms, and by busy machines."""
RTTS_TO_WAIT = 3
"""Acknowledgements tell of loss: no need for the seconds that RFC 8899 §5.1.1 gives protocols without them."""
CONFIRM_INTERVAL_S = 1.0
"""Ordinary loss, too, makes us doubt the size: at most one probe in this time."""
FIRST_RAISE_S = 1.0
RAISE_S = 600.0
"""PMTU_RAISE_TIMER (RFC 8899 §5.1.1)."""


@dataclass(slots=True)
class _Search:
    """`low` is proved, or None while nothing is; `high` is disproved or out of bounds."""

    low: int | None
    high: int
    candidate: int
    tries: int = 0
    due: float = 0.0
    """When the next try, or the verdict after the last one, is due."""


class PathMtu:
    """See the module.

    Args:
        size: which the handshake has proved.
        ceiling: largest size worth trying, for now; see `set_ceiling`.

    Attributes:
        size: what packets should be built for.
        black_holes: how often the size fell because larger packets vanished.
    """

    def __init__(self, size: int, ceiling: int, now: float) -> None:
        self.size = size
        self.black_holes = 0
        self._ceiling = max(size, ceiling)
        self._search: _Search | None = None
        self._confirm_after = now
        self._raise_at = now + FIRST_RAISE_S

    @property
    def is_searching(self) -> bool:
        """Whether probes are under way or due."""
        return self._search is not None

    # --- input ------------------------------------------------------------------------------------------------------

    def set_ceiling(self, ceiling: int) -> None:
        """The largest size that is worth trying has changed; matters when the size is next raised."""
        self._ceiling = max(self.size, ceiling)

    def suspect(self, now: float) -> None:
        """Packets were lost, or refused without a reason: see whether the size is to blame."""
        if self._search is None and now >= self._confirm_after:
            self._search = _Search(None, self.size + 1, self.size, due=now)

    def lower(self, size: int, now: float) -> None:
        """The kernel has heard of a smaller path MTU."""
        size = max(BASE, size)
        if size < self.size:
            self._settle(size, now)

    def acknowledged(self, size: int, now: float) -> None:
        """A probe of `size` bytes has arrived; late ones count as well."""
        search = self._search
        if search is None or size <= (search.low or 0):
            return
        search.low = size
        search.high = max(search.high, size + 1)
        self._advance(search, now)

    def handle_timeout(self, now: float) -> None:
        """The time of `next_timeout` has come."""
        search = self._search
        if search is None:
            if self._ceiling > self.size and now >= self._raise_at:
                self._search = _Search(self.size, self._ceiling + 1, self._ceiling, due=now)
        elif now >= search.due and search.tries >= TRIES:
            self._disprove(search, now)

    def probe_sent(self, now: float, rtt_s: float | None) -> None:
        """The probe of `probe_due` is on its way; `rtt_s` is the smoothed round-trip time."""
        if self._search is not None:
            self._search.tries += 1
            self._search.due = now + max(MIN_WAIT_S, RTTS_TO_WAIT * (rtt_s or 0.0))

    def give_up(self, now: float) -> None:
        """The connection cannot send probes now: everything stays as it is until the next occasion."""
        self._settle(self.size, now)

    # --- output -----------------------------------------------------------------------------------------------------

    def probe_due(self, now: float) -> int | None:
        """The size to probe now, if any."""
        search = self._search
        return search.candidate if search is not None and search.tries < TRIES and now >= search.due else None

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout`, or None."""
        if self._search is not None:
            return self._search.due
        return self._raise_at if self._ceiling > self.size else None

    # --- the search -------------------------------------------------------------------------------------------------

    def _disprove(self, search: _Search, now: float) -> None:
        search.high = search.candidate
        if search.low is not None:
            self._advance(search, now)
        elif search.candidate > BASE:
            self._try(search, BASE, now)
        else:
            self._settle(self.size, now)  # nothing arrives at all

    def _advance(self, search: _Search, now: float) -> None:
        """Bisect what is left between proof and disproof, or be done."""
        assert search.low is not None
        if (search.low == self.size and search.high == self.size + 1) or search.low >= self._ceiling:
            self._settle(search.low, now)  # confirmed, or as good as it gets
            return
        middle = max((search.low + search.high) // 2 // GRAIN * GRAIN, search.low // GRAIN * GRAIN + GRAIN)
        if middle < search.high:
            self._try(search, middle, now)
        else:
            self._settle(search.low, now)

    def _try(self, search: _Search, size: int, now: float) -> None:
        search.candidate, search.tries, search.due = size, 0, now

    def _settle(self, size: int, now: float) -> None:
        if self._search is not None and size < self.size and self._search.low == size:
            self.black_holes += 1
        self.size = size
        self._search = None
        self._confirm_after = now + CONFIRM_INTERVAL_S
        self._raise_at = now + RAISE_S
