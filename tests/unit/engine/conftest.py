"""What tests of engines do with a pair (`tests/engine_pairs.py`)."""

from __future__ import annotations

from masque_client.engine.interface import HeadersReceived, SettingsReceived
from tests.engine_pairs import PROXY, MakePair
from tests.sim.link import Pair

__all__ = ["CONNECT_IP", "OK", "PROXY", "MakePair", "open_tunnel", "settle"]

CONNECT_IP = (
    (b":method", b"CONNECT"),
    (b":protocol", b"connect-ip"),
    (b":scheme", b"https"),
    (b":authority", b"proxy.example"),
    (b":path", b"/.well-known/masque/ip/*/*/"),
    (b"capsule-protocol", b"?1"),
)
OK = ((b":status", b"200"), (b"capsule-protocol", b"?1"))


def settle(pair: Pair) -> Pair:
    """Connect and run until both ends have the other's SETTINGS."""
    pair.connect()
    assert pair.run(lambda: all(end.of_type(SettingsReceived) for end in pair.ends) and len(pair.ends) == 2)
    return pair


def open_tunnel(pair: Pair) -> int:
    """Open a tunnel on a settled pair and return its stream id."""
    stream_id = pair.client.engine.open_request(CONNECT_IP)
    assert pair.run(lambda: any(e.stream_id == stream_id for e in pair.server.of_type(HeadersReceived)))
    pair.server.engine.send_headers(stream_id, OK)
    assert pair.run(lambda: any(e.stream_id == stream_id for e in pair.client.of_type(HeadersReceived)))
    return stream_id
