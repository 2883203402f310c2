"""The queue's two bounds and its accounting, apart from any engine."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque_client.engine.datagram_queue import DatagramQueue


def test_bytes_bound_overshoots_by_at_most_one() -> None:
    queue = DatagramQueue(1000, 1.0)
    assert queue.put(b"h", [bytes(99)] * 20, 99, 0.0) == 10
    assert queue.is_full
    assert queue.put(b"h", [b"x"], 99, 0.0) == 0
    queue.items.popleft()
    queue.settle()
    assert queue.put(b"h", [bytes(99)] * 20, 99, 0.0) == 1


def test_a_single_datagram_always_fits_an_empty_queue() -> None:
    queue = DatagramQueue(10, 1.0)
    assert queue.put(b"", [bytes(1200), b"x"], 1200, 0.0) == 1


def test_too_large_payloads_are_skipped_even_when_full() -> None:
    queue = DatagramQueue(100, 1.0)
    assert queue.put(b"hh", [b"abc", bytes(101), b"de"], 100, 0.0) == 3
    assert list(queue.items) == [b"hhabc", b"hhde"]
    assert queue.put(b"", [bytes(100), bytes(101), b"x"], 100, 0.0) == 2
    assert queue.too_large == 2


def test_age_bound_drops_the_oldest_and_names_the_next_moment() -> None:
    queue = DatagramQueue(10_000, 0.05)
    assert queue.next_expiry() is None
    queue.put(b"", [b"a1", b"a2", b"a3"], 10, 1.00)
    queue.put(b"", [b"b1"], 10, 1.03)
    queue.items.popleft()
    queue.settle()
    assert queue.next_expiry() == pytest.approx(1.05)
    queue.expire(1.049)
    assert list(queue.items) == [b"a2", b"a3", b"b1"]
    moment = queue.next_expiry()
    assert moment is not None
    queue.expire(moment)
    assert list(queue.items) == [b"b1"]
    assert queue.expired == 2
    assert queue.next_expiry() == pytest.approx(1.08)
    queue.expire(5.0)
    assert (queue.expired, queue.next_expiry(), queue.is_full) == (3, None, False)


def test_what_left_no_longer_counts_against_age() -> None:
    queue = DatagramQueue(10_000, 0.05)
    queue.put(b"", [b"a"], 10, 1.0)
    queue.put(b"", [b"b"], 10, 1.04)
    queue.items.popleft()
    queue.settle()
    assert queue.next_expiry() == pytest.approx(1.09)


def test_discard_larger_than() -> None:
    queue = DatagramQueue(10_000, 0.05)
    queue.put(b"", [bytes(5), bytes(9), bytes(6)], 10, 1.0)
    queue.discard_larger_than(6)
    assert [len(item) for item in queue.items] == [5, 6]
    assert queue.too_large == 1
    queue.expire(1.06)
    assert queue.expired == 2


@pytest.mark.parametrize("seed", range(5))
def test_against_a_simple_model(seed: int) -> None:
    """Random puts, takes and expiries; the model keeps a time with each item."""
    chance = random.Random(seed)
    queue, model, expired, now = DatagramQueue(500, 1.0), [], 0, 0.0
    for _ in range(2000):
        now += chance.random() * 0.2
        match chance.choice(("put", "take", "expire")):
            case "put":
                payloads = [bytes(chance.randrange(60)) for _ in range(chance.randrange(12))]
                dealt = queue.put(b"q", payloads, 50, now)
                for payload in payloads[:dealt]:
                    if len(payload) <= 50:
                        model.append((now, b"q" + payload))
            case "take":
                for _ in range(min(len(model), chance.randrange(10))):
                    assert queue.items.popleft() == model.pop(0)[1]
                queue.settle()
            case "expire":
                queue.expire(now)
                while model and model[0][0] + 1.0 <= now:
                    model.pop(0)
                    expired += 1
        assert list(queue.items) == [item for _, item in model]
        assert queue.expired == expired
        assert queue.is_full == (sum(len(item) for _, item in model) >= 500)


@given(st.lists(st.tuples(st.lists(st.integers(0, 40), max_size=6), st.booleans(), st.integers(0, 8)), max_size=20))
def test_what_waits_is_counted_to_the_byte(steps: list[tuple[list[int], bool, int]]) -> None:
    queue = DatagramQueue(300, 1.0)
    for now, (sizes, in_halves, taken) in enumerate(steps):
        payloads = [bytes(size) for size in sizes]
        if in_halves:
            queue.put_split(halves, b"h", payloads, 15, now / 10)
        else:
            queue.put(b"h", payloads, 30, now / 10)
        assert queue.waiting_bytes == sum(map(len, queue.items))
        for _ in range(min(taken, len(queue.items))):
            queue.items.popleft()
        queue.settle()
        assert queue.waiting_bytes == sum(map(len, queue.items))
        queue.expire(now / 10)
        assert queue.waiting_bytes == sum(map(len, queue.items))


def halves(buffers: Sequence[bytes], head: bytes) -> list[bytes]:
    return [head + half for data in buffers for half in (data[: len(data) // 2], data[len(data) // 2 :])]
