"""The link model on a virtual clock: what is lost, when the rest arrives, and that a seed decides both."""

from __future__ import annotations

from itertools import pairwise

import pytest

from masque_client.testing.link import LinkModel, LinkProfile

MS = 0.001


def deliver(model: LinkModel[int], count: int, *, interval_s: float = MS, size: int = 1000) -> list[tuple[float, int]]:
    """Offer `count` datagrams at regular times, step from one due time to the next, list (time, datagram)."""
    arrivals: list[tuple[float, int]] = []

    def advance(until: float) -> None:
        while (due := model.next_due()) is not None and due <= until:
            arrivals.extend((due, item) for item in model.take_due(due))

    for index in range(count):
        advance(index * interval_s)
        model.offer(index, size, index * interval_s)
    advance(float("inf"))
    return arrivals


def test_perfect_link_delivers_at_once_in_order() -> None:
    model: LinkModel[str] = LinkModel()
    for item in "abc":
        model.offer(item, 1, 5.0)
    assert model.next_due() == 5.0
    assert model.take_due(4.999) == []
    assert model.take_due(5.0) == ["a", "b", "c"]
    assert model.next_due() is None


def test_delay_is_exact() -> None:
    arrivals = deliver(LinkModel(LinkProfile(delay_s=0.02)), 5)
    assert [item for _, item in arrivals] == list(range(5))
    assert [time for time, _ in arrivals] == pytest.approx([index * MS + 0.02 for index in range(5)])


def test_loss_follows_the_seed_and_the_probability() -> None:
    lossy = LinkProfile(loss=0.1)
    first, again, other = (deliver(LinkModel(lossy, seed=seed), 2000) for seed in (7, 7, 8))
    assert first == again
    assert first != other
    assert 0.07 < 1 - len(first) / 2000 < 0.13


def test_all_or_nothing() -> None:
    assert deliver(LinkModel(LinkProfile(loss=1.0)), 100) == []
    assert len(deliver(LinkModel(LinkProfile(loss=0.0)), 100)) == 100


def test_delay_does_not_move_the_losses() -> None:
    plain = deliver(LinkModel(LinkProfile(loss=0.2), seed=3), 200)
    delayed = deliver(LinkModel(LinkProfile(loss=0.2, delay_s=0.05, jitter_s=0.01, mtu=1500), seed=3), 200)
    assert [item for _, item in plain] == [item for _, item in delayed]


def test_jitter_stays_within_its_bounds() -> None:
    arrivals = deliver(LinkModel(LinkProfile(delay_s=0.02, jitter_s=0.01), seed=1), 500, interval_s=0.05)
    waits = [time - item * 0.05 for time, item in arrivals]
    assert 0.02 <= min(waits) + 1e-9 < 0.021
    assert 0.029 < max(waits) <= 0.03


def test_jitter_keeps_the_order() -> None:
    arrivals = deliver(LinkModel(LinkProfile(jitter_s=0.05), seed=1), 500)
    assert [item for _, item in arrivals] == list(range(500))


def test_reordering_holds_some_back_and_loses_none() -> None:
    arrivals = deliver(LinkModel(LinkProfile(reorder=0.1, reorder_delay_s=0.005), seed=1), 500)
    order = [item for _, item in arrivals]
    assert sorted(order) == list(range(500))
    overtaken = sum(later < earlier for earlier, later in pairwise(order))
    assert 20 < overtaken < 80


def test_mtu_drops_silently_only_what_is_larger() -> None:
    model: LinkModel[int] = LinkModel(LinkProfile(mtu=1200))
    for size in (1199, 1200, 1201):
        model.offer(size, size, 0.0)
    assert model.take_due(0.0) == [1199, 1200]
    assert model.counters.too_large == 1


def test_bandwidth_spaces_datagrams_out() -> None:
    model: LinkModel[int] = LinkModel(LinkProfile(bandwidth_bit_s=8_000_000))  # 1000 bytes each millisecond
    for index in range(4):
        model.offer(index, 1000, 10.0)
    assert [model.next_due()] == [pytest.approx(10.001)]
    assert model.take_due(10.0025) == [0, 1]
    assert model.take_due(10.01) == [2, 3]
    model.offer(4, 1000, 20.0)  # an idle link saves nothing up
    assert model.next_due() == pytest.approx(20.001)


def test_bandwidth_queue_drops_its_tail() -> None:
    model: LinkModel[int] = LinkModel(LinkProfile(bandwidth_bit_s=8_000_000, queue_s=0.0105))
    for index in range(100):
        model.offer(index, 1000, 0.0)
    assert model.counters.overflowed == 100 - 11  # ten waiting, one on the wire
    assert model.take_due(1.0) == list(range(11))


def test_profile_changes_apply_to_later_datagrams() -> None:
    model: LinkModel[str] = LinkModel(LinkProfile(delay_s=1.0))
    model.offer("slow", 1, 0.0)
    model.profile = LinkProfile()
    model.offer("fast", 1, 0.5)
    assert model.take_due(0.5) == ["fast"]
    assert model.next_due() == 1.0


def test_counters_add_up() -> None:
    model: LinkModel[int] = LinkModel(LinkProfile(loss=0.3, mtu=900), seed=5)
    for index in range(300):
        model.offer(index, 1000 if index % 3 == 0 else 800, 0.0)
    model.take_due(0.0)
    counters = model.counters
    assert counters.offered == 300 == counters.delivered + counters.lost + counters.too_large
    assert counters.too_large == 100


@pytest.mark.parametrize(
    "bad",
    [{"loss": 1.1}, {"loss": -0.1}, {"reorder": 2}, {"delay_s": -1}, {"jitter_s": -1}, {"bandwidth_bit_s": 0}],
)
def test_impossible_profiles_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        LinkProfile(**bad)  # type: ignore[arg-type]
