"""Local UDP ports whose datagrams travel through CONNECT-UDP (RFC 9298) to one target each.

HTTP Datagrams carry no addresses, so each local peer gets a request stream of its own (digest U-18): replies can
only ever go back to the peer whose stream they came on. All streams of one forwarder share one connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from masque_client.engine.interface import Address, Headers
from masque_client.errors import MasqueError
from masque_client.http.connection import HttpConnection
from masque_client.http.stream import SessionStream
from masque_client.netio.clock import Clock
from masque_client.netio.udp import UdpSocket
from masque_client.protocol.connect import udp_request_headers
from masque_client.protocol.session import Role
from masque_client.protocol.udp_session import ConnectUdpSession
from masque_client.protocol.uri_template import UdpTemplate

logger = logging.getLogger(__name__)

MAX_EARLY_DATAGRAMS = 8
"""Datagrams of a new local peer kept until the proxy's 2xx; more are dropped and counted."""
FLOW_IDLE_TIMEOUT_S = 120.0
"""A flow without traffic in either direction is closed after this (digest U-20, RFC 9298 §3.1: at least 2 minutes)."""
MAX_FLOWS = 1024
"""Local peers served at once on one port; each costs a request stream and the proxy a socket."""


@dataclass(frozen=True, slots=True)
class Forward:
    """One local port and its target: `local` is where we listen, `host` and `port` what the proxy sends to."""

    local: Address
    host: str
    port: int


@dataclass(slots=True)
class ForwardStatistics:
    """What one local port carried, in UDP payloads and bytes. Outbound is local peer → target."""

    datagrams_out: int = 0
    bytes_out: int = 0
    datagrams_in: int = 0
    bytes_in: int = 0
    drops: Counter[str] = field(default_factory=Counter)


class _Flow:
    """One local peer: its request stream, and what it sent before the stream was open."""

    def __init__(self, owner: PortForwarder, peer: Address) -> None:
        self.owner = owner
        self.peer = peer
        self.last_used = owner.clock.now()
        self.early: list[bytes] = []
        self.stream = SessionStream(
            ConnectUdpSession(Role.CLIENT), on_payloads=self.deliver, on_event=lambda event: None
        )
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            await self.stream.open(self.owner.connection, self.owner.headers)
            early, self.early = self.early, []
            self.send(early)
            if (error := await self.stream.wait_closed()) is not None:
                raise error
        except MasqueError as error:
            self.owner.flow_failed(self, error)
        finally:
            self.stream.close()
            self.owner.flows.pop(self.peer, None)

    def send(self, payloads: list[bytes]) -> None:
        """Local peer → target."""
        statistics = self.owner.statistics
        self.last_used = self.owner.clock.now()
        if self.stream.is_open and self.stream.max_payload:
            limit = self.stream.max_payload
            fitting = [payload for payload in payloads if len(payload) <= limit]
            taken = self.stream.send_payloads(self.stream.session.encapsulate(fitting, self.last_used).send)
            self.stream.flush()
            statistics.drops["too-large"] += len(payloads) - len(fitting)
            statistics.drops["queue-full"] += len(fitting) - taken
            statistics.datagrams_out += taken
            statistics.bytes_out += sum(map(len, fitting[:taken]))
        else:
            room = MAX_EARLY_DATAGRAMS - len(self.early)
            self.early.extend(payloads[:room])
            statistics.drops["before-response"] += max(0, len(payloads) - room)

    def deliver(self, payloads: list[bytes]) -> None:
        """Target → local peer."""
        self.last_used = self.owner.clock.now()
        self.owner.deliver(self.peer, payloads)


class PortForwarder:
    """Listens on `forward.local` and carries every local peer's datagrams to the target and back.

    Args:
        connection: with extended CONNECT and HTTP Datagrams allowed (`http.connector.connect`).
        template: the proxy's CONNECT-UDP URI template.
        extra_headers: sent with each request, such as Authorization.
        on_error: told why a flow ended; a refusal by the proxy ends only that flow.

    Raises:
        AddressInUse: the local port is taken.
    """

    def __init__(
        self,
        forward: Forward,
        connection: HttpConnection,
        template: UdpTemplate,
        clock: Clock,
        *,
        extra_headers: Headers = (),
        on_error: Callable[[MasqueError], None] | None = None,
    ) -> None:
        self.forward = forward
        self.connection = connection
        self.clock = clock
        self.headers = udp_request_headers(template.expand(forward.host, forward.port), extra_headers)
        self.flows: dict[Address, _Flow] = {}
        self.statistics = ForwardStatistics()
        self._on_error = on_error
        self._socket = UdpSocket.bound(forward.local)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._on_readable)
        self._sweeper = self._loop.call_later(FLOW_IDLE_TIMEOUT_S / 8, self._close_idle)

    @property
    def local_address(self) -> Address:
        """Where we listen, with the port the kernel chose if 0 was asked for."""
        return self._socket.local_address

    async def close(self) -> None:
        """Stop listening, end every flow, release the port. Idempotent."""
        self._sweeper.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        tasks = [flow.task for flow in list(self.flows.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def deliver(self, peer: Address, payloads: list[bytes]) -> None:
        """Send the target's datagrams to the local peer; what the kernel cannot take now is dropped and counted."""
        taken = self._socket.send_batch([(payload, peer) for payload in payloads])
        self.statistics.drops["local-buffer-full"] += len(payloads) - taken
        self.statistics.datagrams_in += taken
        self.statistics.bytes_in += sum(map(len, payloads[:taken]))

    def flow_failed(self, flow: _Flow, error: MasqueError) -> None:
        """A flow ended with an error; the peer's next datagram opens a new one."""
        logger.info("flow to %s:%d ended: %s", self.forward.host, self.forward.port, error)
        self.statistics.drops["flow-failed"] += len(flow.early)
        if self._on_error is not None:
            self._on_error(error)

    def _on_readable(self) -> None:
        by_peer: dict[Address, list[bytes]] = {}
        for payload, peer in self._socket.receive_datagrams():
            by_peer.setdefault(peer, []).append(payload)
        for peer, payloads in by_peer.items():
            flow = self.flows.get(peer)
            if flow is None:
                if len(self.flows) >= MAX_FLOWS:
                    self.statistics.drops["too-many-flows"] += len(payloads)
                    continue
                flow = self.flows[peer] = _Flow(self, peer)
            flow.send(payloads)

    def _close_idle(self) -> None:
        horizon = self.clock.now() - FLOW_IDLE_TIMEOUT_S
        for flow in [flow for flow in self.flows.values() if flow.last_used < horizon]:
            flow.task.cancel()
        self._sweeper = self._loop.call_later(FLOW_IDLE_TIMEOUT_S / 8, self._close_idle)
