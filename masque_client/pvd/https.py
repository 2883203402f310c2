"""One bounded, verified HTTPS GET: the transport below `fetch`.

It takes a URL and gives the response's head and content. It sends nothing that identifies the user (RFC 8801 §7): no
cookies, no user agent, no credentials, no client certificate; and it uses no proxy, neither one of ours (it runs
before any tunnel exists) nor one from the environment. httpx's transport is used without its client, which would add
all of these; `ssl.create_default_context` is not, which logs TLS secrets where the environment says (SSLKEYLOGFILE).
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from masque_client.engine.interface import Address, TlsConfiguration
from masque_client.errors import ConfigurationError, ConnectError, MasqueError, NameResolutionError, PvdError, TlsError
from masque_client.netio.resolver import Resolve
from masque_client.pvd import early_options
from masque_client.pvd.early_options import SocketOption
from masque_client.pvd.json_strict import MAX_BODY_BYTES
from masque_client.pvd.names import HTTPS_PORT, HostPort

CONNECT_TIMEOUT_S = 5.0
"""For all of a host's addresses together."""

# OpenSSL's verification codes (x509_vfy.h) for which a person can be told more than "certificate verify failed".
_X509_NOT_YET_VALID = 9
_X509_EXPIRED = 10
_X509_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})
_X509_WRONG_NAME = frozenset({62, 64})

_Error = TypeVar("_Error", bound=BaseException)


@dataclass(frozen=True, slots=True)
class HttpsResponse:
    """A whole response. `content` is decoded and at most MAX_BODY_BYTES long; it is empty unless `status` is 2xx."""

    status: int
    headers: httpx.Headers
    content: bytes


def client_ssl_context(tls: TlsConfiguration) -> ssl.SSLContext:
    """TLS 1.2 or newer, chain and name verified, against `tls.ca_file` or the system's CAs.

    `tls.pin`, `certificate` and `key` are not used: they belong to the proxy's own connection, which is
    authenticated again when it is opened.

    Raises:
        ConfigurationError: the CA file cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if tls.ca_file is not None:
            context.load_verify_locations(tls.ca_file)
        else:
            context.load_default_certs()
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"the CA file {tls.ca_file} cannot be used: {_reason(error)}", hint="give a PEM file of CA certificates"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    return context


async def https_get(
    url: str,
    accept: str,
    context: ssl.SSLContext,
    resolve: Resolve,
    *,
    fields: Sequence[tuple[str, str]] = (),
    interface: str | None = None,
    mark: int | None = None,
) -> HttpsResponse:
    """GET one URL; redirects are the caller's. The total time is the caller's, too (`asyncio.timeout`).

    Args:
        url: an https URL.
        accept: the media type to ask for.
        context: see `client_ssl_context`.
        resolve: see `Resolve`.
        fields: further request fields.
        interface: leave through this network interface only (SO_BINDTODEVICE); None lets the routes decide.
        mark: firewall mark of the connection (SO_MARK), which leads past our tunnels; None for none.

    Raises:
        NameResolutionError, ConnectError, TlsError: by what failed.
        PvdError: no valid HTTP, or content that is too large or wrongly encoded.
    """
    authority = HostPort.of_https_url(url)
    addresses = await resolve(authority.host, authority.port)
    deadline = asyncio.get_running_loop().time() + CONNECT_TIMEOUT_S
    failure: MasqueError = NameResolutionError(f"{authority.host} has no addresses")
    for position, address in enumerate(addresses):
        remaining_s = max(0.0, deadline - asyncio.get_running_loop().time())
        request = _request(
            url, [("accept", accept), *fields], authority, address, remaining_s / (len(addresses) - position)
        )
        try:
            return await _send(request, context, authority, _socket_options(interface, mark))
        except ConnectError as error:
            failure = error
    raise failure


def _request(
    url: str, fields: Sequence[tuple[str, str]], authority: HostPort, address: Address, connect_s: float
) -> httpx.Request:
    """To an address, in the name of the host: the name goes into SNI, the certificate check and the Host field."""
    parts = urlsplit(url)
    host = f"[{authority.host}]" if ":" in authority.host else authority.host
    return httpx.Request(
        "GET",
        httpx.URL(
            scheme="https",
            host=address[0],
            port=address[1],
            raw_path=(parts.path + (f"?{parts.query}" if parts.query else "")).encode("ascii"),
        ),
        headers=[
            ("host", host if authority.port == HTTPS_PORT else f"{host}:{authority.port}"),
            *fields,
            ("accept-encoding", "identity"),
            ("connection", "close"),
        ],
        extensions={"sni_hostname": authority.host, "timeout": {"connect": connect_s}},
    )


def _socket_options(interface: str | None, mark: int | None) -> list[SocketOption]:
    options: list[SocketOption] = []
    if interface is not None:
        options.append((socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode()))
    if mark is not None:
        options.append((socket.SOL_SOCKET, socket.SO_MARK, mark))
    return options


async def _send(
    request: httpx.Request, context: ssl.SSLContext, authority: HostPort, options: list[SocketOption]
) -> HttpsResponse:
    plain = httpx.AsyncHTTPTransport(verify=context, trust_env=False)
    async with early_options.transport(context, options) if options else plain as transport:
        try:
            response = await transport.handle_async_request(request)
            try:
                return await _read(response)
            finally:
                await response.aclose()
        except (httpx.HTTPError, ssl.SSLError, OSError) as error:
            raise _translated(error, authority) from error


async def _read(response: httpx.Response) -> HttpsResponse:
    content = bytearray()
    if 200 <= response.status_code <= 299:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        async for piece in _decoded(response.stream, response.headers.get("content-encoding", "identity")):
            content += piece
            if len(content) > MAX_BODY_BYTES:
                raise PvdError(f"the PvD document is larger than {MAX_BODY_BYTES} bytes")
    return HttpsResponse(response.status_code, response.headers, bytes(content))


async def _decoded(stream: httpx.AsyncByteStream, encoding: str) -> AsyncIterator[bytes]:
    """Undo the one content coding that static file stores apply unasked, in pieces: a small bomb must not explode."""
    match encoding.strip().lower():
        case "identity" | "":
            async for piece in stream:
                yield piece
        case "gzip" | "x-gzip":
            gunzip = _Gunzip()
            async for piece in stream:
                for part in gunzip.feed(piece):
                    yield part
            gunzip.finish()
        case _:
            raise PvdError("the PvD document came in a content coding that was not asked for")


class _Gunzip:
    """A gzip decoder whose output comes in pieces of at most PIECE_BYTES, whatever the input claims."""

    PIECE_BYTES = 64 * 1024

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decode more input; stop iterating to stop decoding."""
        while data and not self._decoder.eof:
            try:
                yield self._decoder.decompress(data, self.PIECE_BYTES)
            except zlib.error as error:
                raise PvdError("the PvD document is not the gzip data it claims to be") from error
            data = self._decoder.unconsumed_tail
        if data or self._decoder.unused_data:
            raise PvdError("the PvD document has data after its gzip end")

    def finish(self) -> None:
        """Check that the input was whole."""
        if not self._decoder.eof:
            raise PvdError("the PvD document's gzip data is cut short")


def _translated(error: Exception, authority: HostPort) -> MasqueError:
    if isinstance(error, httpx.ConnectTimeout):  # before the causes: a stalled handshake has an SSLWantReadError there
        return ConnectError(f"{authority} does not answer within {CONNECT_TIMEOUT_S:g} s")
    tls_error = _cause(error, ssl.SSLError)
    if isinstance(tls_error, ssl.SSLCertVerificationError):
        return _certificate_error(tls_error, authority)
    if tls_error is not None:
        return TlsError(f"no TLS connection with {authority}: {_reason(tls_error)}")
    if isinstance(error, (httpx.ConnectError, OSError)):
        return ConnectError(f"{authority} cannot be reached: {_system_reason(error)}")
    return PvdError(f"{authority} does not answer in proper HTTP: {_reason(error)}")


def _certificate_error(error: ssl.SSLCertVerificationError, authority: HostPort) -> TlsError:
    host = authority.host
    if error.verify_code in _X509_WRONG_NAME:
        return TlsError(f"the certificate of {authority} is for another name, not {host}")
    if error.verify_code == _X509_EXPIRED:
        return TlsError(f"the certificate of {host} has expired")
    if error.verify_code == _X509_NOT_YET_VALID:
        return TlsError(f"the certificate of {host} is not valid yet")
    if error.verify_code in _X509_UNKNOWN_ISSUER:
        return TlsError(f"the certificate of {host} comes from an unknown CA")
    return TlsError(f"the certificate of {host} did not verify: {error.verify_message}")


def _cause(error: BaseException | None, kind: type[_Error]) -> _Error | None:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def _system_reason(error: BaseException) -> str:
    """What the system call said, below the libraries' own words ("all connection attempts failed")."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return _reason(error)


def _reason(error: BaseException) -> str:
    """An OS or library error in few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).rstrip(".") or type(error).__name__
