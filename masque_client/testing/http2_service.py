"""HTTP/2 for the test proxy, beside HTTP/1.1 on the same TCP ports: TLS says which (ALPN). Not for production."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final

from masque_client.engine.h2_engine import H2Engine
from masque_client.engine.interface import EngineConfiguration, Headers
from masque_client.http.connection import HttpConnection
from masque_client.http.dial import carry
from masque_client.http.request_stream import RequestStream, StreamHandler
from masque_client.http.tcp_link import TcpLink
from masque_client.http.tls import ALPN_H2
from masque_client.netio.clock import Clock

ALPN_HTTP_1_1: Final = "http/1.1"


class Http2Service:
    """The server side of every HTTP/2 connection. `close` ends them all.

    Args:
        configuration: with `is_client=False`. With `tls.ca_file` a client must have shown a certificate: TLS has
            verified it, but on a port shared with HTTP/1.1 only here it is known who needed one.
        on_request: see `HttpConnection`.
    """

    def __init__(
        self,
        configuration: EngineConfiguration,
        on_request: Callable[[RequestStream, Headers], StreamHandler],
        clock: Clock,
    ) -> None:
        self.connections: set[HttpConnection] = set()
        self._configuration = configuration
        self._on_request = on_request
        self._clock = clock

    def protocol(self) -> TcpLink:
        """For asyncio: serves one TLS connection that agreed on `h2`."""
        return TcpLink("the client", self._on_connected)

    def prepare(self, context: ssl.SSLContext) -> None:
        """Let a server's TLS offer HTTP/2 first, and ask for client certificates where the proxy wants them."""
        context.set_alpn_protocols([ALPN_H2, ALPN_HTTP_1_1])
        if self._configuration.secrets_log is not None:
            context.keylog_filename = self._configuration.secrets_log.name  # OpenSSL opens the file once more
        if self._configuration.tls.ca_file is not None:
            context.load_verify_locations(self._configuration.tls.ca_file)
            context.verify_mode = ssl.CERT_OPTIONAL

    def close(self) -> None:
        """Say goodbye on every connection."""
        for connection in list(self.connections):
            connection.close(reason="the test proxy is shutting down")

    def _on_connected(self, link: TcpLink) -> None:
        if self._configuration.tls.ca_file is not None and link.peer_certificate is None:
            link.close()
            return
        engine = H2Engine(self._configuration, link.peer_certificate)

        def on_closed(connection: HttpConnection) -> None:
            self.connections.discard(connection)
            link.close()

        http = HttpConnection(engine, link.send, self._clock, on_request=self._on_request, on_closed=on_closed)
        self.connections.add(http)
        carry(link, engine, http)
        http.connect(link.peer_address)


class AlpnSwitch(asyncio.Protocol):
    """A fresh TLS connection, until it is known what is spoken on it."""

    def __init__(self, http2: Callable[[], asyncio.Protocol], http1: Callable[[], asyncio.Protocol]) -> None:
        self._http2 = http2
        self._http1 = http1

    def connection_made(self, transport: Any) -> None:
        """TLS is up: hand over."""
        is_http2 = transport.get_extra_info("ssl_object").selected_alpn_protocol() == ALPN_H2
        protocol = self._http2() if is_http2 else self._http1()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
