"""A rule that the peer breaks is counted by its clause, once, wherever it is noticed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, SettingsFrame

from masque_client.engine.h2_engine import H2Engine
from masque_client.engine.interface import EngineConfiguration
from masque_client.errors import RemoteProtocolError
from masque_client.http.connection import HttpConnection
from masque_client.http.stream import SessionStream
from masque_client.netio.clock import MonotonicClock
from masque_client.protocol.connect import udp_request_headers
from masque_client.protocol.session import Role
from masque_client.protocol.udp_session import ConnectUdpSession
from masque_client.protocol.uri_template import UdpTemplate

TEMPLATE = UdpTemplate.parse("https://proxy.example/{target_host}/{target_port}/")
SETTINGS = SettingsFrame(0, settings={SettingsFrame.ENABLE_CONNECT_PROTOCOL: 1})


class Server:
    """What a proxy sends over HTTP/2, written frame by frame; it reads nothing."""

    def __init__(self, violations: Counter[str]) -> None:
        engine = H2Engine(EngineConfiguration(server_name="proxy.example"))
        self.connection = HttpConnection(engine, lambda data: None, MonotonicClock(), violations=violations)
        self.connection.connect(("192.0.2.1", 443))

    def send(self, *frames: Frame) -> None:
        self.connection.receive(b"".join(frame.serialize() for frame in frames))

    def answer(self, stream_id: int, *fields: tuple[bytes, bytes]) -> None:
        self.send(HeadersFrame(stream_id, Encoder().encode(list(fields)), flags=["END_HEADERS"]))


def counted(talk: Callable[[Server], Any]) -> Counter[str]:
    async def session() -> Counter[str]:
        violations: Counter[str] = Counter()
        talk(Server(violations))
        return violations

    return asyncio.run(session())


@pytest.mark.parametrize(
    ("frames", "clause"),
    [
        ((PingFrame(0),), "RFC 9113 §3.4"),
        ((SETTINGS, GoAwayFrame(0, 4), GoAwayFrame(0, 8)), "RFC 9113 §6.8"),
        ((SETTINGS, HeadersFrame(2, b"\x88", flags=["END_HEADERS"])), "RFC 9113 §5.1.1"),
        ((SETTINGS, DataFrame(1, b"nobody asked")), "RFC 9113 §7 PROTOCOL_ERROR (0x1)"),
    ],
    ids=["no SETTINGS", "GOAWAY grows", "a stream of the server's", "found by the library"],
)
def test_what_ends_the_connection(frames: tuple[Frame, ...], clause: str) -> None:
    def talk(server: Server) -> None:
        server.send(*frames)
        error = server.connection.closed_error()
        assert isinstance(error, RemoteProtocolError)
        assert error.clause == clause

    assert counted(talk) == {clause: 1}


def test_what_ends_a_stream_whether_engine_or_session_notice() -> None:
    def talk(server: Server) -> None:
        server.send(SETTINGS)
        for status in (b"101", b"204"):
            stream = SessionStream(
                ConnectUdpSession(Role.CLIENT), on_payloads=lambda payloads: None, on_event=lambda event: None
            )
            headers = udp_request_headers(TEMPLATE.expand("192.0.2.9", 53))
            stream.stream = server.connection.open_request(headers, stream)
            server.answer(stream.stream.stream_id, (b":status", status))
            assert stream.is_closed
        assert server.connection.closed is None

    assert counted(talk) == {"RFC 9114 §4.3.2": 1, "RFC 9297 §3.2": 1}


def test_orderly_ends_count_nothing() -> None:
    assert not counted(lambda server: server.send(SETTINGS, GoAwayFrame(0, 0)))
