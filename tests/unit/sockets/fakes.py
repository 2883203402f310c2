"""A dialer and its paths, made of lists and futures."""

from __future__ import annotations

import asyncio

from masque_client.engine.interface import Address
from masque_client.errors import MasqueError
from masque_client.sockets.paths import OnPayloads

TIMEOUT_S = 60.0


class FakePath:
    """A way to a target. `room` is how many datagrams it takes in all; None for any number."""

    def __init__(self, on_payloads: OnPayloads, max_payload: int, room: int | None) -> None:
        self.deliver = on_payloads
        self.max_payload = max_payload
        self.room = room
        self.sent: list[bytes] = []
        self.is_closed = asyncio.Event()
        self.ended: asyncio.Future[MasqueError | None] = asyncio.get_running_loop().create_future()

    def send(self, payloads: list[bytes]) -> int:
        taken = payloads if self.room is None else payloads[: self.room - len(self.sent)]
        self.sent += taken
        return len(taken)

    async def wait_closed(self) -> MasqueError | None:
        return await asyncio.shield(self.ended)

    def close(self) -> None:
        self.is_closed.set()


class FakeDialer:
    """Opens `FakePath`s, once `may_answer` is set; or raises `refusal`."""

    def __init__(self, *, max_payload: int = 1200, room: int | None = None, refusal: MasqueError | None = None) -> None:
        self.targets: list[Address] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.refusal = refusal
        self._max_payload = max_payload
        self._room = room
        self._opened: asyncio.Queue[FakePath] = asyncio.Queue()

    async def open_udp(self, host: str, port: int, on_payloads: OnPayloads) -> FakePath:
        self.targets.append((host, port))
        await self.may_answer.wait()
        if self.refusal is not None:
            raise self.refusal
        path = FakePath(on_payloads, self._max_payload, self._room)
        self._opened.put_nowait(path)
        return path

    async def opened(self) -> FakePath:
        """The next path that was opened; by the time we hear of it, its flow has sent what was waiting."""
        return await asyncio.wait_for(self._opened.get(), TIMEOUT_S)
