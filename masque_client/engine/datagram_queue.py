"""HTTP Datagrams that wait for the congestion window: bounded in bytes and in age (RFC 9221 §5.4, Q-8).

Both engines keep theirs here, because both libraries would queue without limit. When the queue is full the caller is
told to stop reading its source; what is older than the age bound when the engine next sends is dropped, oldest first:
a tunnelled packet that late is worth less than the ones behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from masque_client.protocol.packing import Split


class DatagramQueue:
    """A FIFO of DATAGRAM frame contents (Quarter Stream ID included).

    A consumer takes from the front of `items` directly, which may be lent to a library, and calls `settle` when it is
    done; so accounting costs per batch and not per datagram.

    Attributes:
        items: what waits, oldest first.
        waiting_bytes: how many bytes wait.
        too_large: how many payloads were refused for size so far.
        expired: how many were dropped for age so far.
    """

    def __init__(self, max_bytes: int, max_age_s: float) -> None:
        self.items: deque[bytes] = deque()
        self.too_large = 0
        self.expired = 0
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self.waiting_bytes = 0
        self._accepted = 0
        self._accepted_bytes = 0
        self._batches: deque[tuple[float, int, int]] = deque()
        """(when, values of `_accepted` and `_accepted_bytes` after it) of each batch that may have items waiting."""

    @property
    def is_full(self) -> bool:
        """True while at least `max_bytes` wait. The last of `put` may overshoot, so that none is ever unacceptable."""
        return self.waiting_bytes >= self._max_bytes

    def put(self, head: bytes, payloads: Sequence[bytes], limit: int, now: float) -> int:
        """Append `head + payload` for each payload of at most `limit` bytes; count and skip larger ones.

        Returns:
            how many payloads, from the front, were dealt with: fewer than given when the queue became full.
        """
        head_bytes, max_bytes = len(head), self._max_bytes
        added = sum(map(len, payloads)) + head_bytes * len(payloads)
        if payloads and self.waiting_bytes + added <= max_bytes and max(map(len, payloads)) <= limit:
            self.items.extend([head + payload for payload in payloads])
            self._account(len(payloads), added, now)
            return len(payloads)
        append = self.items.append
        waiting, dealt, refused = self.waiting_bytes, 0, 0
        for payload in payloads:
            size = len(payload)
            if size > limit:
                refused += 1
            elif waiting < max_bytes:
                append(head + payload)
                waiting += head_bytes + size
            else:
                break
            dealt += 1
        self.too_large += refused
        if dealt > refused:
            self._account(dealt - refused, waiting - self.waiting_bytes, now)
        return dealt

    def put_split(self, split: Split, head: bytes, buffers: Sequence[bytes], limit: int, now: float) -> int:
        """As `put`, of what `split` makes of each buffer; a buffer is accepted whole or not at all."""
        if self.waiting_bytes + sum(map(len, buffers)) <= self._max_bytes:
            self._put_items(split(buffers, head), limit + len(head), now)
            return len(buffers)
        for dealt, buffer in enumerate(buffers):
            if self.is_full:
                return dealt
            self._put_items(split((buffer,), head), limit + len(head), now)
        return len(buffers)

    def _put_items(self, items: list[bytes], limit: int, now: float) -> None:
        if max(map(len, items), default=0) > limit:
            fitting = [item for item in items if len(item) <= limit]
            self.too_large += len(items) - len(fitting)
            items = fitting
        if items:
            self.items.extend(items)
            self._account(len(items), sum(map(len, items)), now)

    def _account(self, count: int, item_bytes: int, now: float) -> None:
        self.waiting_bytes += item_bytes
        self._accepted += count
        self._accepted_bytes += item_bytes
        self._batches.append((now, self._accepted, self._accepted_bytes))

    def expire(self, now: float) -> None:
        """Drop what has waited for the age bound or longer."""
        batches = self._batches
        if not batches or batches[0][0] + self._max_age_s > now:
            return
        taken = self._accepted - len(self.items)
        while batches and batches[0][0] + self._max_age_s <= now:
            stale = batches.popleft()[1] - taken
            if stale > 0:
                for _ in range(stale):
                    self.items.popleft()
                taken += stale
                self.expired += stale
        self.settle()

    def discard_larger_than(self, limit: int) -> None:
        """Drop and count items over `limit` bytes: after the packet size fell, they would block what is behind them."""
        kept = [item for item in self.items if len(item) <= limit]
        self.too_large += len(self.items) - len(kept)
        self._accepted, self._accepted_bytes = len(kept), sum(map(len, kept))
        when = self._batches[0][0] if self._batches else 0.0
        self._batches = deque([(when, self._accepted, self._accepted_bytes)] if kept else ())
        self.items.clear()
        self.items.extend(kept)
        self.settle()

    def settle(self) -> None:
        """Account for what was taken from `items`."""
        if not self.items:
            self.waiting_bytes = 0
            self._batches.clear()
            return
        taken = self._accepted - len(self.items)
        while self._batches[0][1] <= taken:
            self._batches.popleft()
        _, end, end_bytes = self._batches[0]  # counted one by one is only what is left of the oldest batch
        self.waiting_bytes = sum(map(len, islice(self.items, end - taken))) + self._accepted_bytes - end_bytes

    def next_expiry(self) -> float | None:
        """When `expire` will next drop something, or None when nothing waits."""
        return self._batches[0][0] + self._max_age_s if self._batches else None
