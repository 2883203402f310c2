"""What is remembered of a network: advice that can only help, in a file that can only be ours."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from masque_client.http.network_memory import (
    FORGET_AFTER_S,
    MAX_ENTRIES,
    NO_ADVICE,
    RETRY_HTTP3_S,
    Advice,
    MemoryFile,
    NetworkMemory,
    encode_memory,
    key_of,
    parse_memory,
)

HOME, CAFE = "a" * 32, "b" * 32
PROXY = ("proxy.example", 443)
GOOD = ("192.0.2.1", 443)
OTHER = ("2001:db8::1", 8443)
KEY = key_of(HOME, *PROXY)
NOON = 1_800_000_000.0


def test_an_unknown_network_changes_nothing() -> None:
    assert NetworkMemory().advise(KEY, NOON) == NO_ADVICE == Advice(None, http2_at_once=False, prefer_http3=True)


def test_the_last_good_address_is_tried_beside_the_first() -> None:
    memory = NetworkMemory()
    memory.remember(KEY, GOOD, NOON, quic_blocked=False, was_fair=True)
    assert memory.advise(KEY, NOON + 1) == Advice(GOOD)


def test_blocked_quic_is_remembered_and_tried_again_in_time() -> None:
    memory = NetworkMemory()
    memory.remember(KEY, GOOD, NOON, quic_blocked=True, was_fair=True)
    assert memory.advise(KEY, NOON + 1) == Advice(GOOD, http2_at_once=True, prefer_http3=False)
    # An unfair defeat must not put the fair try off for ever.
    memory.remember(KEY, GOOD, NOON + RETRY_HTTP3_S - 1, quic_blocked=True, was_fair=False)
    assert memory.advise(KEY, NOON + RETRY_HTTP3_S) == Advice(GOOD, http2_at_once=True, prefer_http3=True)
    memory.remember(KEY, GOOD, NOON + RETRY_HTTP3_S, quic_blocked=True, was_fair=True)
    assert not memory.advise(KEY, NOON + RETRY_HTTP3_S + 1).prefer_http3
    memory.remember(KEY, OTHER, NOON + RETRY_HTTP3_S + 2, quic_blocked=False, was_fair=False)
    assert memory.advise(KEY, NOON + RETRY_HTTP3_S + 3) == Advice(OTHER)


def test_old_entries_and_entries_from_the_future_are_ignored() -> None:
    memory = NetworkMemory()
    memory.remember(KEY, GOOD, NOON, quic_blocked=True, was_fair=True)
    assert memory.advise(KEY, NOON + FORGET_AFTER_S) == NO_ADVICE
    assert memory.advise(KEY, NOON - 1) == NO_ADVICE


def test_networks_and_proxies_are_apart() -> None:
    assert len({KEY, key_of(CAFE, *PROXY), key_of(HOME, "proxy.example", 444), key_of(HOME, "other.example", 443)}) == 4


def test_the_longest_unused_leave_first() -> None:
    memory = NetworkMemory()
    for number in range(MAX_ENTRIES + 5):
        memory.remember(str(number), GOOD, NOON + number, quic_blocked=False, was_fair=True)
        memory.remember("0", GOOD, NOON + number, quic_blocked=False, was_fair=True)
    assert len(memory.entries) == MAX_ENTRIES
    assert memory.advise("0", NOON + 1000) != NO_ADVICE
    assert memory.advise("1", NOON + 1000) == NO_ADVICE


STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans(), st.floats(0, 2 * RETRY_HTTP3_S)), max_size=30
)


@settings(derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.sampled_from("abc"))
def test_http3_is_never_without_a_fair_try_for_longer_than_promised(
    steps: list[tuple[str, bool, bool, float]], asked: str
) -> None:
    memory, now, last_fair = NetworkMemory(), NOON, NOON - RETRY_HTTP3_S
    for key, quic_blocked, prefers, wait in steps:
        now += wait
        was_fair = prefers or memory.advise(key, now).prefer_http3
        memory.remember(key, GOOD, now, quic_blocked=quic_blocked, was_fair=was_fair)
        if key == asked and was_fair:
            last_fair = now
    advice = memory.advise(asked, now)
    assert advice.prefer_http3 or now - last_fair < RETRY_HTTP3_S
    assert advice.http2_at_once or advice.prefer_http3
    assert memory.advise(asked, now + RETRY_HTTP3_S).prefer_http3


@settings(derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_what_is_written_is_read(steps: list[tuple[str, bool, bool, float]]) -> None:
    memory, now = NetworkMemory(), NOON
    for key, quic_blocked, was_fair, wait in steps:
        now += wait
        memory.remember(key, GOOD, now, quic_blocked=quic_blocked, was_fair=was_fair)
    assert parse_memory(encode_memory(memory)).entries == memory.entries


@settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow], max_examples=300
)
@given(
    st.binary(max_size=50)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: st.dictionaries(
            st.sampled_from(["format_version", "entries", "a", "address", "port", "used_at", "http3_failed_at"]), inner
        ),
    ).map(lambda value: json.dumps({"format_version": 1, "entries": value}).encode())
)
def test_any_file_parses_to_a_memory_that_works(data: bytes) -> None:
    memory = parse_memory(data)
    for key in memory.entries:
        memory.advise(key, NOON)


@pytest.mark.parametrize("change", [{"port": 0}, {"port": True}, {"address": "x"}, {"used_at": -1}, {"used_at": "1"}])
def test_a_damaged_entry_spoils_the_file(change: dict[str, object]) -> None:
    memory = NetworkMemory()
    memory.remember(KEY, GOOD, NOON, quic_blocked=False, was_fair=True)
    document = json.loads(encode_memory(memory))
    assert parse_memory(json.dumps(document).encode()).entries
    document["entries"][KEY] |= change
    assert not parse_memory(json.dumps(document).encode()).entries


# --- the file -----------------------------------------------------------------------------------------------------


class Place:
    """A file, a network that can be changed, and a clock."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "cache" / "networks.json"
        self.network: str | None = HOME
        self.now = NOON

    def open(self) -> MemoryFile:
        return MemoryFile(self.path, lambda: self.network, lambda: self.now)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_next_run_knows(place: Place) -> None:
    place.open().remember(*PROXY, GOOD, quic_blocked=True, was_fair=True)
    assert place.path.stat().st_mode & 0o777 == 0o600
    assert place.open().advise(*PROXY) == Advice(GOOD, http2_at_once=True, prefer_http3=False)
    assert "proxy.example" not in place.path.read_text()
    place.network = CAFE
    assert place.open().advise(*PROXY) == NO_ADVICE


def test_an_unknown_network_is_neither_asked_about_nor_kept(place: Place) -> None:
    place.network = None
    memory = place.open()
    memory.remember(*PROXY, GOOD, quic_blocked=True, was_fair=True)
    assert memory.advise(*PROXY) == NO_ADVICE
    assert not place.path.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format_version": 2, "entries": {}}', b"x" * 100_000])
def test_a_corrupt_file_is_ignored_and_replaced(place: Place, content: bytes) -> None:
    place.path.parent.mkdir()
    place.path.write_bytes(content)
    place.path.chmod(0o600)
    memory = place.open()
    assert memory.advise(*PROXY) == NO_ADVICE
    memory.remember(*PROXY, GOOD, quic_blocked=False, was_fair=True)
    assert place.open().advise(*PROXY) == Advice(GOOD)


def test_a_file_of_others_is_ignored_and_replaced(place: Place) -> None:
    place.open().remember(*PROXY, OTHER, quic_blocked=True, was_fair=True)
    place.path.chmod(0o644)
    memory = place.open()
    assert memory.advise(*PROXY) == NO_ADVICE
    memory.remember(*PROXY, GOOD, quic_blocked=False, was_fair=True)
    assert place.path.stat().st_mode & 0o777 == 0o600
    target = place.path.with_name("elsewhere")
    place.path.rename(target)
    place.path.symlink_to(target)
    assert place.open().advise(*PROXY) == NO_ADVICE


def test_a_place_that_cannot_be_written_is_no_error(place: Place) -> None:
    place.path.parent.write_bytes(b"a file where the directory should be")
    memory = place.open()
    memory.remember(*PROXY, GOOD, quic_blocked=False, was_fair=True)
    assert memory.advise(*PROXY) == Advice(GOOD), "this run still knows"


def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    memory = MemoryFile(None, lambda: HOME, lambda: NOON)
    memory.remember(*PROXY, GOOD, quic_blocked=False, was_fair=True)
    assert memory.advise(*PROXY) == Advice(GOOD)
    assert os.listdir(tmp_path) == []  # noqa: PTH208
