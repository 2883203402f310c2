"""Proxies and rules that follow their document: fetched at the start, renewed while in use, gone when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from masque_client.engine.interface import TlsConfiguration
from masque_client.errors import PvdError
from masque_client.netio.clock import Clock
from masque_client.pvd.cache import PvdCache
from masque_client.pvd.changes import DocumentChanged
from masque_client.pvd.discover import Discovery
from masque_client.pvd.fetch import fetch
from masque_client.pvd.keeper import PvdKeeper
from masque_client.pvd.model import PvdDocument
from masque_client.pvd.proxies import ProxyProtocol
from masque_client.pvd.source import PvdSource
from masque_client.tunnel.proxies import ProxyChoice, choose

OnChange = Callable[[DocumentChanged, ProxyChoice | None], None]
"""Told of every later change and what to use now; None: nothing, the document ended or offers no proxy any more."""


@asynccontextmanager
async def following(
    source: PvdSource,
    protocol: ProxyProtocol,
    tls: TlsConfiguration,
    clock: Clock,
    on_change: OnChange,
    *,
    cache: PvdCache | None = None,
) -> AsyncIterator[ProxyChoice]:
    """The proxies of a document, for the length of a block in which the document is kept current.

    Args:
        cache: where to start from, and where new documents go; none beyond this process by default.

    Raises:
        PvdError: the document names no such proxy, or must not be used.
        ConnectError, TlsError, TimedOut: it could not be fetched.
    """

    def chosen(document: PvdDocument | None) -> ProxyChoice | None:
        try:
            return choose(Discovery(source, document), protocol) if document is not None else None
        except PvdError:
            return None

    def changed(change: DocumentChanged) -> None:
        if change.old is not None or is_started:
            on_change(change, chosen(change.new))

    is_started = False
    keeper = PvdKeeper(
        source, fetch=partial(fetch, tls=tls), cache=cache or PvdCache(None), clock=clock, on_change=changed
    )
    task = asyncio.create_task(keeper.run())
    try:
        await keeper.decided()
        if keeper.document is None:
            raise keeper.error or PvdError(f"the PvD document of {source.expected_identifier} has just expired")
        is_started = True
        yield choose(Discovery(source, keeper.document), protocol)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
