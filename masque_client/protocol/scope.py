"""What a tunnel is for: the values of the template variables, checked (RFC 9298 §2 and §3, RFC 9484 §4.6).

The client checks what it is about to ask for; a proxy checks what it was asked for, already percent-decoded. Both get
a `ConfigurationError`; a proxy answers it with 400.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

import idna

from masque_client.errors import ConfigurationError

WILDCARD: Final = "*"
MAX_HOST_LENGTH = 253
"""Of a DNS name in text form (RFC 1035 §3.1)."""

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpPrefix = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAME = re.compile(r"[A-Za-z0-9._~-]+")
_PREFIX_LENGTH = re.compile(r"[0-9]{1,3}")


@dataclass(frozen=True, slots=True)
class UdpTarget:
    """`target_host` and `target_port` of CONNECT-UDP. The host is an IP literal without brackets, or an ASCII name."""

    host: str
    port: int

    @classmethod
    def parse(cls, host: str, port: str | int) -> UdpTarget:
        """Check both; internationalised names become A-labels.

        Raises:
            ConfigurationError: not a host, a zone id, or a port outside 1..65535.
        """
        return cls(parse_host(host), _parse_number(port, "target port", lowest=1, highest=65535))


@dataclass(frozen=True, slots=True)
class IpScope:
    """`target` and `ipproto` of CONNECT-IP; None means unrestricted."""

    target: IpPrefix | str | None
    protocol: int | None

    @classmethod
    def parse(cls, target: str | None = WILDCARD, ipproto: str | int | None = WILDCARD) -> IpScope:
        """Check both; an absent variable means the same as `*`.

        Raises:
            ConfigurationError: empty, host bits beyond the prefix, a zone id, or a protocol outside 0..255.
        """
        protocol = None if ipproto in (None, WILDCARD) else _parse_number(ipproto, "IP protocol", lowest=0, highest=255)
        if target is None or target == WILDCARD:
            return cls(None, protocol)
        return cls(_parse_prefix(target) or parse_host(target), protocol)


def parse_host(text: str) -> str:
    """Check an IP literal or name for use as a template value.

    Raises:
        ConfigurationError: it is neither, is empty, or carries a zone id or brackets.
    """
    if not text:
        raise ConfigurationError("the target host is empty")
    if "%" in text:
        raise ConfigurationError(f"{text!r} has a zone id or is percent-encoded; neither can be asked of a proxy")
    if ":" in text or "[" in text:
        return str(_parse_address(text))
    name = text if text.isascii() else _to_a_labels(text)
    if len(name) > MAX_HOST_LENGTH or not _NAME.fullmatch(name):
        raise ConfigurationError(f"{text!r} is not a host name or IP address")
    return name


def _parse_address(text: str) -> IpAddress:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise ConfigurationError(f"{text!r} is not an IP address", hint="write IPv6 without brackets") from error


def _parse_prefix(text: str) -> IpPrefix | None:
    """An address or prefix; None when `text` looks like a name."""
    address, slash, length = text.partition("/")
    if not slash and ":" not in text:
        try:
            return ipaddress.ip_network(text)
        except ValueError:
            return None
    if "%" in text:
        raise ConfigurationError(f"{text!r} has a zone id or is percent-encoded; neither can be asked of a proxy")
    if slash and not _PREFIX_LENGTH.fullmatch(length):
        raise ConfigurationError(f"the prefix length of {text!r} is not a number")
    parsed = _parse_address(address)
    try:
        return ipaddress.ip_network(f"{parsed}/{length}" if slash else parsed)
    except ValueError as error:
        raise ConfigurationError(f"{text!r} is not a prefix: {error}") from error


def _to_a_labels(name: str) -> str:
    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise ConfigurationError(f"{name!r} is not a valid internationalised host name: {error}") from error


def _parse_number(value: str | int | None, what: str, *, lowest: int, highest: int) -> int:
    text = str(value)
    if text.isascii() and text.isdigit() and len(text) <= 5 and lowest <= int(text) <= highest:
        return int(text)
    raise ConfigurationError(f"{text!r} is not a {what} ({lowest}..{highest})")
