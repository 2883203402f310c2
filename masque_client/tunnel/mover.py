"""Takes a living tunnel to another connection, with the addresses it has, so that flows inside survive.

When that is worth it, and how the connection is had, stands in `tunnel.upgrade`; here is how the tunnel changes over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from masque_client.errors import ConnectionLost
from masque_client.http.connector import HttpVersion, ProxyConnection
from masque_client.netio.clock import Clock
from masque_client.protocol.mtu import MIN_IPV6_MTU
from masque_client.tunnel.carrier import Carrier
from masque_client.tunnel.local_end import LocalEnd
from masque_client.tunnel.opener import Opener
from masque_client.tunnel.upgrade import leave_departing, leave_narrow_path, return_to_http3

logger = logging.getLogger(__name__)


class Mover:
    """One tunnel's; at most one move is under way.

    Args:
        current: the carrier the tunnel has.
        adopt: makes another one the tunnel's, configured and forwarding.

    Attributes:
        lock: held while the tunnel is between two carriers.
    """

    def __init__(
        self,
        opener: Opener,
        clock: Clock,
        local: LocalEnd,
        *,
        current: Callable[[], Carrier],
        adopt: Callable[[Carrier], None],
    ) -> None:
        self.lock = asyncio.Lock()
        self._opener = opener
        self._clock = clock
        self._local = local
        self._current = current
        self._adopt = adopt
        self._task: asyncio.Task[None] | None = None

    def attend(self, carrier: Carrier) -> None:
        """Hear what happens to the connection that carries the tunnel now."""
        carrier.connection.http.on_packet_size.append(self.on_packet_size)
        carrier.connection.http.on_going_away.append(self._on_going_away)

    def return_to_http3(self) -> None:
        """From now on, look for a way back to HTTP/3."""
        self._start(self._return_to_http3())

    def stop(self) -> None:
        """No more moves; one under way is given up."""
        if self._task is not None:
            self._task.cancel()

    def on_packet_size(self) -> None:
        """The path carries larger or smaller packets than before: so does the tunnel."""
        stream = self._current().stream
        if not stream.is_open:
            return
        if self._opener.dial.http is not HttpVersion.AUTO or stream.max_payload >= MIN_IPV6_MTU:
            self._fit()
        elif self._task is None or self._task.done():
            self._start(self._leave_narrow_path())

    def _on_going_away(self) -> None:
        """The proxy will close the connection: have another one before it does."""
        if not self.lock.locked():  # else on the way already
            self.stop()
            self._start(self._leave_departing())

    def _start(self, task: Coroutine[Any, Any, None]) -> None:
        self._task = asyncio.create_task(task)

    async def _return_to_http3(self) -> None:
        await return_to_http3(*self._origin, self._opener.dial, self._clock, self._move)

    async def _leave_departing(self) -> None:
        await leave_departing(*self._origin, self._opener.dial, self._clock, self._move)
        if self._current().connection.fallback_reason is not None:
            await self._return_to_http3()

    async def _leave_narrow_path(self) -> None:
        """The device keeps its addresses meanwhile; what does not fit is answered by the session."""
        carrier = self._current()
        carrier.session.max_packet = carrier.stream.max_payload
        if await leave_narrow_path(*self._origin, self._opener.dial, self._clock, self._move):
            await self._return_to_http3()
        else:
            self._fit()

    def _fit(self) -> None:
        """Give the device the packet size that the path has; a tunnel that can carry IPv6 no more must end for it.

        RFC 9484 §7.2. What comes in its place knows the path, and has no IPv6 from the start.
        """
        stream, configuration = self._current().stream, self._local.configuration
        assert configuration is not None
        if stream.max_payload < MIN_IPV6_MTU and any(address.version == 6 for address in configuration.addresses):
            stream.abort(ConnectionLost("the path has become too narrow for IPv6 packets of 1280 bytes"))
        else:
            self._local.reconfigure()

    @property
    def _origin(self) -> tuple[str, int]:
        template = self._current().template
        return template.host, template.port

    async def _move(self, connection: ProxyConnection) -> None:
        """Take the tunnel over to `connection`.

        The new session is open before the old one goes; what is lost in between is a round trip's packets. A proxy
        that gives out other addresses gets the device re-addressed.

        Raises:
            MasqueError: the new session did not come about. The tunnel is as before, `connection` is closed.
        """
        try:
            carrier = await self._opener.open_on(self._current().proxy, connection)
        except BaseException:
            connection.close()
            raise
        try:
            async with self.lock:
                old = self._current()
                self._local.pause()
                old.stream.close()
                await carrier.claim(old.prefixes)
                old.connection.close(f"moved to HTTP/{connection.http_version}")
                logger.info("the tunnel moved to HTTP/%d", connection.http_version)
                self._adopt(carrier)
        except BaseException:
            carrier.close()
            raise
