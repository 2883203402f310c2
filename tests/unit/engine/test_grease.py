"""What means nothing is said, differs every time, and disturbs nobody, whichever engine hears it."""

from __future__ import annotations

from typing import Any

import pytest
from aioquic._buffer import Buffer
from aioquic.quic.connection import QuicConnection

from masque_client.engine import grease
from masque_client.engine.interface import EngineName
from masque_client.protocol.quic_invariants import QUIC_VERSION_1, QUIC_VERSION_2
from masque_client.protocol.varint import parse_varint
from tests.fuzz.quic_peer import ONE_RTT, seal
from tests.fuzz.quic_peer import make_pair as make_pair_with_aioquic
from tests.sim.link import Pair
from tests.unit.engine import raw
from tests.unit.engine.conftest import MakePair, open_tunnel, settle
from tests.unit.engine.h2_peers import H2Pair, RawServer, SettingsFrame

RESERVED_VERSION = 0x0A0A0A0A


def reserved_settings(pair: Pair) -> list[dict[int, int]]:
    """That each end has received."""
    received = [end.engine._h3.received_settings for end in pair.ends]  # type: ignore[attr-defined]
    return [{key: settings[key] for key in settings if key >= 0x21 and key % 0x1F == 2} for settings in received]


@pytest.fixture
def parameters(monkeypatch: pytest.MonkeyPatch) -> list[dict[int, bytes]]:
    """The transport parameters that aioquic's connections receive."""
    heard: list[dict[int, bytes]] = []
    parse = QuicConnection._parse_transport_parameters

    def listen_in(connection: QuicConnection, data: bytes, *arguments: Any, **keywords: Any) -> None:
        buffer, found = Buffer(data=data), {}
        while not buffer.eof():
            identifier = buffer.pull_uint_var()
            found[identifier] = buffer.pull_bytes(buffer.pull_uint_var())
        heard.append(found)
        parse(connection, data, *arguments, **keywords)

    monkeypatch.setattr(QuicConnection, "_parse_transport_parameters", listen_in)
    return heard


def test_both_ends_hear_reserved_settings_and_carry_on(make_pair: MakePair) -> None:
    """RFC 9114 §7.2.4.1, §7.2.8, §6.2.3; RFC 9000 §18.1: neither library minds any of it."""
    pair = settle(make_pair())
    assert [len(each) for each in reserved_settings(pair)] == [1, 1]
    stream_id = open_tunnel(pair)
    pair.client.engine.send_datagrams(stream_id, [b"real"], pair.now, prefix=b"\0")
    assert pair.run(lambda: pair.server.payloads() == [b"\0real"])


def test_no_two_connections_are_alike(make_pair: MakePair) -> None:
    first, second = (reserved_settings(settle(make_pair())) for _ in range(2))
    assert first != second


def test_a_client_may_be_told_to_keep_to_the_point(make_pair: MakePair) -> None:
    pair = settle(make_pair(both={"grease": False}))
    assert reserved_settings(pair) == [{}, {}]


def test_transport_parameters_and_versions(client_engine: EngineName, parameters: list[dict[int, bytes]]) -> None:
    """RFC 9000 §18.1, RFC 9368 §3. qh3 does so by itself, and not quite in the reserved form."""
    pair = settle(make_pair_with_aioquic(client_engine, versions=(QUIC_VERSION_2, QUIC_VERSION_1)))
    ours = parameters[0]
    assert len([identifier for identifier in ours if identifier % 31 == 27]) == 1
    versions = [int.from_bytes(ours[0x11][at : at + 4]) for at in range(0, len(ours[0x11]), 4)]
    assert versions[:3] == [QUIC_VERSION_2, QUIC_VERSION_2, QUIC_VERSION_1]
    (reserved,) = versions[3:]
    assert reserved & RESERVED_VERSION == RESERVED_VERSION
    assert reserved & 0x0F0F0F0F == RESERVED_VERSION or client_engine is EngineName.QH3
    assert pair.client.engine.statistics().quic_version == QUIC_VERSION_1, "the server's choice, as ever"


def test_transport_parameters_without_grease(parameters: list[dict[int, bytes]]) -> None:
    settle(make_pair_with_aioquic(EngineName.AIOQUIC, grease=False))
    assert not [identifier for identifier in parameters[0] if identifier % 31 == 27]
    assert len(parameters[0][0x11]) == 12


def test_a_server_that_allows_three_streams_and_no_more(
    client_engine: EngineName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 9114 §6.2 promises three; the one that means nothing is the fourth, and waits."""
    initialize = QuicConnection.__init__

    def allow_three(connection: QuicConnection, **keywords: Any) -> None:
        initialize(connection, **keywords)
        if not keywords["configuration"].is_client:
            connection._local_max_streams_uni.value = connection._local_max_streams_uni.sent = 3

    monkeypatch.setattr(QuicConnection, "__init__", allow_three)
    pair = settle(make_pair_with_aioquic(client_engine))
    open_tunnel(pair)


def test_http2_hears_a_reserved_setting_and_carries_on() -> None:
    pair = H2Pair().run()
    for end in (pair.client, pair.server):
        settings = end.engine._h2.remote_settings
        assert len([identifier for identifier in settings if int(identifier) & 0x0F0F == 0x0A0A]) == 1
    pair.open_tunnel()


def test_http2_settings_are_of_the_reserved_form() -> None:
    ours = RawServer().sent(SettingsFrame)
    assert {SettingsFrame.ENABLE_PUSH, SettingsFrame.INITIAL_WINDOW_SIZE} < ours[0].settings.keys()
    (unknown,) = [identifier for frame in ours for identifier in frame.settings if identifier > 0x8]
    assert unknown & 0x0F0F == 0x0A0A


def test_reserved_forms_fit_what_they_are_sent_in() -> None:
    for _ in range(100):
        kind = parse_varint(grease.transport_parameter())
        assert kind is not None and kind[0] % 31 == 27
        assert grease.quic_version() & 0x0F0F0F0F == RESERVED_VERSION and grease.quic_version() < 1 << 32
        assert all(0 <= value < 1 << 30 for value in grease.http3_setting().values())
        identifier, value = grease.http2_setting()
        assert identifier < 1 << 16 and value < 1 << 32


def test_a_server_that_reads_no_such_stream_says_so(client_engine: EngineName) -> None:
    """RFC 9114 §6.2: STOP_SENDING, with H3_STREAM_CREATION_ERROR, is how a server may answer; here after the end."""
    pair = settle(make_pair_with_aioquic(client_engine))
    pair.run(for_s=0.5)  # everything is acknowledged
    (stream_id,) = [number for number in (2, 6, 10, 14) if number not in raw.quic(pair.server)._streams]
    for _ in range(2):
        packet = seal(raw.quic(pair.server), ONE_RTT, b"\x05" + bytes([stream_id]) + b"\x41\x03")
        assert packet is not None
        pair.inject(pair.client, packet)
    open_tunnel(pair)
