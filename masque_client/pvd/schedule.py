"""When to ask for a PvD document, and until when to believe the one at hand (RFC 8801 §4.1, PROXY-CONFIG §2).

Pure: moments are monotonic seconds that the caller hands in, chance is a function that it hands in.

    needed ──► fetch_at ──► accepted ──► fetch_at in [midpoint, expiry] ──► …
                  │            └──────► expires_at: the document ends there, whatever a refresh is doing
                  └──► failed: transient ──► a later fetch_at
                               final ──────► None, until `need` says that something has changed

`PvdKeeper` acts on it; `FetchBudget` may put a fetch off or forbid it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from masque_client.errors import MasqueError, PvdUnavailable

RETRY_FIRST_S = 60.0
RETRY_LONGEST_S = 3600.0
RETRY_JITTER = 0.2
EXPIRY_SPREAD_S = 60.0
"""After an expiry with no retry planned, clients come back within this time, not all at once."""
LEAST_FRESHNESS_S = 600.0
"""A host that wants to be asked sooner (`max-age=0` is a common default) is not obeyed."""

REQUEST_INTERVAL_S = 10.0
REQUESTS_PER_INTERVAL = 5
MAX_FAILURES = 10

Draw = Callable[[], float]
"""A uniform random number from 0 to 1."""


def refresh_after_s(lifetime_s: float, draw: float) -> float:
    """Seconds after reception to fetch again: between the middle of the lifetime and its end (RFC 8801 §4.1)."""
    return lifetime_s * (0.5 + draw / 2)


def sequence_delay_s(delay: int, draw: float) -> float:
    """Seconds to wait after an advertisement that changed: at random up to 2^(10+Delay) ms (RFC 8801 §4.1)."""
    return draw * float(1 << 10 + delay) / 1000


class RefreshSchedule:
    """The plan for one document.

    Attributes:
        fetch_at: when to fetch next; None when only `need` can change anything.
        expires_at: when the document at hand ends; None without one.
    """

    def __init__(self, draw: Draw) -> None:
        self.fetch_at: float | None = None
        self.expires_at: float | None = None
        self._draw = draw
        self._failures = 0

    def need(self, at: float) -> None:
        """Something changed (start, network, the user's wish): fetch at `at`, and forget earlier failures."""
        self.fetch_at = at
        self._failures = 0

    def accepted(self, now: float, *, remaining_s: float, age_s: float = 0.0, fresh_for_s: float | None = None) -> None:
        """A document is at hand.

        Args:
            now: the present.
            remaining_s: until it ends.
            age_s: since it was received; more than 0 for one from a cache.
            fresh_for_s: what the host said of its freshness; may only bring the refresh forward.
        """
        refresh_s = refresh_after_s(age_s + remaining_s, self._draw())
        if fresh_for_s is not None:
            refresh_s = min(refresh_s, max(fresh_for_s, LEAST_FRESHNESS_S))
        self._failures = 0
        self.fetch_at = max(now, now + refresh_s - age_s)
        self.expires_at = now + remaining_s

    def failed(self, now: float, error: MasqueError) -> None:
        """A fetch failed: come back later if that may help, otherwise wait for `need`."""
        self._failures += 1
        if not error.retryable:
            self.fetch_at = None
            return
        backoff_s = min(RETRY_FIRST_S * 2 ** min(self._failures - 1, 16), RETRY_LONGEST_S)
        backoff_s *= 1 + RETRY_JITTER * (2 * self._draw() - 1)
        asked_s = error.retry_after_s if isinstance(error, PvdUnavailable) else None
        self.fetch_at = now + max(backoff_s, asked_s or 0.0)  # Retry-After counts upward only

    def expire(self, now: float) -> None:
        """The document ended. If its refresh had been given up, this is a reason to try once more."""
        self.expires_at = None
        if self.fetch_at is None:
            self.fetch_at = now + self._draw() * EXPIRY_SPREAD_S

    def next_timeout(self, *, is_fetching: bool) -> float | None:
        """When to look again; the end of a fetch under way is news of its own."""
        moments = (None if is_fetching else self.fetch_at, self.expires_at)
        return min((moment for moment in moments if moment is not None), default=None)


class FetchBudget:
    """How much one network attachment bears, over all provisioning domains (RFC 8801 §4.1, §6; PROXY-CONFIG §6).

    Failures count until the same domain succeeds, so that neither a hostile advertisement nor years of uptime decide.
    """

    def __init__(self) -> None:
        self._last_by_identifier: dict[str, float] = {}
        self._last: deque[float] = deque(maxlen=REQUESTS_PER_INTERVAL)
        self._failures: Counter[str] = Counter()

    def earliest(self, identifier: str, now: float) -> float | None:
        """When a request for this domain may be sent: `now`, later, or never on this network (None)."""
        if self._failures.total() >= MAX_FAILURES:
            return None
        waits = [now]
        if identifier in self._last_by_identifier:
            waits.append(self._last_by_identifier[identifier] + REQUEST_INTERVAL_S)
        if len(self._last) == REQUESTS_PER_INTERVAL:
            waits.append(self._last[0] + REQUEST_INTERVAL_S)
        return max(waits)

    def requested(self, identifier: str, now: float) -> None:
        """A request is being sent."""
        self._last_by_identifier[identifier] = now
        self._last.append(now)

    def failed(self, identifier: str) -> None:
        """It brought no usable document."""
        self._failures[identifier] += 1

    def succeeded(self, identifier: str) -> None:
        """It did."""
        del self._failures[identifier]

    def network_changed(self) -> None:
        """Another attachment: it has not failed yet. The time between requests is kept."""
        self._failures.clear()
