"""The current document of one source, kept current: what a running tunnel asks instead of fetching.

    keeper = PvdKeeper(source, fetch=partial(fetch, tls=tls), cache=PvdCache(directory), on_change=…)
    task = create_task(keeper.run());  await keeper.decided();  keeper.document, keeper.standing

It starts from the cache where it can (offline, too), fetches, refreshes at a random moment in the second half of the
lifetime, comes back after failures, and gives the document up at its end whatever a refresh is doing at that moment
(RFC 8801 §4.1, PROXY-CONFIG §2). `schedule` decides when; this file acts.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from masque_client.errors import MasqueError
from masque_client.netio.clock import Clock, MonotonicClock
from masque_client.pvd.cache import PvdCache
from masque_client.pvd.changes import Cause, DocumentChanged
from masque_client.pvd.fetch import DEFAULT_OPTIONS, Download, Fetched, FetchOptions
from masque_client.pvd.model import PvdDocument
from masque_client.pvd.schedule import Draw, FetchBudget, RefreshSchedule
from masque_client.pvd.source import PvdSource

logger = logging.getLogger(__name__)

MAX_CHANGES_KEPT = 16
LONGEST_WAIT_S = 60.0
"""The monotonic clock stands still while the machine sleeps: the time of day is looked at this often."""


class Fetch(Protocol):
    """`fetch.fetch`, its trust and options already bound."""

    async def __call__(self, source: PvdSource, *, previous: Download | None) -> Fetched:
        """Fetch, verify, parse; raises `MasqueError`."""
        ...


class Standing(Enum):
    """What holds now for traffic that the document would decide about."""

    CURRENT = "current"
    """`document` counts."""
    BASE = "base"
    """There is none: what the user configured counts, as if PvDs did not exist."""
    BLOCKED = "blocked"
    """There is none, and the user wants nothing sent without one (`requires_document`)."""


class PvdKeeper:
    """See the module. Everything is called from one event loop; nothing happens before `run`.

    Args:
        source: whose document.
        fetch: one attempt; see `Fetch`.
        cache: where to start from, and where accepted downloads go.
        options: its wall clock and policy re-validate what the cache holds. Give `fetch` the same.
        clock: monotonic; the event loop's.
        draw: chance, for spreading.
        budget: shared by the keepers of one network attachment.
        requires_document: without a document the standing is BLOCKED, not BASE.
        on_change: called with each change, after it has taken effect.
    """

    def __init__(
        self,
        source: PvdSource,
        *,
        fetch: Fetch,
        cache: PvdCache,
        options: FetchOptions = DEFAULT_OPTIONS,
        clock: Clock | None = None,
        draw: Draw = random.random,
        budget: FetchBudget | None = None,
        requires_document: bool = False,
        on_change: Callable[[DocumentChanged], None] = lambda _: None,
    ) -> None:
        self.source = source
        self.error: MasqueError | None = None
        """Why the last fetch failed; None after a success."""
        self._fetch = fetch
        self._cache = cache
        self._options = options
        self._clock = clock or MonotonicClock()
        self._schedule = RefreshSchedule(draw)
        self._budget = budget or FetchBudget()
        self._requires_document = requires_document
        self._on_change = on_change
        self._current: Fetched | None = None
        self._changes: deque[DocumentChanged] = deque(maxlen=MAX_CHANGES_KEPT)
        self._fetching: asyncio.Task[Fetched] | None = None
        self._wake = asyncio.Event()
        self._decided = asyncio.Event()

    @property
    def document(self) -> PvdDocument | None:
        """The one that counts at this moment; never an expired one, even if `run` has had no turn since."""
        return self._current.document if self._current and not self._is_expired() else None

    @property
    def standing(self) -> Standing:
        """See `Standing`."""
        if self.document is not None:
            return Standing.CURRENT
        return Standing.BLOCKED if self._requires_document else Standing.BASE

    @property
    def changes(self) -> tuple[DocumentChanged, ...]:
        """The latest changes, oldest first."""
        return tuple(self._changes)

    @property
    def next_fetch_in_s(self) -> float | None:
        """Seconds until the next attempt; None when only a change of the network or a wish of the user causes one."""
        return None if self._schedule.fetch_at is None else max(0.0, self._schedule.fetch_at - self._clock.now())

    async def decided(self) -> None:
        """Wait until there is a document, or the first attempt has failed (then see `error`)."""
        await self._decided.wait()

    def refresh(self) -> None:
        """Fetch as soon as the budget allows: the user asks for it."""
        self._schedule.need(self._clock.now())
        self._wake.set()

    def network_changed(self) -> None:
        """Another network attachment: what failed may work, and a fetch under way may hang."""
        self._budget.network_changed()
        was_fetching = self._abandon_fetch()
        if was_fetching or self._current is None or self.error is not None:
            self._schedule.need(self._clock.now())
        self._wake.set()

    def invalidate(self, delay_s: float) -> None:
        """The network announced another version (RFC 8801 §4.1): discard the document, fetch after `delay_s`.

        The delay is `schedule.sequence_delay_s`; it may not be shortened.
        """
        self._abandon_fetch()
        self._cache.discard(self.source)
        self._schedule.expires_at = None
        self._schedule.need(self._clock.now() + delay_s)
        self._replace(None, Cause.INVALIDATED)
        self._wake.set()

    async def run(self) -> None:
        """Keep the document current until cancelled."""
        self._load()
        try:
            while True:
                self._wake.clear()
                self._collect()
                if self._current is not None and self._is_expired():
                    self._expire()
                self._start_fetch_if_due()
                await self._sleep()
        finally:
            fetching = self._fetching
            if self._abandon_fetch() and fetching is not None:
                await asyncio.wait([fetching])  # its socket is closed when we end

    # --- steps of `run` -----------------------------------------------------------------------------------------------

    def _load(self) -> None:
        kept = self._cache.load(self.source, self._options)
        if kept is None:
            self._schedule.need(self._clock.now())
        else:
            self._accept(kept, Cause.LOADED)

    def _collect(self) -> None:
        """Take the outcome of a finished fetch."""
        if self._fetching is None or not self._fetching.done():
            return
        fetching, self._fetching = self._fetching, None
        identifier = self.source.expected_identifier
        try:
            fetched = fetching.result()
        except MasqueError as error:
            logger.warning("no new PvD document of %s: %s", identifier, error)
            self.error = error
            self._budget.failed(identifier)
            self._schedule.failed(self._clock.now(), error)
            self._decided.set()
        else:
            self.error = None
            self._budget.succeeded(identifier)
            self._cache.store(self.source, fetched.download)
            self._accept(fetched, Cause.FETCHED)

    def _start_fetch_if_due(self) -> None:
        due, now = self._schedule.fetch_at, self._clock.now()
        if self._fetching is not None or due is None or due > now:
            return
        identifier = self.source.expected_identifier
        self._schedule.fetch_at = self._budget.earliest(identifier, now)
        if self._schedule.fetch_at is None:
            logger.warning("no further attempts for the PvD document of %s on this network", identifier)
        elif self._schedule.fetch_at <= now:
            self._schedule.fetch_at = None
            self._budget.requested(identifier, now)
            previous = self._current.download if self._current else None
            self._fetching = asyncio.create_task(self._call_fetch(previous))
            self._fetching.add_done_callback(lambda _: self._wake.set())

    async def _call_fetch(self, previous: Download | None) -> Fetched:
        return await self._fetch(self.source, previous=previous)

    async def _sleep(self) -> None:
        timeout = self._schedule.next_timeout(is_fetching=self._fetching is not None)
        wait_s = LONGEST_WAIT_S if timeout is None else min(LONGEST_WAIT_S, max(0.0, timeout - self._clock.now()))
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    # --- changing the document ----------------------------------------------------------------------------------------

    def _accept(self, fetched: Fetched, cause: Cause) -> None:
        wall = self._options.now()
        self._schedule.accepted(
            self._clock.now(),
            remaining_s=(fetched.document.usable_until - wall).total_seconds(),
            age_s=max(0.0, (wall - fetched.download.received_at).total_seconds()),
            fresh_for_s=fetched.download.fresh_for_s,
        )
        self._replace(fetched, cause)
        self._decided.set()

    def _is_expired(self) -> bool:
        """By either clock: the monotonic one is right when the time of day is set, the other one after a sleep."""
        assert self._current is not None
        expires_at = self._schedule.expires_at
        is_over = expires_at is not None and self._clock.now() >= expires_at
        return is_over or self._options.now() >= self._current.document.usable_until

    def _expire(self) -> None:
        self._cache.discard(self.source)
        self._schedule.expire(self._clock.now())
        self._replace(None, Cause.EXPIRED)

    def _replace(self, fetched: Fetched | None, cause: Cause) -> None:
        old, self._current = self._current, fetched
        change = DocumentChanged.between(old and old.document, fetched and fetched.document, cause)
        if change.old == change.new:
            return
        self._changes.append(change)
        is_remarkable = change.is_about_proxies or change.new is None
        logger.log(logging.WARNING if is_remarkable else logging.INFO, "%s", change)
        self._on_change(change)

    def _abandon_fetch(self) -> bool:
        """Cancel a fetch under way; whether there was one."""
        fetching, self._fetching = self._fetching, None
        if fetching is None:
            return False
        if fetching.done():
            fetching.exception()  # looked at, so that asyncio does not complain
        fetching.cancel()
        return True
