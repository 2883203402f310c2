"""IPv4 addresses inside IPv6 ones: how a translator's prefix and an address make another, and back (RFC 6052 §2.2).

`synthesize` makes the destination for a program that knows only an IPv4 literal (464XLAT, RFC 6877); `extract` finds
the IPv4 address that rules about IPv4 subnets are to be asked about.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final

PREFIX_LENGTHS: Final = (32, 40, 48, 56, 64, 96)

_RESERVED = 8
"""The octet that is always zero, bits 64 to 71; the IPv4 address goes around it."""


def is_translation_prefix(prefix: IPv6Network) -> bool:
    """Whether `prefix` has a length that can embed IPv4 addresses, and zeros in bits 64 to 71."""
    return prefix.prefixlen in PREFIX_LENGTHS and prefix.network_address.packed[_RESERVED] == 0


def synthesize(prefix: IPv6Network, address: IPv4Address) -> IPv6Address:
    """The IPv6 address that a translator with `prefix` sends on to `address`.

    Raises:
        ValueError: `prefix` is no `is_translation_prefix`.
    """
    if not is_translation_prefix(prefix):
        raise ValueError(f"{prefix} cannot embed IPv4 addresses")
    octets = bytearray(prefix.network_address.packed)
    for position, octet in zip(_positions(prefix), address.packed, strict=True):
        octets[position] = octet
    return IPv6Address(bytes(octets))


def extract(prefixes: Iterable[IPv6Network], address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address embedded in `address`, by the longest of `prefixes` that covers it; None when none does.

    Raises:
        ValueError: the covering prefix is no `is_translation_prefix`.
    """
    covering = max((prefix for prefix in prefixes if address in prefix), key=lambda one: one.prefixlen, default=None)
    if covering is None:
        return None
    if not is_translation_prefix(covering):
        raise ValueError(f"{covering} cannot embed IPv4 addresses")
    packed = address.packed
    return None if packed[_RESERVED] else IPv4Address(bytes(packed[position] for position in _positions(covering)))


def _positions(prefix: IPv6Network) -> list[int]:
    """Where the four octets stand: right behind the prefix, around the reserved one."""
    first = prefix.prefixlen // 8
    return [position for position in range(first, first + 5) if position != _RESERVED][:4]
