"""One attempt to have a lost tunnel back: dial anew, ask for the same addresses, see that packets come back.

Names are looked up again for every attempt, and where the proxies come from a document, that is asked for again too: so
a proxy that has moved to another address or port is found.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from masque_client.errors import ConnectionLost, MasqueError, TimedOut
from masque_client.netio.clock import Clock
from masque_client.pvd.proxies import PvdProxy
from masque_client.tunnel.carrier import CLAIM_ATTEMPTS, Carrier
from masque_client.tunnel.opener import OnFailure, Opener
from masque_client.tunnel.options import AddressRequestMode, TunnelOptions
from masque_client.tunnel.probe import probe
from masque_client.tunnel.proxies import ProxyChoice
from masque_client.tunnel.reconnect import attempt_timeout_s
from masque_client.tunnel.recovery import Regained

logger = logging.getLogger(__name__)

REFRESH_INTERVAL_S = 10.0
"""How often, at most, the document is asked for while the tunnel is down."""


class Redial:
    """The attempts of one tunnel.

    Args:
        on_choice: told of the proxies and rules that count from now on, when the document has changed.
    """

    def __init__(
        self,
        options: TunnelOptions,
        opener: Opener,
        clock: Clock,
        *,
        on_failure: OnFailure,
        on_choice: Callable[[ProxyChoice], None],
    ) -> None:
        self._options = options
        self._opener = opener
        self._clock = clock
        self._choice = options.proxies
        self._on_failure = on_failure
        self._on_choice = on_choice
        self._may_claim = options.address_request is not AddressRequestMode.NEVER
        self._refresh: asyncio.Task[ProxyChoice] | None = None
        self._refreshed_at = -REFRESH_INTERVAL_S

    def close(self) -> None:
        """Give up what is under way beside the attempts."""
        if self._refresh is not None:
            self._refresh.cancel()

    async def attempt(self, number: int, lost: Carrier, *, needs_proof: bool) -> Regained:
        """One attempt to replace `lost`.

        Args:
            needs_proof: a probe came back through the tunnel before, so one must again.

        Raises:
            MasqueError: it failed. Nothing is left of it.
        """
        if number > 1:
            self._follow_document()
        carrier = await self._open(number, lost)
        carrier.connection.repeat_last_words(lost.connection)
        try:
            await self._regain_addresses(carrier, lost)
            probe_rtt_s = await probe(carrier.stream, carrier.session, self._clock)
            if carrier.stream.is_closed:
                raise await carrier.stream.wait_closed() or ConnectionLost("the proxy closed the tunnel at once")
            if needs_proof and probe_rtt_s is None:
                raise TimedOut(f"{carrier.template.host} opened the tunnel again, but nothing came back through it")
        except BaseException:
            carrier.close("the tunnel is of no use")
            raise
        return Regained(carrier, probe_rtt_s)

    async def _open(self, number: int, lost: Carrier) -> Carrier:
        """The proxy that had the tunnel first: it may still have its addresses. What it says decides whether to go on.

        Were it asked otherwise, a spare proxy that refuses us would end a tunnel whose own proxy only restarts.
        """
        former = lost.proxy.authority
        failures: dict[bool, MasqueError] = {}

        def on_failure(proxy: PvdProxy, error: MasqueError) -> None:
            failures[proxy.authority == former] = error
            self._on_failure(proxy, error)

        candidates = sorted(self._choice.candidates, key=lambda proxy: proxy.authority != former)
        try:
            return await self._opener.open_first(
                candidates,
                on_failure,
                timeout_s=attempt_timeout_s(number),
                known={former: lost.connection.address},
            )
        except MasqueError as error:
            raise failures.get(True, error) from None

    async def _regain_addresses(self, carrier: Carrier, lost: Carrier) -> None:
        """Those that the tunnel had, if the proxy gives them; else what it gives."""
        if not lost.has_asked:
            await carrier.wait_unprompted()
        if self._may_claim:
            is_same_proxy = carrier.proxy.authority == lost.proxy.authority
            await carrier.claim(lost.prefixes, attempts=CLAIM_ATTEMPTS if is_same_proxy else 1)
            # Some proxies end the tunnel for a request: next time, take what they give.
            self._may_claim = not carrier.stream.is_closed
        await carrier.wait_addresses(self._options.address_request if self._may_claim else AddressRequestMode.NEVER)

    def _follow_document(self) -> None:
        """Ask for the document again, and use what a former question has brought. Its failure is no news now."""
        refresh = self._options.refresh_proxies
        if refresh is None:
            return
        if self._refresh is not None and self._refresh.done():
            done, self._refresh = self._refresh, None
            try:
                choice = done.result()
            except MasqueError as error:
                logger.info("no newer document: %s", error)
            else:
                if choice != self._choice:
                    self._choice = choice
                    self._on_choice(choice)
        now = self._clock.now()
        if self._refresh is None and now - self._refreshed_at >= REFRESH_INTERVAL_S:
            self._refreshed_at = now
            self._refresh = asyncio.create_task(_ask(refresh))
            self._refresh.add_done_callback(lambda done: done.cancelled() or done.exception())  # we may be gone by then


async def _ask(refresh: Callable[[], Awaitable[ProxyChoice]]) -> ProxyChoice:
    return await refresh()
