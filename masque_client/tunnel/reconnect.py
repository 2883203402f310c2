"""Whether a lost tunnel may come back by itself, and when the next attempt is due. Pure: errors in, seconds out.

A tunnel that was up keeps its device, addresses and routes while it is down: what was meant for it goes nowhere else
meanwhile. So trying again costs nothing but patience, and only answers that a person must hear of end it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from masque_client.errors import AddressInUse, MasqueError, ProxyRefused, concerns_whole_proxy

FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 30.0
LONGEST_RETRY_AFTER_S: Final = 3600.0
"""A proxy may ask for more; we look again after this."""
STABLE_S: Final = 30.0
"""A tunnel lost sooner than this after it came up goes on where the delays stood: it must not hammer its proxy."""
QUICK_ATTEMPTS: Final = 5
QUICK_ATTEMPT_S: Final = 5.0
ATTEMPT_S: Final = 10.0
"""How long to dial. The first attempts are short, because a handshake that is repeated ever more rarely notices late
that the path is back; the later ones have time for slow paths."""

_BUSY: Final = frozenset({408, 425, 429})
"""Refusals that are about the moment (RFC 9110 §15.5.9, RFC 8470 §5.2, RFC 6585 §4), next to 5xx."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A tunnel that is down and will be tried again.

    Attributes:
        reason: what was lost first, then how the last attempt failed; one clause for a person.
        attempt: the number of the attempt that is under way or due.
        since: when the tunnel was lost, on the tunnel's clock.
    """

    reason: str
    attempt: int
    since: float


def may_pass(error: MasqueError) -> bool:
    """Whether the same attempt may succeed later, with nobody doing anything here.

    True for a proxy that is not there, falls silent, is busy or went away, whatever code it went with (deployed proxies
    choose them loosely). False for refused credentials and certificates, a URL that leads nowhere, a proxy that breaks
    the standard, and for what this machine refuses, unless it only has no address yet on a new network.
    """
    if isinstance(error, ProxyRefused) and error.status is not None:
        return error.status in _BUSY or (error.status >= 500 and not concerns_whole_proxy(error))
    return error.retryable or isinstance(error, AddressInUse)  # EADDRNOTAVAIL: no address to send from, at the moment


def delay_s(attempt: int, error: MasqueError, chance: float) -> float:
    """Seconds to wait before attempt number `attempt` (from 1): 0.1, 0.2, 0.4, … 30, of which up to half by chance.

    Args:
        error: what the last attempt ended with. A Retry-After in it is a lower bound (RFC 9110 §10.2.3).
        chance: from 0 to 1. Without it all clients of a proxy that restarts would come back at once.
    """
    full = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(attempt - 1, 30))
    asked = getattr(error, "retry_after_s", None) or 0.0
    return max(full * (1.0 - chance / 2), min(asked, LONGEST_RETRY_AFTER_S))


def next_attempt_s(
    attempt: int, error: MasqueError, *, chance: float, down_s: float, give_up_after_s: float | None
) -> float | None:
    """Seconds until attempt number `attempt`; None when there is to be none, and `error` is the end.

    Args:
        down_s: how long the tunnel has been down.
        give_up_after_s: how long it may be, at most; None for ever.
    """
    if not may_pass(error):
        return None
    wait_s = delay_s(attempt, error, chance)
    is_too_late = give_up_after_s is not None and down_s + wait_s > give_up_after_s
    return None if is_too_late else wait_s


def attempt_timeout_s(attempt: int) -> float:
    """How long attempt number `attempt` may dial."""
    return QUICK_ATTEMPT_S if attempt <= QUICK_ATTEMPTS else ATTEMPT_S
