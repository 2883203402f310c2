"""Host names to addresses: as the system says, or, where a tunnel of ours may be in the way, past it.

The system's resolver knows every source of names that this machine has, but its packets take the machine's routes.
While a full tunnel is down these lead nowhere, and the name that is asked for is that of the proxy which would bring it
back. So the resolvers of /etc/resolv.conf are then asked by packets that carry our firewall mark, which the tunnel's
routes do not apply to.

Everything that blocks does so in threads of its own that nobody waits for at the end of the process: a resolver that is
silent must not hold up Ctrl-C.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import dns.exception
import dns.message
import dns.query
import dns.rdata
import dns.rdatatype
import dns.resolver

from masque_client.engine.interface import Address
from masque_client.errors import NameResolutionError

SYSTEM_HEAD_START_S = 0.5
"""The resolvers are asked past the tunnel only when the system has not answered by then."""
QUERY_TIMEOUT_S = 1.5
TOTAL_TIMEOUT_S = 5.0

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]
"""Host and port to the addresses to try, best first; raises `NameResolutionError`."""

T = TypeVar("T")


async def resolve_system(host: str, port: int) -> Sequence[Address]:
    """Addresses in the order of RFC 6724 with the families interleaved (RFC 8305 §4).

    Raises:
        NameResolutionError: there is none.
    """
    try:
        found = await _in_thread(partial(socket.getaddrinfo, host, port, type=socket.SOCK_DGRAM))
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no host name"
        raise NameResolutionError(f"{host} does not resolve: {reason}") from error
    families: dict[int, list[Address]] = {}
    for family, _, _, _, sockaddr in found:
        if family in (socket.AF_INET, socket.AF_INET6):
            families.setdefault(family, []).append((str(sockaddr[0]), port))
    return _interleaved(list(families.values()))


def resolve_past_tunnels(mark: int) -> Resolve:
    """A `Resolve` that asks the system and, if that is slow or fails, its resolvers with this firewall mark."""

    async def resolve(host: str, port: int) -> Sequence[Address]:
        system = asyncio.ensure_future(resolve_system(host, port))
        past: asyncio.Future[Sequence[Address]] | None = None
        try:
            async with asyncio.timeout(TOTAL_TIMEOUT_S):
                await asyncio.wait([system], timeout=SYSTEM_HEAD_START_S)
                if system.done() and system.exception() is None:
                    return system.result()
                past = asyncio.ensure_future(_resolve_marked(host, port, mark))
                return await _first_success(past, system)
        except TimeoutError:
            raise NameResolutionError(f"{host} does not resolve: no resolver answers") from None
        finally:
            for task in (system, past):
                if task is not None:
                    task.cancel()

    return resolve


async def query_marked(name: str, rdtype: str, mark: int | None) -> list[dns.rdata.Rdata]:
    """Records of a name, from the first of the system's resolvers that answers; empty when there are none.

    Args:
        name: a whole name; no search list is applied.
        rdtype: such as `AAAA`.
        mark: firewall mark of the query (SO_MARK, which needs CAP_NET_ADMIN), or None.

    Raises:
        OSError, dns.exception.DNSException: none answers.
    """
    return await _in_thread(partial(_query, name, rdtype, mark))


def _query(name: str, rdtype: str, mark: int | None) -> list[dns.rdata.Rdata]:
    configured = dns.resolver.Resolver()
    question = dns.message.make_query(name, rdtype, use_edns=0)
    failure: Exception = OSError("no resolver is configured")
    for server in map(str, configured.nameservers):
        with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            try:
                if mark is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
                response = dns.query.udp(question, server, QUERY_TIMEOUT_S, configured.port, sock=sock)
                assert isinstance(response, dns.message.QueryMessage)
                answer = response.resolve_chaining().answer
            except (OSError, dns.exception.DNSException) as error:
                failure = error
            else:
                return list(answer or ())
    raise failure


async def _resolve_marked(host: str, port: int, mark: int) -> Sequence[Address]:
    queries = (query_marked(host, rdtype, mark) for rdtype in ("AAAA", "A"))
    found = await asyncio.gather(*queries, return_exceptions=True)
    families = [[(record.to_text(), port) for record in records] for records in found if isinstance(records, list)]
    if not any(families):
        raise NameResolutionError(f"{host} does not resolve")
    return _interleaved(families)


async def _first_success(*attempts: asyncio.Future[Sequence[Address]]) -> Sequence[Address]:
    """The first result there is; the last one's failure when none succeeds."""
    pending = set(attempts)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for attempt in done:
            if attempt.exception() is None:
                return attempt.result()
    return attempts[-1].result()


def _interleaved(families: Sequence[Sequence[Address]]) -> list[Address]:
    longest = max(map(len, families), default=0)
    return [family[i] for i in range(longest) for family in families if i < len(family)]


async def _in_thread(function: Callable[[], T]) -> T:
    """As `asyncio.to_thread`, but neither the loop nor the process waits for the thread when it ends."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def set_outcome(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = function()
        except Exception as caught:
            error = caught
        try:
            loop.call_soon_threadsafe(set_outcome, result, error)
        except RuntimeError:
            pass  # the loop is closed: nobody wants to know any more

    threading.Thread(target=run, name="resolver", daemon=True).start()
    return await future
