"""Test proxies on demand: one thread with an event loop, in a network namespace if there is one."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from ipaddress import ip_network
from types import TracebackType
from typing import Any, Self, TypeVar

from masque_client.testing.certificates import CertificateAuthority, Credentials
from masque_client.testing.misbehave import parse_misbehaviour
from masque_client.testing.netns import Namespace
from masque_client.testing.proxy import MasqueProxy, ProxyConfiguration
from masque_client.testing.pvd_server import PvdBehaviour, PvdServer

T = TypeVar("T")
START_TIMEOUT_S = 60.0
LOOPBACK = ("127.0.0.1", 0)


class Proxies:
    """Runs proxies for the length of a block each. They assign addresses and route nothing, so need no privilege."""

    def __init__(self, authority: CertificateAuthority, namespace: Namespace | None) -> None:
        self.authority = authority
        self.credentials = authority.issue(["localhost", "127.0.0.1"])
        self._namespace = namespace
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxies")

    def __enter__(self) -> Self:
        with self._namespace.entered() if self._namespace else contextlib.nullcontext():
            self._thread.start()  # a thread is born where its parent is
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextlib.contextmanager
    def proxy(self, *faults: str, credentials: Credentials | None = None, **more: Any) -> Iterator[MasqueProxy]:
        """A proxy on loopback with these faults, `NAME[=VALUE]` (testing/misbehave.py)."""
        configuration = ProxyConfiguration(
            credentials=credentials or self.credentials,
            listen=[LOOPBACK],
            pools=[ip_network("10.77.0.0/24")],
            routes=[ip_network("192.0.2.0/24")],
            allow=[ip_network("127.0.0.0/8")],
            misbehaviour=parse_misbehaviour(faults),
            **more,
        )
        with self._running(lambda: MasqueProxy(configuration)) as proxy:
            yield proxy

    @contextlib.contextmanager
    def pvd(
        self, document: dict[str, Any] | bytes, credentials: Credentials | None = None, **behaviour: Any
    ) -> Iterator[str]:
        """A PvD document on loopback, served as `PvdBehaviour` says; its URL."""
        with self._running(
            lambda: PvdServer(document, credentials or self.credentials, PvdBehaviour(**behaviour))
        ) as server:
            self.call(server.start([LOOPBACK]))
            yield f"https://localhost:{server.addresses[0][1]}/.well-known/pvd"

    @contextlib.contextmanager
    def _running(self, make: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
        async def start() -> tuple[AbstractAsyncContextManager[T], T]:
            manager = make()  # in the loop
            return manager, await manager.__aenter__()

        manager, thing = self.call(start())
        try:
            yield thing
        finally:
            self.call(manager.__aexit__(None, None, None))

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the proxies' thread."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(START_TIMEOUT_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
