"""Domain names as peers send them in capsules: A-labels in presentation format, compared as lower-case strings.

The root is the empty string, and a trailing dot is never kept: senders differ in whether they write it.
"""

from __future__ import annotations

import re
from typing import Final

ROOT: Final = ""
"""The DNS root. Every name is within it."""

MAX_NAME_OCTETS: Final = 253
"""Of a name in presentation format without the trailing dot (RFC 1035 §2.3.4 allows 255 octets on the wire)."""

# Underscores are not host names by RFC 952, but zones and services use them.
_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


def parse_domain(octets: bytes) -> str | None:
    """The canonical form of a name from the network, `ROOT` for an empty one or a lone dot; None if it is no name."""
    if len(octets) > MAX_NAME_OCTETS + 1 or not octets.isascii():
        return None
    name = octets.decode("ascii").lower().removesuffix(".")
    return name if name == ROOT or (len(name) <= MAX_NAME_OCTETS and _NAME.fullmatch(name)) else None


def is_within(name: str, zone: str) -> bool:
    """Whether `name` is `zone` or below it, label by label. Both canonical."""
    return zone == ROOT or name == zone or name.endswith(f".{zone}")
