"""When to rest: only in a long stream of small wake-ups."""

from __future__ import annotations

from masque_client.netio.moderation import GAP_S, PATIENCE, REST_S, SMALL_BATCH, Moderation


class Wakes:
    """Wake-ups of a link that rests as it is told."""

    def __init__(self) -> None:
        self.moderation = Moderation()
        self.now = 100.0
        self.moved = 0

    def rests(self, count: int, *, gap_s: float, moved: int = 1) -> list[bool]:
        """Whether each of `count` wake-ups, `gap_s` after the last, ends with a rest."""
        rests = []
        for _ in range(count):
            self.now += gap_s
            self.moved += moved
            rest_s = self.moderation.rest_after(self.now, self.moved)
            assert rest_s in (0.0, REST_S)
            self.now += 0.00002 + rest_s
            self.moderation.ended_at = self.now
            rests.append(rest_s > 0)
        return rests


def test_a_stream_of_singles_is_given_time_to_gather() -> None:
    rests = Wakes().rests(PATIENCE + 10, gap_s=0.0001)
    assert rests == [False] * PATIENCE + [True] * 10


def test_who_has_little_to_do_never_rests() -> None:
    assert not any(Wakes().rests(1000, gap_s=0.001))


def test_who_has_much_to_do_never_rests() -> None:
    assert not any(Wakes().rests(1000, gap_s=0.0, moved=SMALL_BATCH))


def test_a_pause_or_a_batch_ends_the_stream() -> None:
    wakes = Wakes()
    for breaks in ({"gap_s": GAP_S}, {"gap_s": 0.0, "moved": SMALL_BATCH}):
        assert wakes.rests(PATIENCE + 2, gap_s=0.0)[-1]
        assert wakes.rests(1, **breaks) == [False]  # type: ignore[arg-type]
        assert not any(wakes.rests(PATIENCE - 1, gap_s=0.0))
