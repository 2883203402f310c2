"""A proxy that is about to go says so (RFC 9114 §5.2): `up` moves to a new connection and keeps its address."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from masque_client.engine.interface import EngineName
from masque_client.http.connection import HttpConnection
from masque_client.protocol.varint import encode_varint
from masque_connect.exit_codes import ExitCode
from tests.cli.commands import Command, failed
from tests.cli.proxies import Proxies
from tests.unit.engine import raw

pytestmark = pytest.mark.netns


async def say_goodbye(server: HttpConnection) -> None:
    """GOAWAY on the proxy's control stream; no engine of ours sends it by itself."""
    engine: Any = server.engine
    frame = raw.frame(raw.GOAWAY, encode_varint(4))
    engine._quic.send_stream_data(engine._h3._local_control_stream_id, frame)
    server.flush()


def test_up_moves_before_the_proxy_goes(namespace: Any, proxies: Proxies, ca: tuple[str, str]) -> None:
    with proxies.proxy(engine=EngineName.AIOQUIC) as proxy:
        arguments = ("up", proxy.templates["connect-ip"], "--foreground", "--json", "--http", "3", *ca)
        with Command(*arguments, namespace=namespace) as up:
            before = up.ready()
            assert before is not None
            (first,) = (each for each in proxy.listener.connections if each.handlers)  # not one that was a spare
            proxies.call(say_goodbye(first))
            assert up.process.stdout is not None
            after = json.loads(up.process.stdout.readline())
            assert after["state"] == "connected"
            assert after["addresses"] == before["addresses"]
            assert after["interface"] == before["interface"]
            assert any(connection is not first for connection in proxy.listener.connections)
            up.process.send_signal(signal.SIGTERM)
            failed(up.outcome(), ExitCode.INTERRUPTED, error="interrupted", hint="undone")
