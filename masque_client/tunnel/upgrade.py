"""Another connection for a living tunnel: when it is worth one, and how it is had. The manager moves the session.

Back to HTTP/3: over TCP, inner and outer loss recovery fight (RFC 9298 §6), so HTTP/2 is a makeshift; but what blocked
UDP may go: another network, another rule. The first tries come soon, because a lost handshake also looks like a block.
To HTTP/2, when a path becomes so narrow in mid-life that HTTP/3 cannot carry IPv6 inside any more. And away from a
proxy that says goodbye, before it goes (RFC 9114 §5.2).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from masque_client.errors import ConnectError, MasqueError
from masque_client.http.connector import ConnectOptions, HttpVersion, ProxyConnection, connect
from masque_client.http.dial import PATH_MTU
from masque_client.netio.clock import Clock

logger = logging.getLogger(__name__)

FIRST_RETRY_S = 10.0
LONGEST_RETRY_S = 600.0
ATTEMPT_TIMEOUT_S = 5.0
LONGEST_DEPARTURE_RETRY_S = 30.0


async def return_to_http3(
    host: str,
    port: int,
    options: ConnectOptions,
    clock: Clock,
    move: Callable[[ProxyConnection], Awaitable[None]],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Connect over HTTP/3, after 10, 20, 40, … and at most 600 seconds, until `move` has taken a connection over.

    `move` owns the connection it is given, also when it raises: then the tries go on.
    """
    options = replace(options, http=HttpVersion.HTTP_3, timeout_s=ATTEMPT_TIMEOUT_S)
    delay_s = FIRST_RETRY_S
    while True:
        await sleep(delay_s)
        try:
            await move(_wide_enough(await connect(host, port, options, clock), options.min_packet))
        except MasqueError as error:
            logger.info("still no HTTP/3: %s", error)
            delay_s = min(2 * delay_s, LONGEST_RETRY_S)
        else:
            return


async def leave_narrow_path(
    host: str, port: int, options: ConnectOptions, clock: Clock, move: Callable[[ProxyConnection], Awaitable[None]]
) -> bool:
    """Let `move` take over an HTTP/2 connection, which knows no path MTU; whether that worked."""
    try:
        connection = await connect(host, port, replace(options, http=HttpVersion.HTTP_2), clock)
        connection.fallback_reason = PATH_MTU
        await move(connection)
    except MasqueError as error:
        logger.warning("the path has become too narrow for IPv6 inside, and HTTP/2 does not help: %s", error)
        return False
    return True


async def leave_departing(
    host: str,
    port: int,
    options: ConnectOptions,
    clock: Clock,
    move: Callable[[ProxyConnection], Awaitable[None]],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Connect anew, at once and then after 1, 2, 4, … and at most 30 seconds, until `move` has taken one over."""
    delay_s = 1.0
    while True:
        try:
            await move(await connect(host, port, options, clock))
        except MasqueError as error:
            logger.info("the proxy is going away, and there is no new connection yet: %s", error)
            await sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DEPARTURE_RETRY_S)
        else:
            return


def _wide_enough(connection: ProxyConnection, min_packet: int) -> ProxyConnection:
    if not connection.carries(min_packet):
        connection.close("the path is too narrow")
        raise ConnectError(f"the path carries no {min_packet}-byte packets inside")
    return connection
