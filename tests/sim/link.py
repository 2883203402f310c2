"""Two engines and the network between them, in memory, on a virtual clock.

The network delays, loses, reorders and drops what is over its MTU, all from one seed, so a failure repeats. Time only
passes to the next arrival or the next timer: nothing sleeps.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count, groupby
from typing import TypeVar

from masque_client.engine import create_client_engine, create_server_engine
from masque_client.engine.interface import (
    Address,
    DatagramsReceived,
    Engine,
    EngineConfiguration,
    EngineName,
    Event,
    ReceivedBuffer,
)
from masque_client.protocol.quic_invariants import parse_long_header

CLIENT_ADDRESS = ("192.0.2.11", 40000)
SERVER_ADDRESS = ("198.51.100.2", 443)

CLOCK_STEP_S = 1e-6

EventType = TypeVar("EventType")


@dataclass(slots=True)
class Conditions:
    """What the network does to UDP payloads, in each direction. May be changed while it runs."""

    delay_s: float = 0.01
    jitter_s: float = 0.0
    """Up to this much is added at random, so packets overtake each other."""
    loss: float = 0.0
    mtu: int = 65535
    """Largest UDP payload that arrives."""


@dataclass
class End:
    """One engine, what it has told so far, and what it has put on the wire."""

    engine: Engine
    address: Address
    events: list[Event] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    """UDP payloads, kept while `Pair.keeps_packets`."""

    def of_type(self, kind: type[EventType]) -> list[EventType]:
        """The events of one type, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    def payloads(self) -> list[bytes]:
        """All HTTP Datagram payloads received, in order."""
        return [payload for event in self.of_type(DatagramsReceived) for payload in event.payloads]


class Pair:
    """A client and a server engine. The server comes to life with the client's first Initial."""

    def __init__(
        self,
        client: tuple[EngineName, EngineConfiguration],
        server: tuple[EngineName, EngineConfiguration],
        conditions: Conditions | None = None,
        *,
        seed: int = 1,
    ) -> None:
        self.conditions = conditions or Conditions()
        self.now = 1000.0
        self.keeps_packets = True
        self.client = End(create_client_engine(*client), CLIENT_ADDRESS)
        self._server_configuration = server
        self._server: End | None = None
        self._random = random.Random(seed)
        self._wire: list[tuple[float, int, bool, bytes]] = []
        self._serial = count()

    @property
    def server(self) -> End:
        assert self._server is not None, "no Initial has reached the server yet"
        return self._server

    @property
    def ends(self) -> list[End]:
        return [self.client] if self._server is None else [self.client, self._server]

    def connect(self) -> None:
        """Start the handshake; then `run`."""
        self.client.engine.connect(SERVER_ADDRESS, self.now)
        self.turn()

    def turn(self) -> None:
        """Drain the events of both ends and put what they want to send on the wire."""
        for end in self.ends:
            while (event := end.engine.next_event()) is not None:
                end.events.append(event)
            self._transmit(end, (data for data, _ in end.engine.datagrams_to_send(self.now)))

    def run(self, until: Callable[[], bool] | None = None, *, for_s: float = 10.0) -> bool:
        """Let time pass until the condition holds or `for_s` virtual seconds are over; was it reached?"""
        deadline = self.now + for_s
        self.turn()
        while not (until is not None and until()):
            upcoming = self._next_moment()
            if upcoming is None or upcoming > deadline:
                self.now = deadline
                return until is not None and until()
            # Like a real clock this one never stands still: a timer that is due a rounding error too early (aioquic's
            # loss timer) does nothing, and would be due again at this very moment for ever.
            self.now = upcoming if upcoming > self.now else self.now + CLOCK_STEP_S
            self._deliver()
            for end in self.ends:
                timeout = end.engine.next_timeout()
                if timeout is not None and timeout <= self.now:
                    end.engine.handle_timeout(self.now)
            self.turn()
        return True

    def inject(self, target: End, data: bytes) -> None:
        """Put a UDP payload in front of `target`, now."""
        source = SERVER_ADDRESS if target is self.client else CLIENT_ADDRESS
        target.engine.receive_datagrams([ReceivedBuffer(data, len(data), source)], self.now)

    def _next_moment(self) -> float | None:
        moments = [end.engine.next_timeout() for end in self.ends]
        moments.append(self._wire[0][0] if self._wire else None)
        return min((moment for moment in moments if moment is not None), default=None)

    def _transmit(self, end: End, payloads: Iterable[bytes]) -> None:
        conditions, chance = self.conditions, self._random
        for data in payloads:
            if self.keeps_packets:
                end.sent.append(data)
            if len(data) > conditions.mtu or (conditions.loss and chance.random() < conditions.loss):
                continue
            delay = conditions.delay_s + (chance.random() * conditions.jitter_s if conditions.jitter_s else 0.0)
            heapq.heappush(self._wire, (self.now + delay, next(self._serial), end is self.client, data))

    def _deliver(self) -> None:
        """Deliver what has arrived, as the GRO trains a socket would give: equal sizes, the last may be shorter."""
        arrived: dict[bool, list[bytes]] = {True: [], False: []}
        while self._wire and self._wire[0][0] <= self.now:
            _, _, from_client, data = heapq.heappop(self._wire)
            arrived[from_client].append(data)
        for from_client, payloads in arrived.items():
            if not payloads:
                continue
            if from_client and self._server is None:
                self._accept(payloads[0])
            target = self._server if from_client else self.client
            source = CLIENT_ADDRESS if from_client else SERVER_ADDRESS
            if target is not None:
                trains = [
                    ReceivedBuffer(b"".join(train), size, source)
                    for size, train in ((size, list(group)) for size, group in groupby(payloads, key=len))
                ]
                target.engine.receive_datagrams(trains, self.now)

    def _accept(self, first: bytes) -> None:
        header = parse_long_header(first)
        if header is not None and header.is_initial:
            name, configuration = self._server_configuration
            engine = create_server_engine(
                name, configuration, original_destination_connection_id=header.destination_cid
            )
            self._server = End(engine, SERVER_ADDRESS)
