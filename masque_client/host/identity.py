"""How our entries in shared tables are told from everyone else's, and one tunnel's from another's.

Devices, addresses and routes to a device vanish with its process; policy rules and unreachable routes do not. So
everything of ours carries a protocol number, and all numbers of a tunnel derive from its device's name: a later run
recognises what an earlier one left, without having been told.

    routes and rules   protocol 77
    table              0x4D510000 + slot
    rule priorities    20000 + 4 × slot … + 3     tunnels for some destinations
                       25000 + 4 × slot … + 3     tunnels for all, asked after those for some

Both bands lie between the kernel's `local` (0) and `main` (32766) tables.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Final

PROTOCOL: Final = 77
"""Our number in the `protocol` field of routes and rules; unassigned in iproute2's rt_protos."""

SLOTS: Final = 1000
RULES_PER_SLOT: Final = 4
TABLE_BASE: Final = 0x4D51_0000
SPLIT_BASE: Final = 20_000
FULL_BASE: Final = 25_000

MAIN_TABLE: Final = 254


@dataclass(frozen=True, slots=True)
class TunnelIdentity:
    """The numbers of the tunnel on one device."""

    device: str
    slot: int

    @classmethod
    def of(cls, device: str) -> TunnelIdentity:
        """Names that differ in their final number only (masque0, masque1) get neighbouring slots: never the same."""
        stem, number = re.fullmatch(r"(.*?)(\d{0,9})", device).groups()  # type: ignore[union-attr]
        return cls(device, (zlib.crc32(stem.encode()) + int(number or 0)) % SLOTS)

    @classmethod
    def gone(cls, slot: int) -> TunnelIdentity:
        """A tunnel whose device's name nobody remembers; no device has this one."""
        return cls("", slot)

    @property
    def table(self) -> int:
        """The routing table of the tunnel."""
        return TABLE_BASE + self.slot

    def priority(self, position: int, *, full: bool) -> int:
        """Of the rule at `position` (0 is asked first) in the band for all or for some destinations."""
        return (FULL_BASE if full else SPLIT_BASE) + RULES_PER_SLOT * self.slot + position


def slot_of_table(table: int) -> int | None:
    """Whose table it is, or None when it is not ours."""
    slot = table - TABLE_BASE
    return slot if 0 <= slot < SLOTS else None


def slot_of_priority(priority: int) -> int | None:
    """Whose rule it is if its protocol says that it is ours, or None."""
    for base in (SPLIT_BASE, FULL_BASE):
        if 0 <= priority - base < SLOTS * RULES_PER_SLOT:
            return (priority - base) // RULES_PER_SLOT
    return None
