"""Has a lost tunnel back: attempt after attempt, when `tunnel.reconnect` says that one is due."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from masque_client.errors import MasqueError
from masque_client.netio.clock import Clock
from masque_client.tunnel.carrier import Carrier
from masque_client.tunnel.reconnect import STABLE_S, Outage, next_attempt_s

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Regained:
    """A carrier that is ready to be adopted. `probe_rtt_s` as in `TunnelStatus`."""

    carrier: Carrier
    probe_rtt_s: float | None


Attempt = Callable[[int], Awaitable[Regained]]
"""One attempt, given its number; raises `MasqueError`."""


class Recovery:
    """One tunnel's outages.

    Args:
        give_up_after_s: see `TunnelOptions`.
        on_change: called when `outage` has changed, except when it ends.

    Attributes:
        outage: the present one; None while the tunnel is up.
        count: outages that ended well.
        last_s: how long the last of those lasted.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        give_up_after_s: float | None,
        on_change: Callable[[], None],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.outage: Outage | None = None
        self.count = 0
        self.last_s: float | None = None
        self._clock = clock
        self._give_up_after_s = give_up_after_s
        self._on_change = on_change
        self._chance = chance
        self._attempts = 0
        self._up_since = clock.now()

    async def recover(self, error: MasqueError, attempt: Attempt) -> Regained:
        """Call `attempt` at ever greater distances until it succeeds; `error` is what the tunnel was lost with.

        Raises:
            MasqueError: the last reason, which does not pass, or has lasted too long.
        """
        since = self._clock.now()
        if since - self._up_since >= STABLE_S:
            self._attempts = 0
        while True:
            self._attempts += 1
            wait_s = next_attempt_s(
                self._attempts,
                error,
                chance=self._chance(),
                down_s=self._clock.now() - since,
                give_up_after_s=self._give_up_after_s,
            )
            if wait_s is None:
                raise error
            logger.info("the tunnel is down: %s; attempt %d in %.1f s", error, self._attempts, wait_s)
            self.outage = Outage(str(error), self._attempts, since)
            self._on_change()
            await asyncio.sleep(wait_s)
            try:
                regained = await attempt(self._attempts)
            except MasqueError as failure:
                error = failure
            else:
                break
        self.outage, self.count = None, self.count + 1
        self._up_since = self._clock.now()
        self.last_s = self._up_since - since
        return regained
