"""The first of several proxies that does the job: a staggered race, as Happy Eyeballs does it for addresses.

Candidates come in order of preference. The next one starts `HEAD_START_S` after the one before it, or at once when
that one has failed, so a proxy that is dead, in whatever way, costs two seconds instead of a timeout. Reaching a proxy
is raced; making use of it is not: requests go to one proxy at a time, because they cost the proxy something.

Not every failure may move on. A proxy that cannot be reached, is broken or overloaded has said nothing about us. A
certificate that does not verify, or refused credentials, is an answer that a person must hear of: somebody on the path
could otherwise push us, by breaking TLS, to the candidate of his choice. `Failover.ANY` is the user's leave to go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from enum import StrEnum
from typing import TypeVar

from masque_client.errors import (
    AuthenticationRefused,
    ConnectError,
    MasqueError,
    ProxyRefused,
    RemoteProtocolError,
    TimedOut,
    TlsError,
    concerns_whole_proxy,
)

logger = logging.getLogger(__name__)

HEAD_START_S = 1.5
"""A proxy at the far end of the world over one lost packet answers within this (QUIC's first retransmission is 1 s)."""

CandidateT = TypeVar("CandidateT")
ReachedT = TypeVar("ReachedT")
ResultT = TypeVar("ResultT")


class Failover(StrEnum):
    """After which failures the next proxy may be tried.

    `UNAVAILABLE`: the proxy cannot be reached, does not answer, breaks the standard, is no MASQUE proxy, or says that
    it cannot serve now (5xx, 429). `ANY`: also after TLS failures and refused credentials.
    """

    UNAVAILABLE = "unavailable"
    ANY = "any"

    def goes_on_after(self, error: MasqueError) -> bool:
        """Whether the next candidate may be tried. A 403 and the like are a proxy's decision, which is not evaded."""
        match error:
            case AuthenticationRefused() | TlsError():
                return self is Failover.ANY
            case ProxyRefused(status=status):
                return status is None or status >= 500 or status == 429 or concerns_whole_proxy(error)
            case _:
                return isinstance(error, ConnectError | TimedOut | RemoteProtocolError)


async def use_first(
    candidates: Iterable[CandidateT],
    reach: Callable[[CandidateT], Awaitable[ReachedT]],
    use: Callable[[CandidateT, ReachedT], Awaitable[ResultT]],
    *,
    release: Callable[[ReachedT], None] = lambda reached: None,
    policy: Failover = Failover.UNAVAILABLE,
    on_failure: Callable[[CandidateT, MasqueError], None] = lambda candidate, error: None,
) -> ResultT:
    """Race `reach` over the candidates, `use` what was reached, one at a time, and return the first result.

    Args:
        candidates: best first; not empty.
        reach: connects. Cancelled when another candidate has won.
        use: what the connection is for, such as a request; its failure is the candidate's failure.
        release: gets rid of what was reached and is not used, or failed to be of use.
        policy: which failures move on.
        on_failure: told of every candidate that failed, also when another one then works.

    Raises:
        MasqueError: nobody did the job. Of several reasons the one that a person can act on: a refusal rather than
            silence, the better candidate's rather than the worse one's.
    """
    waiting = deque(candidates)
    assert waiting, "use_first needs a candidate"
    running: dict[asyncio.Task[ReachedT], CandidateT] = {}
    failures: list[MasqueError] = []
    may_start = True
    try:
        while running or (waiting and may_start):
            if waiting and may_start:
                candidate = waiting.popleft()
                running[asyncio.ensure_future(_reach(reach, candidate))] = candidate
            head_start_s = HEAD_START_S if waiting and may_start else None
            done, _ = await asyncio.wait(running, timeout=head_start_s, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in running if task in done]:  # the better candidate first
                candidate = running.pop(task)
                try:
                    return await _use(candidate, task.result(), use, release)
                except MasqueError as error:
                    logger.info("%s: %s", candidate, error)
                    on_failure(candidate, error)
                    failures.append(error)
                    may_start = may_start and policy.goes_on_after(error)
        raise min(failures, key=_reticence)
    finally:
        for task in running:
            task.cancel()
        for outcome in await asyncio.gather(*running, return_exceptions=True):
            if not isinstance(outcome, BaseException):
                release(outcome)


async def _reach(reach: Callable[[CandidateT], Awaitable[ReachedT]], candidate: CandidateT) -> ReachedT:
    return await reach(candidate)


async def _use(
    candidate: CandidateT,
    reached: ReachedT,
    use: Callable[[CandidateT, ReachedT], Awaitable[ResultT]],
    release: Callable[[ReachedT], None],
) -> ResultT:
    try:
        return await use(candidate, reached)
    except BaseException:
        release(reached)
        raise


def _reticence(error: MasqueError) -> int:
    """How little an error says; `min` keeps the first among equals."""
    for rank, kind in enumerate((TlsError, AuthenticationRefused, ProxyRefused, RemoteProtocolError, TimedOut)):
        if isinstance(error, kind):
            return rank
    return 5
