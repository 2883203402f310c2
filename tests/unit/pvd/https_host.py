"""A real HTTPS server on loopback that answers exactly the bytes a test wants, and a resolver that leads to it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from masque_client.errors import NameResolutionError
from masque_client.testing.certificates import Credentials

JSON_TYPE = "application/pvd+json"

Respond = Callable[[asyncio.StreamWriter], Awaitable[None]]


def response(
    body: bytes = b"", /, *, status: str = "200 OK", content_type: str | None = JSON_TYPE, **fields: str
) -> bytes:
    """A whole HTTP/1.1 response. Underscores in field names stand for hyphens."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class HttpsHost:
    """Answers requests with `answers` in turn, the last one for ever, and remembers the request heads."""

    answers: Sequence[bytes | Respond]
    requests: list[str] = field(default_factory=list)
    asked: list[tuple[str, int]] = field(default_factory=list)
    port: int = 0

    async def resolve(self, host: str, port: int) -> Sequence[tuple[str, int]]:
        """Every name of `.example.net` and `.example.org` lives here, whatever the port."""
        self.asked.append((host, port))
        if not host.endswith((".example.net", ".example.org")):
            raise NameResolutionError(f"{host} does not resolve")
        return [("127.0.0.1", self.port)]

    @asynccontextmanager
    async def serving(self, credentials: Credentials | None) -> AsyncIterator[None]:
        """Listen on a free port; without credentials in cleartext."""
        context = None
        if credentials is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(credentials.certificate, credentials.key)
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            await server.wait_closed()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            is_tls = writer.get_extra_info("ssl_object") is not None
            head = await (reader.readuntil(b"\r\n\r\n") if is_tls else reader.read(100))
            answer = self.answers[min(len(self.requests), len(self.answers) - 1)]
            self.requests.append(head.decode("latin-1"))
            if isinstance(answer, bytes):
                writer.write(answer)
            else:
                await answer(writer)
            await writer.drain()
        except (OSError, EOFError, ssl.SSLError):
            pass  # the client gave up, which is what some tests want
        finally:
            writer.close()
