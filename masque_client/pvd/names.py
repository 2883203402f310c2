"""Host names and authorities in one canonical form, so that comparing them is comparing strings.

Canonical: lower-case A-labels without the trailing dot. Unicode names go through UTS 46, non-transitional, as
browsers do; the standard library's codec is IDNA 2003 and would turn `ß` into `ss`, another host.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

import idna

from masque_client.errors import ConfigurationError

IpAddress = IPv4Address | IPv6Address

HTTPS_PORT = 443
MAX_NAME_CHARACTERS = 253

# Underscores are not host names by RFC 952, but real names carry them.
_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[0-9]{1,5}")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::([0-9]*))?")
_UNSAFE_CHARACTER = re.compile(r"[^\x21-\x7e]")


def canonical_name(text: str) -> str:
    """A DNS name in canonical form. One trailing dot is accepted and removed.

    Raises:
        ConfigurationError: not a DNS name; IP addresses, and names ending in a number (which others read as IPv4
            addresses), are not.
    """
    name = text.lower() if text.isascii() else _to_a_labels(text)
    name = name.removesuffix(".")
    if len(name) > MAX_NAME_CHARACTERS or not _NAME.fullmatch(name):
        raise ConfigurationError("is not a host name")
    if _NUMERIC_LABEL.fullmatch(name.rpartition(".")[2]):
        raise ConfigurationError("is not a host name but looks like an IP address")
    return name


def parse_address(text: str) -> IpAddress | None:
    """An IPv4 or IPv6 literal without brackets, zone id or leading zeros; None for anything else."""
    if "%" in text or not text.isascii():
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None


def unmapped(address: IpAddress) -> IpAddress:
    """IPv4-mapped IPv6 addresses (`::ffff:192.0.2.1`) become the IPv4 addresses they stand for."""
    return getattr(address, "ipv4_mapped", None) or address


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host (canonical name, or IP literal without brackets) and a TCP or UDP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, default_port: int | None = None) -> HostPort:
        """Parse `host:port` as in RFC 3986 §3.2: IPv6 in brackets, no user information.

        Args:
            text: the authority.
            default_port: the port when none is written; without it a port is required.

        Raises:
            ConfigurationError: anything else.
        """
        match = _AUTHORITY.fullmatch(text)
        if match is None or _UNSAFE_CHARACTER.search(text):
            raise ConfigurationError("is not host:port")
        host, port = match.groups()
        return cls(_parse_host(host), _parse_port(port, default_port))

    @classmethod
    def of_https_url(cls, text: str) -> HostPort:
        """The authority of an absolute https URL or URI template, port 443 by default.

        Raises:
            ConfigurationError: another scheme, user information, a fragment, unprintable characters.
        """
        if _UNSAFE_CHARACTER.search(text):
            raise ConfigurationError("contains characters that a URL cannot")
        try:
            parts = urlsplit(text)
        except ValueError as error:
            raise ConfigurationError("is not a URL") from error
        if parts.scheme != "https":
            raise ConfigurationError("must be an https URL")
        if "#" in text or "@" in parts.netloc:
            raise ConfigurationError("must have neither a fragment nor user information")
        return cls.parse(parts.netloc, default_port=HTTPS_PORT)

    @property
    def address(self) -> IpAddress | None:
        """The host as an address, when it is a literal."""
        return parse_address(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _to_a_labels(text: str) -> str:
    if len(text) > MAX_NAME_CHARACTERS:  # before the IDNA tables are asked: their cost grows faster than the length
        raise ConfigurationError("is not a host name")
    try:
        return idna.encode(text, uts46=True).decode("ascii").lower()
    except UnicodeError as error:  # idna.IDNAError is one
        raise ConfigurationError("is not an internationalised host name") from error


def _parse_host(text: str) -> str:
    if text.startswith("["):
        address = parse_address(text[1:-1])
        if not isinstance(address, IPv6Address):
            raise ConfigurationError("has no IPv6 address between the brackets")
        return str(address)
    address = parse_address(text)
    return str(address) if address else canonical_name(text)


def _parse_port(text: str | None, default: int | None) -> int:
    if text is None and default is not None:
        return default
    if text is None or not _PORT.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise ConfigurationError("must have a port between 1 and 65535")
    return int(text)
