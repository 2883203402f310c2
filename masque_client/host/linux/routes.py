"""The tunnel's own routing table."""

from __future__ import annotations

from ipaddress import ip_network
from socket import AF_INET, AF_INET6
from typing import Any, Final, Literal

from pyroute2 import IPRoute

from masque_client.host.identity import PROTOCOL, slot_of_table
from masque_client.host.state import BLOCK_METRIC, DEFAULT_ROUTES, Route, RouteKind

_RTN_UNREACHABLE: Final = 7
_SCOPE_LINK: Final = 253


def read_routes(route: IPRoute, table: int) -> frozenset[Route]:
    """Everything in the table, whoever put it there: the table is ours."""
    return frozenset(
        _parse(message) for family in (AF_INET, AF_INET6) for message in route.get_routes(family=family, table=table)
    )


def slots_with_routes(route: IPRoute) -> set[int]:
    """Whose tables have entries of ours."""
    slots: set[int] = set()
    for family in (AF_INET, AF_INET6):
        for message in route.get_routes(family=family):
            slot = slot_of_table(message.get_attr("RTA_TABLE") or message["table"])
            if slot is not None and message["proto"] == PROTOCOL:
                slots.add(slot)
    return slots


def change_route(route: IPRoute, verb: Literal["add", "remove"], table: int, index: int | None, wanted: Route) -> None:
    """Add or remove one. A tunnel has no gateway behind its device, hence the scope."""
    options: dict[str, Any] = {}
    if wanted.kind is RouteKind.UNREACHABLE:
        options = {"type": "unreachable", "priority": BLOCK_METRIC}
    elif index is not None:
        options = {"oif": index}
        if wanted.destination.version == 4:
            options["scope"] = _SCOPE_LINK
    route.route(
        "add" if verb == "add" else "del",
        family=AF_INET if wanted.destination.version == 4 else AF_INET6,
        dst=str(wanted.destination),
        table=table,
        proto=PROTOCOL,
        **options,
    )


def _parse(message: Any) -> Route:
    default = DEFAULT_ROUTES[4 if message["family"] == AF_INET else 6]
    destination = message.get_attr("RTA_DST")
    return Route(
        ip_network((destination, message["dst_len"])) if destination else default,
        RouteKind.UNREACHABLE if message["type"] == _RTN_UNREACHABLE else RouteKind.TUNNEL,
    )
