"""Options that several commands share: their parsing, their checks, and what they become."""

from __future__ import annotations

import argparse
import base64
import binascii
import stat
from pathlib import Path

from masque_client.engine.interface import EngineName, Header, TlsConfiguration
from masque_client.errors import ConfigurationError
from masque_client.http.connector import HttpVersion


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """-v for remarks, -vv for everything; both show tracebacks."""
    parser.add_argument("-v", "--verbose", action="count", default=0, help="remarks on stderr; twice for details")


def add_engine(parser: argparse.ArgumentParser) -> None:
    """--engine."""
    parser.add_argument(
        "--engine",
        type=EngineName,
        choices=list(EngineName),
        default=EngineName.AUTO,
        metavar="{aioquic,qh3,auto}",
        help="QUIC engine (default: auto: qh3 where it is installed)",
    )


def add_http(parser: argparse.ArgumentParser) -> None:
    """--http."""
    parser.add_argument(
        "--http",
        type=HttpVersion,
        choices=list(HttpVersion),
        default=HttpVersion.AUTO,
        metavar="{auto,3,2}",
        help="HTTP version to the proxy (default: auto: HTTP/3, or HTTP/2 over TCP where UDP is blocked)",
    )


def carrier(http_version: int, fallback_reason: str | None) -> str:
    """`HTTP/3`, or `HTTP/2 (QUIC blocked)`."""
    return f"HTTP/{http_version}" + (f" ({fallback_reason})" if fallback_reason else "")


def add_trust(parser: argparse.ArgumentParser, *, client_certificate: bool = True) -> None:
    """--ca, --pin, --cert, --key."""
    parser.add_argument("--ca", type=Path, metavar="FILE", help="trust this CA (PEM) instead of the system's")
    if not client_certificate:
        return
    parser.add_argument("--pin", metavar="PIN", help="require this key: sha256/BASE64 of the SubjectPublicKeyInfo")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="our certificate (PEM), for mutual TLS")
    parser.add_argument("--key", type=Path, metavar="FILE", help="the private key of --cert (PEM)")


def add_headers(parser: argparse.ArgumentParser) -> None:
    """--header-file: secrets stay out of argv."""
    parser.add_argument(
        "--header-file",
        type=Path,
        metavar="FILE",
        help="request header fields, one 'name: value' a line, such as authorization; readable by you alone",
    )


def tls_configuration(options: argparse.Namespace) -> TlsConfiguration:
    """What `add_trust` parsed, checked.

    Raises:
        ConfigurationError: a file is missing or too open, or the pin is not a SHA-256.
    """
    certificate, key = getattr(options, "cert", None), getattr(options, "key", None)
    if (certificate is None) != (key is None):
        raise ConfigurationError("--cert and --key belong together", hint="give both, or neither")
    for file in (options.ca, certificate, key):
        if file is not None:
            _require_readable(file)
    if key is not None:
        _require_private(key)
    pin = getattr(options, "pin", None)
    return TlsConfiguration(
        ca_file=options.ca, pin=None if pin is None else parse_pin(pin), certificate=certificate, key=key
    )


def parse_pin(text: str) -> bytes:
    """A SHA-256 as `sha256/BASE64`, `sha256//BASE64` or 64 hexadecimal digits → 32 bytes (RFC 7469 §2.4)."""
    try:
        if text.startswith("sha256/"):
            digest = base64.b64decode(text.removeprefix("sha256/").removeprefix("/"), validate=True)
        else:
            digest = bytes.fromhex(text)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != 32:
        raise ConfigurationError(
            f"{text!r} is no pin",
            hint="a pin is sha256/ and the base64 of the SHA-256 of the certificate's SubjectPublicKeyInfo",
        )
    return digest


def read_headers(file: Path | None) -> tuple[Header, ...]:
    """Request header fields from `file`; names in lower case (RFC 9114 §4.2). No file, no fields.

    Raises:
        ConfigurationError: unreadable, readable by others, or not `name: value`. The message shows no value.
    """
    if file is None:
        return ()
    headers = []
    for number, line in enumerate(read_private(file).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon or not _is_token(name) or not value.strip().isascii() or not value.strip().isprintable():
            raise ConfigurationError(
                f"line {number} of {file} is no header field", hint="write one 'name: value' a line, in ASCII"
            )
        headers.append((name.lower().encode(), value.strip().encode()))
    return tuple(headers)


def read_private(file: Path) -> str:
    """The text of a file that holds secrets.

    Raises:
        ConfigurationError: unreadable, or readable by others.
    """
    _require_readable(file)
    _require_private(file)
    return file.read_text(encoding="utf-8", errors="replace")


def _is_token(name: str) -> bool:
    return bool(name) and name.isascii() and all(char.isalnum() or char in "!#$%&'*+-.^_`|~" for char in name)


def _require_readable(file: Path) -> None:
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}", hint="check the path and its mode") from error


def _require_private(file: Path) -> None:
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(f"{file} may be read by others", hint=f"chmod 600 {file}")
