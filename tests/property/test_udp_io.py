"""The loops of a UDP socket, compiled and in Python, against each other: the same trains, the same buffers.

A local datagram socket shows trains as they were made: it ignores UDP_SEGMENT, so each arrives as one message.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque_client.engine.interface import Address
from masque_client.netio.offload import python_kernel
from masque_client.netio.sockopt import enable_gro

compiled = pytest.importorskip(
    "masque_client.netio.offload._compiled", reason="NEEDS a C compiler at installation: no parity to test"
)

quick = settings(derandomize=True, deadline=None, max_examples=100, database=None)

CONNECTED = 0
LOOPBACKS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
SIZES = st.sampled_from([0, 1, 2, 99, 100, 100, 100, 1200, 40_000, 65_000, 65_001])


@st.composite
def runs(draw: st.DrawFn, values: st.SearchStrategy[int]) -> list[int]:
    """Numbers that mostly repeat the one before."""
    lengths = st.integers(1, 70) | st.integers(1, 3)
    return [number for _ in range(draw(st.integers(0, 6))) for number in [draw(values)] * draw(lengths)]


def trains_made(kernel: object, batch: list[tuple[bytes, Address]], start: int, in_trains: bool) -> list[object]:
    """Messages and outcomes of sending it all, with a receiver that reads whenever it is full."""
    seen: list[object] = []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        refusal = errno.EAGAIN
        while refusal == errno.EAGAIN:
            outcome = kernel.send_trains(ours, batch, start, CONNECTED, in_trains)  # type: ignore[attr-defined]
            start, _, refusal, _, _ = outcome
            seen.append(outcome)
            while message := _message(theirs):
                seen.append(message)
    return seen


def _message(sock: socket.socket) -> list[bytes]:
    try:
        return [sock.recv(1 << 20, socket.MSG_DONTWAIT)]
    except BlockingIOError:
        return []


@quick
@given(runs(SIZES), st.booleans(), st.integers(0, 5))
def test_the_same_trains_are_made(sizes: list[int], in_trains: bool, start: int) -> None:
    batch = [(bytes([index % 251]) * size, ("unused", index)) for index, size in enumerate(sizes)]
    made = trains_made(compiled, batch, start, in_trains)
    assert made == trains_made(python_kernel, batch, start, in_trains)


class Peers:
    """A sender of two sources, and a receiver for each kernel; all of one family."""

    def __init__(self, family: socket.AddressFamily) -> None:
        self.family = family
        self.senders = [self._bound() for _ in range(2)]
        self.receivers = [self._bound() for _ in range(2)]
        for receiver in self.receivers:
            enable_gro(receiver)
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)

    def _bound(self) -> socket.socket:
        sock = socket.socket(self.family, socket.SOCK_DGRAM)
        sock.bind((LOOPBACKS[self.family], 0))
        return sock

    def close(self) -> None:
        for sock in self.senders + self.receivers:
            sock.close()


@pytest.fixture(scope="module", params=list(LOOPBACKS), ids=LOOPBACKS.get)
def peers(request: pytest.FixtureRequest) -> Iterator[Peers]:
    peers = Peers(request.param)
    yield peers
    peers.close()


@quick
@given(data=st.data())
def test_the_same_is_sent_to_many(peers: Peers, data: st.DataObject) -> None:
    """To whom each datagram goes is what divides trains here; receiving in Python tells what arrived."""
    to = data.draw(runs(st.integers(0, 1)))
    addresses = [receiver.getsockname()[:2] for receiver in peers.receivers]
    batch = [(bytes([index]) * (90 if index % 50 else 80), (*addresses[peer],)) for index, peer in enumerate(to[:200])]
    outcomes = []
    for kernel in (compiled, python_kernel):
        sent = kernel.send_trains(peers.senders[0], batch, 0, peers.family, True)
        arrived = [python_kernel.receive_trains(receiver, 1000, None) for receiver in peers.receivers]
        outcomes.append((sent, arrived))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0][0] == len(batch)


@quick
@given(data=st.data())
def test_the_same_is_received(peers: Peers, data: st.DataObject) -> None:
    trains = st.tuples(st.integers(0, 1), st.integers(0, 1400), st.integers(1, 40), st.integers(0, 1400))
    for sender, size, count, last in data.draw(st.lists(trains, max_size=30)):
        for receiver in peers.receivers:
            to = receiver.getsockname()[:2]
            batch = [(bytes([index]) * size, to) for index in range(count)] + [(bytes(min(last, size)), to)]
            python_kernel.send_trains(peers.senders[sender], batch, 0, peers.family, True)
    remote = data.draw(st.sampled_from([None, ("192.0.2.1", 443)]))
    while True:
        limit = data.draw(st.integers(1, 40))
        one, other = (
            kernel.receive_trains(receiver, limit, remote)
            for kernel, receiver in zip((compiled, python_kernel), peers.receivers, strict=True)
        )
        assert one == other
        if len(one[0]) < limit:
            break
