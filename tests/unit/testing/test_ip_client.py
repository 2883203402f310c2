"""What is advertised for which scope."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network

import pytest

from masque_client.protocol.ip_capsules import find_route_problem, to_prefixes
from masque_client.protocol.scope import IpScope
from masque_client.testing.ip_client import merge_routes, routes_in_scope
from masque_client.testing.udp_target import TargetPolicy, TargetRefused

ROUTES = [ip_network(text) for text in ("fd80::/64", "10.80.0.0/24", "192.0.2.0/25", "192.0.2.128/25")]


def advertised(target: str | None, protocol: str | None = None) -> list[str]:
    scope = IpScope.parse(target, protocol)
    ranges = asyncio.run(routes_in_scope(scope, ROUTES, TargetPolicy(ROUTES)))
    assert find_route_problem(tuple(ranges)) is None
    assert {entry.protocol for entry in ranges} <= {int(protocol or 0)}
    return [str(prefix) for prefix in to_prefixes(ranges)]


@pytest.mark.parametrize(
    ("target", "routes"),
    [
        (None, ["10.80.0.0/24", "192.0.2.0/24", "fd80::/64"]),
        ("*", ["10.80.0.0/24", "192.0.2.0/24", "fd80::/64"]),
        ("10.80.0.10", ["10.80.0.10/32"]),
        ("10.0.0.0/8", ["10.80.0.0/24"]),
        ("fd80::/64", ["fd80::/64"]),
        ("fd80::10", ["fd80::10/128"]),
    ],
)
def test_scope_limits_the_routes(target: str | None, routes: list[str]) -> None:
    assert advertised(target) == routes


def test_protocol_is_passed_on() -> None:
    assert advertised("10.80.0.10", "17") == ["10.80.0.10/32"]


@pytest.mark.parametrize(("target", "error"), [("198.51.100.1", "unroutable"), ("127.0.0.1", "unroutable")])
def test_scope_outside_is_refused(target: str, error: str) -> None:
    with pytest.raises(TargetRefused) as refused:
        advertised(target)
    assert error in refused.value.error


def test_name_that_is_not_allowed_is_refused() -> None:
    with pytest.raises(TargetRefused) as refused:
        advertised("localhost")
    assert refused.value.error == "destination_ip_prohibited"


def test_merged_routes_are_in_wire_order() -> None:
    merged = merge_routes([ip_network("fd00::/8"), ip_network("10.0.0.0/9"), ip_network("10.0.0.0/8")])
    assert list(map(str, merged)) == ["10.0.0.0-10.255.255.255", "fd00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
