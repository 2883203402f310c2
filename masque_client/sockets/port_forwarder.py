"""Local UDP ports whose datagrams travel to one target each, as a rule through CONNECT-UDP (RFC 9298).

HTTP Datagrams carry no addresses, so each local peer gets a flow with a request stream of its own (digest U-18):
replies can only ever go back to the peer whose stream they came on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from masque_client.engine.interface import Address
from masque_client.errors import MasqueError
from masque_client.netio.clock import Clock
from masque_client.netio.udp import UdpSocket
from masque_client.sockets.flows import FlowStatistics, FlowTable
from masque_client.sockets.paths import UdpDialer


@dataclass(frozen=True, slots=True)
class Forward:
    """One local port and its target: `local` is where we listen, `host` and `port` what the proxy sends to."""

    local: Address
    host: str
    port: int


class PortForwarder:
    """Listens on `forward.local` and carries every local peer's datagrams to the target and back.

    Args:
        dialer: opens the flows' paths: `paths.ProxyDialer`, or a `tunnel.router.Router` that consults rules.
        on_error: told why a flow ended; the others go on. `errors.concerns_whole_proxy` says if they are worth it.

    Raises:
        AddressInUse: the local port is taken.
    """

    def __init__(
        self,
        forward: Forward,
        dialer: UdpDialer,
        clock: Clock,
        *,
        on_error: Callable[[MasqueError], None] = lambda error: None,
    ) -> None:
        self.forward = forward
        self._socket = UdpSocket.bound(forward.local)
        self._flows: FlowTable[Address] = FlowTable(dialer, self._deliver, clock, on_error=on_error)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._on_readable)

    @property
    def local_address(self) -> Address:
        """Where we listen, with the port the kernel chose if 0 was asked for."""
        return self._socket.local_address

    @property
    def statistics(self) -> FlowStatistics:
        """What this port has carried."""
        return self._flows.statistics

    @property
    def flows(self) -> int:
        """Local peers served now."""
        return len(self._flows.flows)

    async def close(self) -> None:
        """Stop listening, end every flow, release the port. Idempotent."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        await self._flows.close()

    def _on_readable(self) -> None:
        by_peer: dict[Address, list[bytes]] = {}
        for payload, peer in self._socket.receive_datagrams():
            by_peer.setdefault(peer, []).append(payload)
        for peer, payloads in by_peer.items():
            self._flows.send(peer, (self.forward.host, self.forward.port), payloads)

    def _deliver(self, peer: Address, payloads: list[bytes]) -> int:
        if self._socket.fileno() < 0:
            return 0
        return self._socket.send_batch([(payload, peer) for payload in payloads])
