"""Waiting for a proxy that says when to come back: 429 or 503 with Retry-After (RFC 9110 §10.2.3), within bounds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from masque_client.errors import ProxyRefused

logger = logging.getLogger(__name__)

PATIENCE_S = 15.0
"""How long a start may take because of this, in total, unless the user says otherwise."""
SHORTEST_WAIT_S = 0.5
"""`Retry-After: 0` is no leave to hammer."""
_COME_BACK = frozenset({429, 503})

T = TypeVar("T")


async def patiently(attempt: Callable[[], Awaitable[T]], patience_s: float) -> T:
    """Run `attempt` until it does not end with such an answer, or until the proxy asks for more than is left.

    Raises:
        ProxyRefused: the proxy's last answer. It says how long the proxy asks to wait; nobody has waited in vain.
        MasqueError: whatever else `attempt` raises.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + patience_s
    while True:
        try:
            return await attempt()
        except ProxyRefused as error:
            if error.status not in _COME_BACK or error.retry_after_s is None:
                raise
            wait_s = max(error.retry_after_s, SHORTEST_WAIT_S)
            if loop.time() + wait_s > give_up_at:
                raise
            logger.info("%s; waiting %g s, as it asks", error, wait_s)
        await asyncio.sleep(wait_s)
