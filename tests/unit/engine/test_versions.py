"""QUIC versions 1 and 2 between every pair of engines (RFC 9368, RFC 9369): upgrades, refusals, downgrades."""

from __future__ import annotations

from functools import partial

import pytest

from masque_client.engine.interface import ConnectionClosed, DatagramsReceived, EngineName, SettingsReceived
from masque_client.engine.version_negotiation import by_our_preference, find_downgrade
from masque_client.errors import ProxyRefused, RemoteProtocolError
from masque_client.protocol.quic_invariants import (
    QUIC_VERSION_1,
    QUIC_VERSION_2,
    encode_version_negotiation,
    parse_long_header,
)
from tests.sim.link import Conditions, End, Pair
from tests.unit.engine.conftest import MakePair, open_tunnel, settle

V1, V2 = QUIC_VERSION_1, QUIC_VERSION_2
UNKNOWN = 0x1A2A3A4A
VERSION_NEGOTIATION_ERROR = 0x11


def versions_in_use(pair: Pair) -> list[int]:
    return [end.engine.statistics().quic_version for end in pair.ends]


def long_header_versions(packets: list[bytes]) -> list[int]:
    return [header.version for data in packets if (header := parse_long_header(data)) is not None]


@pytest.mark.parametrize(
    ("client", "server", "expected"),
    [
        pytest.param((V1, V2), (V1,), V1, id="version 1 server"),
        pytest.param((V1, V2), (V1, V2), V1, id="nobody wants more"),
        pytest.param((V1, V2), (V2, V1), V2, id="the server prefers version 2"),
        pytest.param((V1,), (V2, V1), V1, id="version 1 client"),
        pytest.param((V2, V1), (V1, V2), V1, id="the server prefers version 1"),
        pytest.param((V2,), (V1, V2), V2, id="version 2 client"),
    ],
)
def test_the_server_chooses_without_a_round_trip(
    make_pair: MakePair, client: tuple[int, ...], server: tuple[int, ...], expected: int
) -> None:
    pair = make_pair(client={"versions": client}, server={"versions": server})
    started_at = pair.now
    settle(pair)
    assert pair.now - started_at < 4.5 * pair.conditions.delay_s  # two round trips and the server's SETTINGS
    assert versions_in_use(pair) == [expected, expected]
    assert long_header_versions(pair.client.sent)[0] == client[0]
    assert long_header_versions(pair.server.sent)[-1] == expected

    stream_id = open_tunnel(pair)
    pair.client.engine.send_datagrams(stream_id, [b"hello"], pair.now, prefix=b"\0")
    assert pair.run(lambda: bool(pair.server.of_type(DatagramsReceived)))


def has_settings(end: End) -> bool:
    return bool(end.of_type(SettingsReceived))


def test_an_upgrade_survives_loss(make_pair: MakePair) -> None:
    for seed in range(4):
        conditions = Conditions(loss=0.15, jitter_s=0.01)
        pair = make_pair(server={"versions": (V2, V1)}, conditions=conditions, seed=seed)
        pair.connect()
        assert pair.run(partial(has_settings, pair.client), for_s=25)
        assert versions_in_use(pair) == [V2, V2]


def answer_with_versions(pair: Pair, *versions: int) -> None:
    """What a server does that does not know our version, or anybody on the way."""
    pair.client.engine.connect(("198.51.100.2", 443), pair.now)
    (first, *_) = [data for data, _ in pair.client.engine.datagrams_to_send(pair.now)]
    header = parse_long_header(first)
    assert header is not None
    answer = encode_version_negotiation(header.destination_cid, header.source_cid, versions)
    pair.inject(pair.client, answer)


def test_a_server_without_version_1_is_met_with_version_2(make_pair: MakePair) -> None:
    pair = make_pair(server={"versions": (V2,)})
    answer_with_versions(pair, UNKNOWN, V2)
    assert pair.run(lambda: len(pair.ends) == 2 and bool(pair.client.of_type(SettingsReceived)))
    assert versions_in_use(pair) == [V2, V2]


def test_after_a_restart_a_lost_flight_is_repeated_in_the_new_version(make_pair: MakePair) -> None:
    pair = make_pair(server={"versions": (V2,)})
    answer_with_versions(pair, V2)
    pair.conditions.mtu = 0
    pair.run(for_s=0.3)
    pair.conditions.mtu = 65535
    assert pair.run(lambda: bool(pair.client.of_type(SettingsReceived)))
    assert set(long_header_versions(pair.client.sent)) == {V2}


def test_a_downgrade_ends_with_an_error_on_the_wire(make_pair: MakePair) -> None:
    pair = make_pair(server={"versions": (V2, V1)})
    answer_with_versions(pair, V2)  # but the server has version 1, too, which we prefer
    assert pair.run(lambda: bool(pair.client.of_type(ConnectionClosed)))
    (closed,) = pair.client.of_type(ConnectionClosed)
    assert closed.error_code == VERSION_NEGOTIATION_ERROR
    assert isinstance(closed.error, RemoteProtocolError)
    assert "VERSION_NEGOTIATION_ERROR" in str(closed.error)
    assert pair.run(lambda: bool(pair.server.of_type(ConnectionClosed)))
    assert pair.server.of_type(ConnectionClosed)[0].error_code == VERSION_NEGOTIATION_ERROR


@pytest.mark.parametrize("listed", [(UNKNOWN, V1), (V1,)], ids=["among others", "alone"])
def test_a_packet_that_lists_our_version_is_ignored(make_pair: MakePair, listed: tuple[int, ...]) -> None:
    pair = make_pair()
    answer_with_versions(pair, *listed)
    assert not pair.client.of_type(ConnectionClosed)
    assert pair.run(lambda: bool(pair.client.of_type(SettingsReceived)))
    assert versions_in_use(pair) == [V1, V1]


def test_no_common_version_is_a_refusal(make_pair: MakePair, client_engine: EngineName) -> None:
    pair = make_pair()
    answer_with_versions(pair, UNKNOWN)
    pair.turn()
    (closed,) = pair.client.of_type(ConnectionClosed)
    assert isinstance(closed.error, ProxyRefused)
    assert "no version of QUIC" in str(closed.error)


def test_the_order_of_the_server_counts() -> None:
    assert by_our_preference([UNKNOWN, V1, V2], (V2, V1)) == [V2, V1, UNKNOWN]
    assert by_our_preference([], (V1,)) == []


@pytest.mark.parametrize(
    ("information", "in_use", "has_restarted", "is_downgrade"),
    [
        (None, V1, False, False),
        (None, V1, True, False),
        (None, V2, False, True),
        ((V2, [V1, V2]), V1, False, True),
        ((V2, [V2]), V2, True, False),
        ((V2, [V2, V1]), V2, True, True),
        ((V2, [V2, V1]), V2, False, False),
        ((V2, []), V2, True, True),
    ],
)
def test_what_counts_as_a_downgrade(
    information: tuple[int, list[int]] | None, in_use: int, has_restarted: bool, is_downgrade: bool
) -> None:
    found = find_downgrade(information, in_use=in_use, ours=(V1, V2), has_restarted=has_restarted)
    assert (found is not None) is is_downgrade
