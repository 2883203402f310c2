"""Fetching a PvD document over HTTPS: one attempt, start to end (RFC 8801 §4.1, PROXY-CONFIG §2).

    fetch_pvd = download (follow redirects, judge status and type) + evaluate (parse, judge who delivered it)

When to try, and when to try again, is the caller's business: errors whose `retryable` is True may pass; the others
stay until the network or the configuration changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from ipaddress import IPv6Network
from typing import NamedTuple
from urllib.parse import urljoin

from masque_client.engine.interface import TlsConfiguration
from masque_client.errors import ConfigurationError, PvdError, PvdUnavailable, TimedOut
from masque_client.netio.resolver import Resolve, resolve_system
from masque_client.pvd.http_fields import CacheControl, parse_etag, parse_http_date, parse_retry_after
from masque_client.pvd.https import HttpsResponse, client_ssl_context, https_get
from masque_client.pvd.model import MAX_LIFETIME, PvdDocument, parse_pvd
from masque_client.pvd.names import HostPort
from masque_client.pvd.policy import DEFAULT_POLICY, ParsePolicy
from masque_client.pvd.proxies import is_unreachable_literal
from masque_client.pvd.source import PvdSource
from masque_client.pvd.values import Ignored, quoted

MEDIA_TYPE = "application/pvd+json"
MAX_REDIRECTS = 5
TOTAL_TIMEOUT_S = 10.0
MAX_CLOCK_DIFFERENCE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """What may differ between fetches.

    Attributes:
        policy: what a document may say on this machine.
        trusted_hosts: other hosts (canonical names) that may deliver proxies and rules after a redirect.
        timeout_s: for everything: names, redirects, content.
        resolve: host and port to addresses.
        now: the wall clock, aware.
        ra_prefixes: for the document of a router advertisement's PvD, the prefixes it advertised; None for a proxy's.
        mark: firewall mark of the connection (SO_MARK), for when a tunnel of ours is in the way.
        interface: send through this network interface only (RFC 8801 §4.1); None leaves it to the routes.
    """

    policy: ParsePolicy = DEFAULT_POLICY
    trusted_hosts: frozenset[str] = frozenset()
    timeout_s: float = TOTAL_TIMEOUT_S
    resolve: Resolve = resolve_system
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ra_prefixes: tuple[IPv6Network, ...] | None = None
    interface: str | None = None
    mark: int | None = None


DEFAULT_OPTIONS = FetchOptions()


@dataclass(frozen=True, slots=True)
class Download:
    """What came over the wire, before it is believed.

    Attributes:
        body: the content, decoded.
        delivered_by: the host whose certificate it came under: the last one of a redirect chain.
        received_at: our wall clock then.
        served_at: the server's, from the Date field; None when absent or unreadable.
        may_store: False forbids writing it to disk (`Cache-Control: no-store`).
        fresh_for_s: after this the host wants to be asked again (`max-age`); None when it does not say. It never
            prolongs anything.
        url: the last one of a redirect chain.
        etag: the validator that `url` gave.
    """

    body: bytes
    delivered_by: str
    received_at: datetime
    served_at: datetime | None
    may_store: bool
    fresh_for_s: float | None = None
    url: str = ""
    etag: str | None = None


class Fetched(NamedTuple):
    """What came, and what it means; `is_from_cache` when it had come before."""

    download: Download
    document: PvdDocument
    is_from_cache: bool = False


async def fetch_pvd(
    source: PvdSource, *, tls: TlsConfiguration | None = None, options: FetchOptions = DEFAULT_OPTIONS
) -> PvdDocument:
    """Fetch, verify and parse the document of `source`.

    Args:
        source: see `PvdSource.parse`.
        tls: only `ca_file` is used; see `https.client_ssl_context`.
        options: limits, policy and injected dependencies.

    Raises:
        NameResolutionError, ConnectError, TlsError: the host was not reached.
        TimedOut: it was slower than `options.timeout_s` altogether.
        PvdUnavailable: it answered 429 or 5xx.
        PvdError: it has no document, or one that must not be used.
        ConfigurationError: `tls.ca_file` is unusable.
    """
    return (await fetch(source, tls=tls, options=options)).document


async def fetch(
    source: PvdSource,
    *,
    tls: TlsConfiguration | None = None,
    options: FetchOptions = DEFAULT_OPTIONS,
    previous: Download | None = None,
) -> Fetched:
    """`fetch_pvd` for those who keep downloads: with the `previous` one the host may answer "not modified".

    If what it thereby confirms can no longer be used, the whole document is asked for. Raises as `fetch_pvd` does.
    """
    downloaded = await download(source, tls=tls, options=options, previous=previous)
    try:
        # In a thread: the largest documents take most of a second, and a refresh must not stall a running tunnel.
        return Fetched(downloaded, await asyncio.to_thread(evaluate, downloaded, source, options))
    except PvdError:
        if previous is None or downloaded.body is not previous.body:
            raise
    downloaded = await download(source, tls=tls, options=options)
    return Fetched(downloaded, await asyncio.to_thread(evaluate, downloaded, source, options))


async def download(
    source: PvdSource,
    *,
    tls: TlsConfiguration | None = None,
    options: FetchOptions = DEFAULT_OPTIONS,
    previous: Download | None = None,
) -> Download:
    """The first half of `fetch`; hand the result to `evaluate`. Raises as `fetch_pvd` does."""
    context = client_ssl_context(tls or TlsConfiguration())
    url = source.url
    try:
        async with asyncio.timeout(options.timeout_s):
            for _ in range(MAX_REDIRECTS + 1):
                validators = _validators(previous, url)
                response = await https_get(
                    url,
                    MEDIA_TYPE,
                    context,
                    options.resolve,
                    fields=validators,
                    interface=options.interface,
                    mark=options.mark,
                )
                if previous is not None and validators and response.status == HTTPStatus.NOT_MODIFIED:
                    return _confirmed(previous, response, options.now())
                if not 300 <= response.status <= 399:
                    return _accept(response, url, options.now())
                url = redirect_target(response, url)
    except TimeoutError as error:
        host = source.expected_identifier
        raise TimedOut(f"{host} did not deliver its PvD document within {options.timeout_s:g} s") from error
    raise PvdError(f"{source.url} redirects more than {MAX_REDIRECTS} times")


def evaluate(downloaded: Download, source: PvdSource, options: FetchOptions = DEFAULT_OPTIONS) -> PvdDocument:
    """Parse a download, and set its proxies aside if a host delivered them that does not speak for the proxy.

    RFC 8801 §4.1 lets redirects lead to other hosts; PROXY-CONFIG §6 wants proxy host, identifier and certificate to
    agree. So such a document counts, but not its proxies and rules, unless `options.trusted_hosts` names the host.
    Its lifetime counts from when it was received, so that a download that was stored meanwhile gains nothing.

    Raises:
        PvdError: the document is unusable.
    """
    now = options.now()
    skew = _clock_skew(downloaded)
    document = parse_pvd(
        downloaded.body,
        expected_identifier=source.expected_identifier,
        now=now - skew,
        from_ra_prefixes=options.ra_prefixes,
        policy=options.policy,
    )
    usable_until = min(document.usable_until + skew, downloaded.received_at + MAX_LIFETIME)
    if usable_until <= now:
        raise PvdError(f"the PvD document was received too long ago, at {downloaded.received_at.isoformat()}")
    warnings = (f"this machine's clock differs from the server's by {skew}",) if skew else ()
    document = replace(document, usable_until=usable_until, warnings=(*document.warnings, *warnings))
    speaks_for_proxy = {source.expected_identifier, HostPort.of_https_url(source.url).host, *options.trusted_hosts}
    if downloaded.delivered_by not in speaks_for_proxy:
        return _without_proxies(document, downloaded.delivered_by)
    return document


def _without_proxies(document: PvdDocument, host: str) -> PvdDocument:
    reason = f"delivered by {host}, which does not speak for {document.identifier}"
    return replace(
        document,
        proxies=(),
        rules=(),
        is_proxy_configuration_ignored=True,
        ignored=(*document.ignored, Ignored("/proxies", reason), Ignored("/proxy-match", reason)),
    )


def _clock_skew(downloaded: Download) -> timedelta:
    """How far we are ahead of the server, when that is too much to compare our clock with its `expires`."""
    if downloaded.served_at is None:
        return timedelta()
    skew = downloaded.received_at - downloaded.served_at
    return skew if abs(skew) > MAX_CLOCK_DIFFERENCE else timedelta()


# --- judging a response -----------------------------------------------------------------------------------------------


def _accept(response: HttpsResponse, url: str, now: datetime) -> Download:
    host = HostPort.of_https_url(url).host
    if not 200 <= response.status <= 299:
        raise _status_error(response, host, now)
    if not response.content:
        raise PvdError(f"{host} answered {response.status} with an empty PvD document")
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != MEDIA_TYPE:
        raise PvdError(f"{host} answered with content of type {quoted(media_type)}, not {MEDIA_TYPE}")
    caching = CacheControl.parse(response.headers)
    return Download(
        body=response.content,
        delivered_by=host,
        received_at=now,
        served_at=parse_http_date(response.headers.get("date")),
        may_store=caching.may_store,
        fresh_for_s=caching.fresh_for_s,
        url=url,
        etag=parse_etag(response.headers.get("etag")),
    )


def _validators(previous: Download | None, url: str) -> list[tuple[str, str]]:
    """An entity tag goes back only to the very URL that gave it."""
    if previous is None or previous.etag is None or previous.url != url:
        return []
    return [("if-none-match", previous.etag)]


def _confirmed(previous: Download, response: HttpsResponse, now: datetime) -> Download:
    """The same content, received anew (RFC 9111 §4.3.4). Its `expires` stands in the content and stays."""
    caching = CacheControl.parse(response.headers)
    return replace(
        previous,
        received_at=now,
        served_at=parse_http_date(response.headers.get("date")),
        may_store=previous.may_store and caching.may_store,
        fresh_for_s=previous.fresh_for_s if caching.fresh_for_s is None else caching.fresh_for_s,
    )


def _status_error(response: HttpsResponse, host: str, now: datetime) -> PvdError:
    answer = _status_text(response.status)
    if response.status == HTTPStatus.TOO_MANY_REQUESTS or response.status >= 500:
        return PvdUnavailable(
            f"{host} cannot serve its PvD document now: {answer}",
            status=response.status,
            retry_after_s=parse_retry_after(response.headers.get("retry-after"), now),
        )
    if response.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        hint = "the host may not be a MASQUE proxy; if it is, give the proxy's URI template instead"
        return PvdError(f"{host} has no PvD document: {answer}", hint=hint)
    return PvdError(f"{host} refuses its PvD document: {answer}")


def redirect_target(response: HttpsResponse, url: str) -> str:
    """The next URL: https, no credentials, no address that only this machine or link can reach.

    Raises:
        PvdError: anything else.
    """
    location: str | None = response.headers.get("location")
    if location is None or response.status == HTTPStatus.NOT_MODIFIED:
        raise PvdError(f"{url} answered {_status_text(response.status)} without a document or a place to go")
    try:
        target = urljoin(url, location).partition("#")[0]
        authority = HostPort.of_https_url(target)
    except (ConfigurationError, ValueError) as error:
        raise PvdError(f"{url} redirects to {quoted(location)}, which {error}") from error
    if is_unreachable_literal(authority):
        raise PvdError(f"{url} redirects to {authority}, an address that only this machine or link can reach")
    return target


def _status_text(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
