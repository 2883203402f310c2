"""Router advertisements and their PvD option: anyone on the link can send them."""

from __future__ import annotations

from ipaddress import IPv6Address

from masque_client.errors import RemoteProtocolError
from masque_client.pvd.ra import REQUIRED_HOP_LIMIT, SequenceNumbers, parse_router_advertisement
from tests.fuzz.harness import FuzzOne

ROUTER = IPv6Address("fe80::1")


def make() -> FuzzOne:
    """Input: the ICMPv6 message."""
    return fuzz_one


def fuzz_one(data: bytes) -> None:
    try:
        advertisement = parse_router_advertisement(data, source=ROUTER, hop_limit=REQUIRED_HOP_LIMIT)
    except RemoteProtocolError as error:
        assert error.clause.startswith(("RFC 4861", "RFC 8801"))
        return
    if advertisement.pvd is not None:
        assert advertisement.pvd.pvd_id.isascii() and 0 <= advertisement.pvd.delay <= 15
        SequenceNumbers().observe(advertisement.pvd)
