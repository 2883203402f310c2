"""What a bad link does to datagrams, as a pure function of a seed, the datagrams and the time. Sans-IO.

One `LinkModel` is one direction. Offer datagrams as they come, take those that are due, sleep until `next_due`:

    model.offer(datagram, size, now)
    for datagram in model.take_due(now): ...

The same seed and the same sequence of calls give the same losses and the same times. Each datagram consumes the same
number of random values whatever the profile says, so that changing the delay does not move the losses.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """How bad. The default is a perfect link.

    Attributes:
        loss: probability, 0 to 1, that a datagram disappears.
        delay_s: one-way delay.
        jitter_s: up to this much more delay, uniformly distributed; it keeps the order of arrival.
        reorder: probability that a datagram is held back by `reorder_delay_s`, so that later ones overtake it.
        reorder_delay_s: how long.
        bandwidth_bit_s: UDP payload bits per second; None for no limit.
        queue_s: a bandwidth-limited link queues this much and drops what comes beyond (a tail-drop queue).
        mtu: UDP payloads above this many bytes disappear silently; None for no limit.
    """

    loss: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    reorder: float = 0.0
    reorder_delay_s: float = 0.01
    bandwidth_bit_s: float | None = None
    queue_s: float = 0.1
    mtu: int | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.loss <= 1 and 0 <= self.reorder <= 1):
            raise ValueError("loss and reorder are probabilities between 0 and 1")
        if min(self.delay_s, self.jitter_s, self.reorder_delay_s, self.queue_s) < 0:
            raise ValueError("delays are not negative")
        if self.bandwidth_bit_s is not None and self.bandwidth_bit_s <= 0:
            raise ValueError("a bandwidth is positive; use loss=1 to cut the link")


@dataclass(slots=True)
class LinkCounters:
    """What became of the datagrams offered. Counters only grow; the difference is still under way."""

    offered: int = 0
    delivered: int = 0
    lost: int = 0
    too_large: int = 0
    overflowed: int = 0


class LinkModel(Generic[Item]):
    """One direction of a link. `profile` may be replaced at any time; datagrams under way keep their times."""

    def __init__(self, profile: LinkProfile | None = None, *, seed: int | str = 0) -> None:
        self.profile = profile or LinkProfile()
        self.counters = LinkCounters()
        self._random: Callable[[], float] = random.Random(seed).random
        self._under_way: list[tuple[float, int, Item]] = []
        self._sequence = 0  # keeps equal times in order, and items out of comparisons
        self._last_arrival = 0.0
        self._busy_until = 0.0

    def offer(self, item: Item, size: int, now: float) -> None:
        """Put a datagram of `size` payload bytes on the link."""
        profile = self.profile
        loss_draw, jitter_draw, reorder_draw = self._random(), self._random(), self._random()
        self.counters.offered += 1
        if profile.mtu is not None and size > profile.mtu:
            self.counters.too_large += 1
            return
        if loss_draw < profile.loss:
            self.counters.lost += 1
            return
        departure = now
        if profile.bandwidth_bit_s is not None:
            departure = max(now, self._busy_until)
            if departure - now > profile.queue_s:
                self.counters.overflowed += 1
                return
            departure += size * 8 / profile.bandwidth_bit_s
            self._busy_until = departure
        arrival = departure + profile.delay_s + jitter_draw * profile.jitter_s
        if reorder_draw < profile.reorder:
            arrival += profile.reorder_delay_s  # and does not hold up those behind it
        elif profile.jitter_s:
            arrival = self._last_arrival = max(arrival, self._last_arrival)
        self._sequence += 1
        heapq.heappush(self._under_way, (arrival, self._sequence, item))

    def take_due(self, now: float) -> list[Item]:
        """The datagrams that have arrived by `now`, in order of arrival."""
        under_way = self._under_way
        due: list[Item] = []
        while under_way and under_way[0][0] <= now:
            due.append(heapq.heappop(under_way)[2])
        self.counters.delivered += len(due)
        return due

    def next_due(self) -> float | None:
        """When the next datagram arrives; None with nothing under way. Changes with every other call."""
        return self._under_way[0][0] if self._under_way else None
