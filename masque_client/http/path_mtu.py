"""Keeps the packet size of one HTTP/3 connection at what its path carries: feeds `protocol.path_mtu`, and obeys it.

What it listens to: the kernel refusing packets for their size or telling of ICMP (looked at after every send), packets
lost (looked at twice a second while there is traffic, because ordinary loss is no news), and acknowledged probes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from masque_client.engine.interface import Engine
from masque_client.netio.clock import Clock
from masque_client.protocol.path_mtu import PathMtu

LOOK_S = 0.5


class PathView(Protocol):
    """What the kernel knows of a path; `UdpLink` is one."""

    @property
    def refusals(self) -> int:
        """How often the kernel said something that may be about packet sizes. Only grows."""

    def max_udp_payload(self) -> int:
        """Largest UDP payload, in bytes, that it believes the path to carry and that is worth trying."""


class PathMtuKeeper:
    """Lives from the handshake to `close`; the connection calls the `on_…` methods.

    Args:
        flush: sends what the engine has.
        on_change: the packet size has changed; sizes of the engine are new already.
    """

    def __init__(
        self, engine: Engine, path: PathView, clock: Clock, flush: Callable[[], None], on_change: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._path = path
        self._clock = clock
        self._flush = flush
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._refusals = path.refusals
        self._packets_lost = 0
        self._look_at = clock.now() + LOOK_S
        self._timer: asyncio.TimerHandle | None = None
        self._machine = PathMtu(engine.statistics().max_udp_payload, self._ceiling(), clock.now())
        self._obey()

    def close(self) -> None:
        """The connection is over."""
        if self._timer is not None:
            self._timer.cancel()

    def on_sent(self, now: float) -> None:
        """Packets were handed to the kernel. Cheap when there is no news."""
        refusals = self._path.refusals
        if refusals == self._refusals and now < self._look_at:
            return
        if refusals != self._refusals:
            self._refusals = refusals
            self._on_refusal(now)
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            self._look(now)
        self._obey()

    def on_acknowledged(self, size: int) -> None:
        """A probe has arrived."""
        self._machine.acknowledged(size, self._clock.now())
        self._obey()

    def _on_refusal(self, now: float) -> None:
        """The kernel of a connected socket knows the new MTU. Otherwise a probe must tell."""
        limit = self._path.max_udp_payload()
        if limit < self._machine.size:
            self._machine.lower(limit, now)
        else:
            self._machine.suspect(now)

    def _look(self, now: float) -> None:
        lost = self._engine.statistics().packets_lost
        if lost > self._packets_lost:
            self._machine.suspect(now)
        self._packets_lost = lost

    def _ceiling(self) -> int:
        return min(self._path.max_udp_payload(), self._engine.max_udp_payload_ceiling)

    # --- obeying ----------------------------------------------------------------------------------------------------

    def _obey(self) -> None:
        """Apply the size and arm the timer. Probes leave from the timer: here we may be in the middle of a flush."""
        engine, machine = self._engine, self._machine
        if machine.size != engine.statistics().max_udp_payload:
            engine.set_max_udp_payload(machine.size)
            self._on_change()
        machine.set_ceiling(self._ceiling())
        if self._timer is not None:
            self._timer.cancel()
        at = machine.next_timeout()
        self._timer = self._loop.call_at(at, self._on_timer) if at is not None else None

    def _on_timer(self) -> None:
        now = self._clock.now()
        machine = self._machine
        machine.set_ceiling(self._ceiling())  # the kernel forgets what ICMP said after a while
        machine.handle_timeout(now)
        if (size := machine.probe_due(now)) is not None:
            if self._engine.send_probe(size, now):
                machine.probe_sent(now, self._engine.statistics().rtt_s)
                self._flush()
            else:
                machine.give_up(now)
        self._obey()
