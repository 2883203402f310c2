"""A TLS connection on an asyncio loop, for HTTP/2: bytes in, bytes out. It knows nothing of frames.

    link = await TcpLink.dial(address, "proxy.example", tls)       # verified, pinned, agreed on h2
    link.start(on_data, on_lost, on_room)                          # from now on it delivers

What the kernel does not take waits in the transport, a bounded amount; the link then asks its owner to pause.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, Self

from masque_client.engine.interface import Address, TlsConfiguration
from masque_client.engine.trust import pin_mismatch
from masque_client.errors import ConnectError, ConnectionLost, MasqueError, ProxyRefused
from masque_client.http.tls import ALPN_H2, client_context, explain_tls
from masque_client.netio.sockopt import format_address, open_tcp

PAUSE_AT_BYTES = 128 * 1024
"""With this much waiting in the transport the engine keeps its datagrams to itself."""
MAX_WAITING_BYTES = 4 * 1024 * 1024
"""A peer that lets this much pile up (answers to its PINGs and SETTINGS, say) does not read: it is cut off."""


class TcpLink(asyncio.Protocol):
    """One TLS connection, made by `dial` or, on a server, by asyncio. Call `start` once, and `close` from the loop.

    Args:
        peer_name: the other end's name, for messages.
        on_connected: server: called when TLS is up; there the owner calls `start`.
    """

    def __init__(self, peer_name: str, on_connected: Callable[[TcpLink], None] | None = None) -> None:
        self.peer_name = peer_name
        self._on_connected = on_connected
        self._transport: Any = None
        self._on_data: Callable[[bytes], None]
        self._on_lost: Callable[[MasqueError], None]
        self._on_room: Callable[[bool], None]
        self._is_started = self._is_closed = False
        self._lost: BaseException | None = None

    @classmethod
    async def dial(
        cls, address: Address, server_name: str, tls: TlsConfiguration, *, mark: int | None = None
    ) -> TcpLink:
        """Connect and shake hands; the certificate is verified for `server_name`, and the pin checked.

        Raises:
            ConnectError: nothing listens there, or it hung up.
            TlsError: it is not trusted, or does not trust us.
            ProxyRefused: it does not speak HTTP/2.
            ConfigurationError: a file of `tls` cannot be used.
            PrivilegeError: `mark` needs CAP_NET_ADMIN.
        """
        context = client_context(tls)
        loop = asyncio.get_running_loop()
        sock = open_tcp(address, mark=mark)
        try:
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            raise _explain_connect(error, address) from error
        except BaseException:
            sock.close()
            raise
        link = cls(server_name)
        try:
            await loop.create_connection(lambda: link, sock=sock, ssl=context, server_hostname=server_name)
        except OSError as error:  # ssl.SSLError is one
            raise explain_tls(error, server_name) from error
        try:
            link._check_agreement(tls.pin)
        except BaseException:
            link.close()
            raise
        return link

    def start(
        self,
        on_data: Callable[[bytes], None],
        on_lost: Callable[[MasqueError], None],
        on_room: Callable[[bool], None],
    ) -> Self:
        """Deliver from now on. None of the callbacks may block.

        Args:
            on_data: bytes from the peer; empty when it has closed in order.
            on_lost: why the connection broke; nothing comes after it.
            on_room: False when the transport is full and its owner should pause, True when it may go on.
        """
        self._on_data, self._on_lost, self._on_room = on_data, on_lost, on_room
        self._is_started = True
        if self._transport.is_closing():
            self._report_loss(self._lost)
        else:
            self._transport.resume_reading()
        return self

    @property
    def local_address(self) -> Address:
        """Our end of the connection."""
        host, port = self._transport.get_extra_info("sockname")[:2]
        return str(host), int(port)

    @property
    def peer_address(self) -> Address:
        """The peer's end."""
        host, port = self._transport.get_extra_info("peername")[:2]
        return str(host), int(port)

    @property
    def peer_certificate(self) -> bytes | None:
        """The peer's leaf in DER, if it sent one."""
        certificate: bytes | None = self._transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return certificate

    def send(self, data: bytes) -> None:
        """Hand bytes to the transport; `on_room(False)` may be called before this returns."""
        if self._is_closed or not data:
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MAX_WAITING_BYTES:
            self._report_loss(ConnectionLost(f"{self.peer_name} does not read what it is sent"))
            self.close()

    def close(self) -> None:
        """Say goodbye (close_notify) and release the socket at once: nobody waits for an answer. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._transport.close()
            self._transport.abort()

    # --- asyncio.Protocol -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS is up."""
        self._transport = transport
        self._transport.set_write_buffer_limits(high=PAUSE_AT_BYTES)
        self._transport.pause_reading()  # until `start`
        if self._on_connected is not None:
            self._on_connected(self)

    def data_received(self, data: bytes) -> None:
        """Bytes, out of TLS."""
        if not self._is_closed:
            self._on_data(data)

    def eof_received(self) -> None:
        """The peer has closed in order (close_notify); asyncio closes our side."""
        if self._is_started and not self._is_closed:
            self._on_data(b"")

    def connection_lost(self, error: Exception | None) -> None:
        """The end, whoever wanted it."""
        self._lost = error
        if self._is_started:
            self._report_loss(error)

    def pause_writing(self) -> None:
        """The transport is full."""
        if self._is_started:
            self._on_room(False)

    def resume_writing(self) -> None:
        """It has room again."""
        if self._is_started and not self._is_closed:
            self._on_room(True)

    # --- internals --------------------------------------------------------------------------------------------------

    def _report_loss(self, error: BaseException | None) -> None:
        if self._is_closed:
            return
        if isinstance(error, MasqueError):
            self._on_lost(error)
        elif error is None:
            self._on_lost(ConnectionLost(f"{self.peer_name} closed the connection"))
        else:
            self._on_lost(explain_tls(error, self.peer_name, is_established=True))

    def _check_agreement(self, pin: bytes | None) -> None:
        if self._transport.is_closing():
            raise ConnectError(f"{self.peer_name} closed the connection right after the TLS handshake")
        if self._transport.get_extra_info("ssl_object").selected_alpn_protocol() != ALPN_H2:
            raise ProxyRefused(
                f"{self.peer_name} does not speak HTTP/2 on {format_address(self.peer_address)}",
                hint="check the port; over TCP the proxy must speak HTTP/2 (ALPN h2)",
            )
        certificate = self.peer_certificate
        if pin is not None and certificate is not None:
            error = pin_mismatch(certificate, pin, self.peer_name)
            if error is not None:
                raise error


def _explain_connect(error: OSError, address: Address) -> ConnectError:
    if isinstance(error, ConnectionRefusedError):
        return ConnectError(f"nothing listens on TCP port {address[1]} of {address[0]}")
    reason = os.strerror(error.errno) if error.errno else str(error)
    return ConnectError(f"cannot reach {format_address(address)} over TCP: {reason}")
