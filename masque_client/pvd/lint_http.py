"""How a PvD document is served: what of it makes clients refuse the document, or ask for it in vain (RFC 8801 §4.1).

`fetch` refuses at the first fault; this looks at each hop, names them all, and hands the content on for `lint`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus

from masque_client.engine.interface import TlsConfiguration
from masque_client.errors import MasqueError, PvdError, TimedOut
from masque_client.pvd.fetch import MAX_CLOCK_DIFFERENCE, MAX_REDIRECTS, MEDIA_TYPE, FetchOptions, redirect_target
from masque_client.pvd.http_fields import CacheControl, parse_http_date
from masque_client.pvd.https import HttpsResponse, client_ssl_context, https_get
from masque_client.pvd.names import HostPort
from masque_client.pvd.problems import Problem, Severity
from masque_client.pvd.source import PvdSource
from masque_client.pvd.values import quoted


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the host sent: the problems of sending it, and the content if there is any."""

    problems: tuple[Problem, ...]
    body: bytes | None


async def inspect(source: PvdSource, *, tls: TlsConfiguration, options: FetchOptions) -> Inspection:
    """Ask as a client would.

    Raises:
        NameResolutionError, ConnectError, TlsError: nothing can be said of a host that is not reached. (Behind a
            redirect, that is a problem of the document.)
        TimedOut: it was slower than `options.timeout_s`, as it would be for clients.
    """
    context = client_ssl_context(tls)
    problems: list[Problem] = []
    url = source.url
    try:
        async with asyncio.timeout(options.timeout_s):
            for _ in range(MAX_REDIRECTS + 1):
                response = await https_get(url, MEDIA_TYPE, context, options.resolve)
                if not 300 <= response.status <= 399:
                    problems += _response_problems(response, options.now())
                    return Inspection(tuple(problems), response.content or None)
                target = redirect_target(response, url)
                problems += _redirect_problems(source, url, target)
                url = target
    except TimeoutError as error:
        host = source.expected_identifier
        raise TimedOut(f"{host} did not deliver its PvD document within {options.timeout_s:g} s") from error
    except MasqueError as error:
        if url == source.url and not isinstance(error, PvdError):
            raise
        return Inspection((*problems, _problem(Severity.ERROR, str(error))), None)
    problems.append(_problem(Severity.ERROR, f"redirects more than {MAX_REDIRECTS} times; clients give up"))
    return Inspection(tuple(problems), None)


def _redirect_problems(source: PvdSource, url: str, target: str) -> list[Problem]:
    host = HostPort.of_https_url(target).host
    if host not in (source.expected_identifier, HostPort.of_https_url(source.url).host):
        message = f"{url} redirects to {host}, which does not speak for {source.expected_identifier}: clients ignore "
        return [_problem(Severity.ERROR, message + "the proxies and rules that come from there")]
    return [_problem(Severity.NOTE, f"{url} redirects to {target}: one round trip more for every client")]


def _response_problems(response: HttpsResponse, now: datetime) -> list[Problem]:
    if not 200 <= response.status <= 299:
        return [_problem(Severity.ERROR, f"the answer is {response.status}; clients take it that there is no document")]
    problems = []
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not response.content:
        problems.append(_problem(Severity.ERROR, f"the answer is {response.status} without content"))
    if media_type != MEDIA_TYPE:
        message = f"the content type is {quoted(media_type)}; clients want {MEDIA_TYPE} and ignore others"
        problems.append(_problem(Severity.ERROR, message))
    if response.status != HTTPStatus.OK:
        problems.append(_problem(Severity.WARNING, f"the status is {response.status}; some clients want 200"))
    return problems + _caching_problems(response, now)


def _caching_problems(response: HttpsResponse, now: datetime) -> list[Problem]:
    problems = []
    date = parse_http_date(response.headers.get("date"))
    if date is None:
        message = "no Date field: clients whose clock is wrong cannot tell when the document expires"
        problems.append(_problem(Severity.NOTE, message))
    elif abs(date - now) > MAX_CLOCK_DIFFERENCE:
        message = f"the host's clock ({date:%Y-%m-%dT%H:%M:%SZ}) differs from this machine's by {abs(date - now)}"
        problems.append(_problem(Severity.WARNING, message))
    if not CacheControl.parse(response.headers).may_store:
        message = "Cache-Control: no-store: clients cannot start from a kept document while they are offline"
        problems.append(_problem(Severity.NOTE, message))
    if "set-cookie" in response.headers:
        problems.append(_problem(Severity.WARNING, "sets a cookie: clients must not send any (RFC 8801 §7)"))
    return problems


def _problem(severity: Severity, message: str) -> Problem:
    return Problem(severity, "", message)
