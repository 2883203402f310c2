"""The PvD document over HTTPS (HTTP/1.1), served well or, for tests, badly. Not for production.

Answers `GET /.well-known/pvd` as RFC 8801 §4.1 wants it, or as `PvdBehaviour` says; everything else is a 404.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import h11

from masque_client.engine.interface import Address
from masque_client.testing.certificates import Credentials
from masque_client.testing.http2_service import ALPN_HTTP_1_1, AlpnSwitch, Http2Service

WELL_KNOWN_PATH = "/.well-known/pvd"
MEDIA_TYPE = "application/pvd+json"
DOCUMENT_LIFETIME = timedelta(days=1)
IDLE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class PvdBehaviour:
    """How the document is served. The default is well.

    Attributes:
        status: the status code; a 3xx wants `headers` with a location.
        content_type: the media type; None leaves the field out.
        body: sent instead of the document.
        headers: further response fields.
        delay_s: wait before answering.
        hang_up: close the connection instead of answering.
    """

    status: int = 200
    content_type: str | None = MEDIA_TYPE
    body: bytes | None = None
    headers: Sequence[tuple[str, str]] = ()
    delay_s: float = 0.0
    hang_up: bool = False


def pvd_document(identifier: str, proxies: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """A valid document for `identifier`: one day to live, no prefixes because no RA announced it (RFC 8801 §4.3).

    Args:
        identifier: the host name it is served on.
        proxies: entries such as `{"protocol": "connect-ip", "proxy": "https://…/{target}/{ipproto}/"}`.
        more: further top-level keys, such as `**{"proxy-match": […]}`.
    """
    expires = (datetime.now(UTC) + DOCUMENT_LIFETIME).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"identifier": identifier, "expires": expires, "prefixes": [], "proxies": list(proxies), **more}


class PvdServer:
    """Listeners for one document. Await `start`, then `close`; or use it as an asynchronous context manager.

    `document` and `behaviour` may be replaced while it runs. `requests` lists the targets asked for, oldest first.

    Args:
        document: the JSON object, or the exact bytes, of the document.
        credentials: certificate and key for the name it is served on.
        http2: who takes the connections that agree on HTTP/2 (ALPN); None does not offer it.
    """

    def __init__(
        self,
        document: Mapping[str, Any] | bytes,
        credentials: Credentials,
        behaviour: PvdBehaviour | None = None,
        http2: Http2Service | None = None,
    ) -> None:
        self.document = document
        self.behaviour = behaviour or PvdBehaviour()
        self.requests: list[str] = []
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(credentials.certificate, credentials.key)
        self._tls.set_alpn_protocols([ALPN_HTTP_1_1])
        self._http2 = http2
        if http2 is not None:
            http2.prepare(self._tls)
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, listen: Sequence[Address]) -> Self:
        """Listen on TCP; port 0 takes a free one, see `addresses`.

        Raises:
            OSError: an address cannot be bound; none is then.
        """
        loop = asyncio.get_running_loop()
        try:
            for host, port in listen:
                self._servers.append(await loop.create_server(self._protocol, host, port, ssl=self._tls))
        except OSError:
            await self.close()
            raise
        return self

    @property
    def addresses(self) -> list[Address]:
        """Where it is bound, in the order given."""
        return [server.sockets[0].getsockname()[:2] for server in self._servers]

    async def close(self) -> None:
        """Stop listening and cut open connections. May be called twice."""
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _protocol(self) -> asyncio.Protocol:
        def http1() -> asyncio.Protocol:
            return asyncio.StreamReaderProtocol(asyncio.StreamReader(), self._serve)

        return http1() if self._http2 is None else AlpnSwitch(self._http2.protocol, http1)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._exchange(reader, writer)
        except (OSError, TimeoutError, h11.RemoteProtocolError):
            pass  # a client that leaves, idles or talks nonsense: hang up
        except asyncio.CancelledError:
            pass  # by `close`; asyncio's streams would log a cancelled handler as an error
        finally:
            self._connections.discard(task)
            if self.behaviour.hang_up:
                writer.transport.abort()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h11.Connection(h11.SERVER)
        while True:
            request: h11.Request | None = None
            while not isinstance(event := http.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.Request):
                    request = event
                elif event is h11.NEED_DATA:
                    http.receive_data(await asyncio.wait_for(reader.read(65536), IDLE_TIMEOUT_S))
                elif isinstance(event, h11.ConnectionClosed):
                    return
            assert request is not None
            self.requests.append(request.target.decode())
            behaviour = self.behaviour
            await asyncio.sleep(behaviour.delay_s)
            if behaviour.hang_up:
                return
            response, body = self._answer(request, behaviour)
            for part in (response, h11.Data(data=body), h11.EndOfMessage()):
                if not (isinstance(part, h11.Data) and request.method == b"HEAD"):
                    writer.write(http.send(part) or b"")
            await writer.drain()
            if http.our_state is h11.MUST_CLOSE:
                return
            http.start_next_cycle()

    def _answer(self, request: h11.Request, behaviour: PvdBehaviour) -> tuple[h11.Response, bytes]:
        if request.target.decode() != WELL_KNOWN_PATH:
            return _response(404, "text/plain", b"only " + WELL_KNOWN_PATH.encode())
        if request.method not in (b"GET", b"HEAD"):
            return _response(405, "text/plain", b"GET or HEAD", (("allow", "GET, HEAD"),))
        body = behaviour.body
        if body is None:
            body = self.document if isinstance(self.document, bytes) else json.dumps(self.document).encode()
        return _response(behaviour.status, behaviour.content_type, body, behaviour.headers)


def _response(
    status: int, content_type: str | None, body: bytes, more: Sequence[tuple[str, str]] = ()
) -> tuple[h11.Response, bytes]:
    headers = [("content-length", str(len(body))), *more]
    if content_type is not None:
        headers.append(("content-type", content_type))
    return h11.Response(status_code=status, headers=headers), body
