"""The loops below `UdpSocket`, compiled and in Python: what they answer, and that misuse of the former is harmless."""

from __future__ import annotations

import contextlib
import errno
import gc
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any, cast

import pytest

from masque_client.engine.interface import Address, ReceivedBuffer

CONNECTED = 0
Pair = tuple[socket.socket, socket.socket, Address]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two sockets of 127.0.0.1; the second is connected to the first, whose address comes with them."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connected,
    ):
        bound.bind(("127.0.0.1", 0))
        connected.connect(bound.getsockname())
        yield bound, connected, connected.getsockname()


def test_nothing_is_waited_for_on_a_blocking_socket(kernel: ModuleType, pair: Pair) -> None:
    assert kernel.receive_trains(pair[0], 64, None) == ([], 0, 0, 0, [])


def test_buffers_say_who_sent_them(kernel: ModuleType, pair: Pair) -> None:
    bound, connected, source = pair
    assert kernel.send_trains(connected, [(b"one", source), (b"", source)], 0, CONNECTED, True) == (2, 2, 0, 2, 3)
    buffers, *counts = kernel.receive_trains(bound, 64, None)
    assert buffers == [ReceivedBuffer(b"one", 3, source), ReceivedBuffer(b"", 0, source)]
    assert {type(buffer) for buffer in buffers} == {ReceivedBuffer}
    assert len({buffers[0], ReceivedBuffer(b"one", 3, source)}) == 1, "they hash as any tuple does"
    assert counts == [2, 3, 1, []]


def test_a_known_peer_is_not_looked_at(kernel: ModuleType, pair: Pair) -> None:
    bound, connected, _ = pair
    remote = ("the peer", 1)
    connected.send(b"x")
    buffers, *_ = kernel.receive_trains(bound, 64, remote)
    assert buffers[0].address is remote


def test_more_than_one_system_calls_worth_is_taken_in_order(kernel: ModuleType, pair: Pair) -> None:
    bound, connected, _ = pair
    for number in range(40):
        connected.send(bytes([number]))
    first, *_ = kernel.receive_trains(bound, 33, None)
    rest, *_ = kernel.receive_trains(bound, 33, None)
    assert [buffer.data[0] for buffer in first] == [*range(33)]
    assert [buffer.data[0] for buffer in rest] == [*range(33, 40)]


def test_errors_of_earlier_datagrams_come_with_what_arrived(kernel: ModuleType, pair: Pair) -> None:
    bound, connected, source = pair
    address = bound.getsockname()
    bound.close()
    connected.send(b"into the void")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as revived:
        revived.bind(address)
        revived.sendto(b"x", source)
        assert kernel.receive_trains(connected, 1, address) == ([], 0, 0, 0, [errno.ECONNREFUSED])
        assert kernel.receive_trains(connected, 1, address) == ([ReceivedBuffer(b"x", 1, address)], 1, 1, 0, [])


def test_a_refusal_tells_what_was_sent_and_what_was_not(kernel: ModuleType, pair: Pair) -> None:
    bound, connected, source = pair
    batch = [(b"12", source), (b"3", source), (bytes(65_530), source), (b"never", source)]
    assert kernel.send_trains(connected, batch, 0, CONNECTED, True) == (2, 3, errno.EMSGSIZE, 1, 3)
    assert kernel.send_trains(connected, batch, 3, CONNECTED, True) == (4, 4, 0, 1, 5)
    assert bound.recv(100) == b"12"


@pytest.mark.parametrize("start", [2, 100])
def test_sending_from_the_end_sends_nothing(kernel: ModuleType, pair: Pair, start: int) -> None:
    _, connected, source = pair
    assert kernel.send_trains(connected, [(b"x", source)] * 2, start, CONNECTED, True) == (start, start, 0, 0, 0)


def test_a_closed_socket_says_so(kernel: ModuleType, pair: Pair) -> None:
    _, connected, source = pair
    connected.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        kernel.receive_trains(connected, 64, None)
    outcome = kernel.send_trains(connected, [(b"x", source)], 0, CONNECTED, True)
    assert outcome == (0, 1, errno.EBADF, 0, 0)


# --- misuse, of the compiled ones ---------------------------------------------------------------------------------


class Descriptor:
    """Whatever `fileno` says."""

    def __init__(self, number: object) -> None:
        self.fileno = lambda: number


@pytest.fixture
def compiled() -> ModuleType:
    reason = "NEEDS a C compiler at installation: the compiled loops are not tested here"
    return cast(ModuleType, pytest.importorskip("masque_client.netio.offload._compiled", reason=reason))


WRONG_RECEIVES: list[tuple[tuple[Any, ...], type[Exception]]] = [
    ((), TypeError),
    ((1, 2, 3, 4), TypeError),
    ((Descriptor(0), "many", None), TypeError),
    ((Descriptor("zero"), 64, None), TypeError),
    ((Descriptor(2**80), 64, None), OverflowError),
    ((Descriptor(2**40), 64, None), OSError),
    ((Descriptor(-5), 64, None), OSError),
    ((7, 64, None), AttributeError),
]
WRONG_SENDS: list[tuple[tuple[Any, ...], type[Exception]]] = [
    ((), TypeError),
    ((Descriptor(0), [], 0, 0), TypeError),
    ((Descriptor(0), 5, 0, 0, True), TypeError),
    ((Descriptor(0), [], "0", 0, True), TypeError),
    ((Descriptor(0), [], 0, "inet", True), TypeError),
    ((Descriptor(0), [(b"x", ("::1", 1))], -1, 0, True), ValueError),
    ((None, [], 0, 0, True), AttributeError),
]
HERE = ("127.0.0.1", 9)
UNREADABLE: list[Any] = [
    None,
    (),
    (b"x",),
    (b"x", HERE, 1),
    ("text", HERE),
    (b"x", None),
    (b"x", ("127.0.0.1",)),
    (b"x", (b"127.0.0.1", 9)),
    (b"x", ("127.0.0.1", "9")),
    (b"x", ("127.0.0.1", -1)),
    (b"x", ("127.0.0.1", 65_536)),
    (b"x", ("127.0.0.1", 2**80)),
    (b"x", ("127.0.0.1\0", 9)),
    (b"x", ("\ud800", 9)),
    (b"x", ("::1", 9)),
]


def wrong_calls(compiled: ModuleType) -> Iterator[tuple[Callable[[], Any], type[Exception]]]:
    """Each with the exception that it raises."""
    for function, cases in ((compiled.receive_trains, WRONG_RECEIVES), (compiled.send_trains, WRONG_SENDS)):
        for arguments, expected in cases:
            yield partial(function, *arguments), expected


def test_wrong_arguments_are_python_errors(compiled: ModuleType) -> None:
    for call, expected in wrong_calls(compiled):
        with pytest.raises(expected):
            call()


def test_no_socket_is_an_error(compiled: ModuleType, tmp_path: Any) -> None:
    with (tmp_path / "file").open("wb") as file:
        with pytest.raises(OSError, match="non-socket"):
            compiled.receive_trains(file, 64, None)
        assert compiled.send_trains(file, [(b"x", HERE)], 0, CONNECTED, True)[2] == errno.ENOTSOCK


def test_a_source_that_is_no_internet_address_is_an_error(compiled: ModuleType) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        theirs.send(b"x")
        with pytest.raises(ValueError, match="not of the Internet"):
            compiled.receive_trains(ours, 64, None)


@pytest.mark.parametrize("item", UNREADABLE, ids=repr)
def test_what_is_not_understood_is_left_to_python(compiled: ModuleType, pair: Pair, item: Any) -> None:
    bound, _, _ = pair
    address = bound.getsockname()
    batch = [(b"a", address), (b"b", address), item, (b"c", address)]
    outcome = compiled.send_trains(bound, batch, 0, socket.AF_INET, True)
    assert outcome == (2, 3, errno.EAFNOSUPPORT, 1, 2)
    assert compiled.send_trains(bound, batch, 3, socket.AF_INET, True)[0] == 4


def test_nothing_is_leaked_or_lost(compiled: ModuleType, pair: Pair) -> None:
    """Reference counts after many calls of all kinds, garbage collected in their midst."""
    bound, connected, source = pair
    remote, payload, last = ("192.0.2.1", 443), bytes(1000), b"shorter"
    batch = [(payload, source)] * 20 + [(last, source)]
    watched = (remote, payload, last, source, batch, bound, connected)
    old_threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        before = None
        for _ in range(200):
            for item in UNREADABLE:
                compiled.send_trains(bound, [item], 0, socket.AF_INET, True)
            for call, expected in wrong_calls(compiled):
                with contextlib.suppress(expected):
                    call()
            compiled.send_trains(connected, tuple(batch), 0, CONNECTED, True)
            compiled.receive_trains(bound, 30, None)
            compiled.send_trains(connected, batch, 0, CONNECTED, False)
            compiled.receive_trains(bound, 30, remote)
            counts = [sys.getrefcount(object_) for object_ in watched]
            before = before or counts
    finally:
        gc.set_threshold(*old_threshold)
    assert counts == before


def test_code_that_runs_in_the_midst_may_call_again(compiled: ModuleType, pair: Pair) -> None:
    """Collecting garbage runs any code: here, code that receives from another socket."""
    bound, connected, source = pair
    inner: list[Any] = []

    class Meddler:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            inner.extend(compiled.receive_trains(connected, 64, HERE)[0])

    for number in range(32):
        connected.send(bytes([number]) * 100)
        bound.sendto(bytes([200 + number]) * 100, source)
    Meddler()
    old_threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        outer, *_ = compiled.receive_trains(bound, 64, None)
    finally:
        gc.set_threshold(*old_threshold)
    gc.collect()
    assert [buffer.data for buffer in outer] == [bytes([number]) * 100 for number in range(32)]
    assert [buffer.data for buffer in inner] == [bytes([200 + number]) * 100 for number in range(32)]
