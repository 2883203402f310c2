"""Options that several commands share: their parsing, their checks, and what they become."""

from __future__ import annotations

import argparse
import base64
import binascii
import shlex
import stat
from enum import StrEnum
from pathlib import Path

from masque_client.engine.interface import Address, CongestionControl, EngineName, Header, TlsConfiguration
from masque_client.errors import ConfigurationError
from masque_client.http.authentication import Authenticator
from masque_client.http.connector import HttpVersion
from masque_client.http.credentials import BasicCredentials, BearerCommand, BearerFile, Credentials
from masque_client.http.network_memory import MemoryFile
from masque_client.netio.secret_file import read_secret
from masque_client.pvd.names import HostPort
from masque_client.tunnel.patience import PATIENCE_S


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Everything that commands which connect to a proxy have in common."""
    add_engine(parser)
    add_congestion_control(parser)
    add_http(parser)
    add_trust(parser)
    add_authentication(parser)
    add_timeout(parser)
    add_grease(parser)
    add_verbose(parser)


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """-v for remarks, -vv for everything; both show tracebacks."""
    parser.add_argument("-v", "--verbose", action="count", default=0, help="remarks on stderr; twice for details")


def add_choice(parser: argparse.ArgumentParser, name: str, *, default: StrEnum, text: str) -> None:
    """An option whose values are those of the default's enumeration, in its order."""
    values = list(type(default))
    parser.add_argument(
        name, type=type(default), choices=values, default=default, metavar=f"{{{','.join(values)}}}", help=text
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """--engine."""
    add_choice(
        parser,
        "--engine",
        default=EngineName.AUTO,
        text="QUIC engine (default: auto: qh3 where it is installed)",
    )


def add_congestion_control(parser: argparse.ArgumentParser) -> None:
    """--congestion-control."""
    add_choice(
        parser,
        "--congestion-control",
        default=CongestionControl.AUTO,
        text="of HTTP/3, where the engine has it (aioquic: reno, cubic; default: auto: the engine's best)",
    )


def add_http(parser: argparse.ArgumentParser) -> None:
    """--http."""
    add_choice(
        parser,
        "--http",
        default=HttpVersion.AUTO,
        text="HTTP version to the proxy (default: auto: HTTP/3, or HTTP/2 over TCP where UDP is blocked)",
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


def add_authentication(parser: argparse.ArgumentParser) -> None:
    """--user, --password-file, --token-file, --token-command, --header-file, --auth-origin: no secrets in argv."""
    group = parser.add_argument_group(
        "authentication",
        "What the proxy knows you by, besides --cert. Files must be readable by you alone. Credentials are sent to the "
        "host that you name, and to no other proxy that it may point to.",
    )
    group.add_argument("--user", metavar="NAME", help="with --password-file: Basic authentication")
    group.add_argument("--password-file", type=Path, metavar="FILE", help="the password of --user, alone in one line")
    group.add_argument("--token-file", type=Path, metavar="FILE", help="a bearer token; read again for each request")
    group.add_argument(
        "--token-command",
        metavar="'CMD …'",
        help="a program that prints a bearer token, run without a shell at the first request and when a token is "
        "refused, for 10 s at most. Its arguments are visible to all users of this machine: no secrets there",
    )
    group.add_argument(
        "--header-file", type=Path, metavar="FILE", help="request header fields, one 'name: value' a line"
    )
    group.add_argument(
        "--auth-origin",
        metavar="HOST[:PORT]",
        help="the proxy that the credentials are for (default: the HOST or URL given, port 443 unless it says another)",
    )


def add_grease(parser: argparse.ArgumentParser) -> None:
    """--grease and --no-grease; neither is None."""
    parser.add_argument(
        "--grease",
        action=argparse.BooleanOptionalAction,
        help="reserved capsules and contexts too, which some proxies end a tunnel for (default: reserved values where "
        "a connection begins, which peers must ignore; with --no-grease not even those)",
    )


def add_timeout(parser: argparse.ArgumentParser) -> None:
    """--timeout."""
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=PATIENCE_S,
        metavar="SECONDS",
        help="how long to wait for a proxy that is busy and says when to come back (429 or 503 with Retry-After; "
        f"default: {PATIENCE_S:g})",
    )


def authenticator(options: argparse.Namespace) -> Authenticator:
    """What `add_authentication` parsed, checked: each source is tried once where that costs nothing.

    Raises:
        ConfigurationError: a file is missing, empty or open to others, or the options contradict each other.
    """
    return Authenticator(_credentials(options), origin=_auth_origin(options), fields=read_headers(options.header_file))


def _credentials(options: argparse.Namespace) -> Credentials | None:
    if (options.user is None) != (options.password_file is None):
        raise ConfigurationError("--user and --password-file belong together", hint="give both, or neither")
    found: list[Credentials] = []
    if options.user is not None:
        read_secret(options.password_file)
        found.append(BasicCredentials(options.user, options.password_file))
    if options.token_file is not None:
        read_secret(options.token_file)
        found.append(BearerFile(options.token_file))
    if options.token_command is not None:
        try:
            found.append(BearerCommand(shlex.split(options.token_command)))
        except ValueError as error:
            raise ConfigurationError("--token-command has a quote that never ends") from error
    if len(found) > 1:
        raise ConfigurationError(
            "there are several credentials", hint="give one of --user, --token-file, --token-command"
        )
    return found[0] if found else None


def _auth_origin(options: argparse.Namespace) -> Address | None:
    """The origin that secrets are for; None when nothing like it is named."""
    text = options.auth_origin or options.proxy
    try:
        origin = HostPort.of_https_url(text) if "://" in text else HostPort.parse(text, default_port=443)
    except ConfigurationError as error:
        if options.auth_origin is None:
            return None  # the command will say what is wrong with its proxy
        raise ConfigurationError(f"--auth-origin {text!r} {error}", hint="write HOST or HOST:PORT") from error
    return origin.host, origin.port


def memory(tls: TlsConfiguration) -> MemoryFile:
    """What worked on this network. With a CA of the user's own it is an experiment, of which no file is left behind."""
    return MemoryFile(MemoryFile.user_path() if tls.ca_file is None else None)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("is not from 0 to 3600 seconds")
    return seconds


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
    for number, line in enumerate(read_secret(file).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon or not _is_token(name) or not value.strip().isascii() or not value.strip().isprintable():
            raise ConfigurationError(
                f"line {number} of {file} is no header field", hint="write one 'name: value' a line, in ASCII"
            )
        headers.append((name.lower().encode(), value.strip().encode()))
    return tuple(headers)


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
