"""What the user may choose about a scenario."""

from __future__ import annotations

from dataclasses import dataclass

from masque_client.engine.interface import EngineName

MIB = 1 << 20
BIG_MIB, BIG_MIB_WITH_LOSS, SMALL_MIB = 100, 8, 4
"""Transfer sizes. A TCP flow under 1 % loss at 40 ms gets a few Mbit/s by its own congestion control: 8 MiB do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user may choose. `loss` in percent and `delay_ms` apply to each direction of the client–proxy path."""

    engine: EngineName = EngineName.AUTO
    loss: float = 0.0
    delay_ms: float = 0.0
    seed: int = 1
    size_mib: int | None = None

    @property
    def through_relay(self) -> bool:
        """Whether the path is impaired at all."""
        return self.loss > 0 or self.delay_ms > 0

    @property
    def big_bytes(self) -> int:
        """Size of the IPv4 transfers."""
        return MIB * (self.size_mib or (BIG_MIB_WITH_LOSS if self.loss else BIG_MIB))

    @property
    def small_bytes(self) -> int:
        """Size of the IPv6 transfers."""
        return min(self.big_bytes, SMALL_MIB * MIB)
