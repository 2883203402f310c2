"""Discovery: from a name to the proxies that can be tried. What the tunnel manager and the command line call."""

from __future__ import annotations

from dataclasses import dataclass

from masque_client.engine.interface import TlsConfiguration
from masque_client.pvd.cache import PvdCache, fetch_cached
from masque_client.pvd.fetch import DEFAULT_OPTIONS, Download, FetchOptions
from masque_client.pvd.match import Matcher, preference
from masque_client.pvd.model import PvdDocument
from masque_client.pvd.proxies import ProxyProtocol, PvdProxy
from masque_client.pvd.source import PvdSource


@dataclass(frozen=True, slots=True)
class Discovery:
    """A document and where it came from. For one destination use `matcher`; for a tunnel of all, `candidates`.

    Attributes:
        source: what was asked for.
        document: what may be used.
        download: how it arrived; None for a document that was not fetched.
        is_from_cache: it arrived in an earlier run.
    """

    source: PvdSource
    document: PvdDocument
    download: Download | None = None
    is_from_cache: bool = False

    def candidates(self, protocol: ProxyProtocol) -> list[PvdProxy]:
        """Usable proxies of one protocol, best first.

        Those without an identifier come first: they take any destination. Those with one follow in the order in
        which rules name them, and not at all if none does (PROXY-CONFIG §3.1); what their rules leave out must not
        be sent to them. Among equals the best HTTP version wins.
        """
        proxies = sorted((proxy for proxy in self.document.proxies if proxy.protocol is protocol), key=preference)
        named = dict.fromkeys(identifier for rule in self.document.rules for identifier in rule.proxies)
        free = [proxy for proxy in proxies if proxy.identifier is None]
        return free + [proxy for identifier in named for proxy in proxies if proxy.identifier == identifier]

    def matcher(self) -> Matcher:
        """The document's rules, compiled. Keep the result: compiling costs more than matching."""
        return Matcher(self.document.proxies, self.document.rules)


async def discover(
    source: PvdSource | str,
    *,
    tls: TlsConfiguration | None = None,
    options: FetchOptions = DEFAULT_OPTIONS,
    cache: PvdCache | None = None,
    refresh: bool = False,
) -> Discovery:
    """Get and validate the PvD document of a host, `host:port`, template or document URL. Raises as `fetch_pvd`.

    Args:
        source: see `PvdSource.parse`.
        tls: see `fetch_pvd`.
        options: see `FetchOptions`.
        cache: a usable document in it is not fetched again; None fetches always.
        refresh: fetch in any case, and put the result into the cache.
    """
    if isinstance(source, str):
        source = PvdSource.parse(source)
    fetched = await fetch_cached(source, cache or PvdCache(None), tls=tls, options=options, refresh=refresh)
    return Discovery(source, fetched.document, fetched.download, fetched.is_from_cache)
