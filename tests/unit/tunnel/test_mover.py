"""What a tunnel does when its path changes, where it has nowhere to move to."""

from __future__ import annotations

import asyncio
from ipaddress import ip_interface
from types import SimpleNamespace
from typing import Any

import pytest

from masque_client.errors import ConnectionLost, MasqueError
from masque_client.http.connector import ConnectOptions, HttpVersion
from masque_client.netio.clock import MonotonicClock
from masque_client.tunnel.mover import Mover

V4, V6 = ip_interface("10.89.0.2/32"), ip_interface("fd89::2/128")


@pytest.mark.parametrize(
    ("max_payload", "addresses", "ends"),
    [(1279, (V4, V6), True), (1279, (V4,), False), (1280, (V4, V6), False)],
    ids=["too narrow for IPv6", "narrow, and there is no IPv6", "wide enough"],
)
def test_a_path_too_narrow_for_ipv6_ends_the_tunnel(max_payload: int, addresses: tuple[Any, ...], ends: bool) -> None:
    """RFC 9484 §7.2."""
    aborted: list[MasqueError] = []
    reconfigured: list[None] = []
    local: Any = SimpleNamespace(
        configuration=SimpleNamespace(addresses=addresses), reconfigure=lambda: reconfigured.append(None)
    )
    stream = SimpleNamespace(is_open=True, max_payload=max_payload, abort=aborted.append)
    carrier: Any = SimpleNamespace(stream=stream)
    opener: Any = SimpleNamespace(dial=ConnectOptions(http=HttpVersion.HTTP_3))

    async def session() -> None:
        mover = Mover(opener, MonotonicClock(), local, current=lambda: carrier, adopt=lambda carrier: None)
        mover.on_packet_size()

    asyncio.run(session())
    assert [isinstance(error, ConnectionLost) for error in aborted] == [True] * ends
    assert bool(reconfigured) is not ends
