"""The first flights of a handshake, where a library does not do what RFC 9000 asks: repeating one, and its limit."""

from __future__ import annotations

from collections import deque

from masque_client.engine.interface import Address


class AmplificationLimit:
    """A server sends at most three times what it received until the client's address is validated (RFC 9000 §8.1)."""

    def __init__(self) -> None:
        self.received = 0
        self._sent = 0
        self._held: deque[tuple[bytes, Address]] = deque()

    def release(self, transmits: list[tuple[bytes, Address]], *, is_validated: bool) -> list[tuple[bytes, Address]]:
        """Add `transmits` to what is held and return what may leave now, in order."""
        self._held.extend(transmits)
        released: list[tuple[bytes, Address]] = []
        while self._held and (is_validated or self._sent + len(self._held[0][0]) <= 3 * self.received):
            released.append(self._held.popleft())
            self._sent += len(released[-1][0])
        return released


class FirstFlight:
    """The client's Initials, repeated bit for bit with doubling intervals until anything comes back.

    qh3 would repeat them itself, but takes the first silence for a path that carries only 1200 bytes, and stays there.
    """

    INTERVAL_S = 0.4

    def __init__(self, payloads: list[tuple[bytes, Address]], now: float, ends_at: float) -> None:
        self.ends_at = ends_at
        self._payloads = payloads
        self._interval_s = self.INTERVAL_S
        self._repeat_at = now + self._interval_s

    @property
    def next_timeout(self) -> float:
        """When to repeat, or to give up."""
        return min(self._repeat_at, self.ends_at)

    def repeat(self, now: float) -> list[tuple[bytes, Address]]:
        """The Initials again, if it is time."""
        if now < self._repeat_at:
            return []
        self._interval_s *= 2
        self._repeat_at = now + self._interval_s
        return self._payloads
