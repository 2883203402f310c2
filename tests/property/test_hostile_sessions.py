"""Whatever a peer sends, in whatever order and cut wherever: a session stays quiet, bounded and strict (`watched`)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque_client.protocol.ip_capsules import AssignedAddress, encode_address_assign, encode_route_advertisement
from masque_client.protocol.ip_session import ConnectIpSession
from masque_client.protocol.session import Role
from tests.property.hostile_peers import (
    ADDRESSES,
    BEGINNINGS,
    PREFIXES,
    RANGES,
    our_actions,
    packets,
    payloads,
    peer_actions,
    prefix_lists,
    range_lists,
    streams,
)
from tests.property.watched import KINDS, Watched
from tests.unit.protocol.packets import build

hostile = settings(derandomize=True, deadline=None, max_examples=200, database=None)


@hostile
@given(st.sampled_from(KINDS), st.booleans(), st.lists(peer_actions | our_actions, max_size=12))
def test_any_sequence(kind_and_role, is_open, actions):
    watched = Watched(*kind_and_role)
    if is_open:
        watched.open()
    for action in actions:
        watched.do(action)


@settings(hostile, max_examples=60)
@given(
    st.sampled_from(list(Role)),
    prefix_lists,
    range_lists,
    prefix_lists,
    range_lists,
    st.lists(payloads, max_size=10),
    st.lists(packets(), max_size=10),
    st.sampled_from([32, 56, 1280]),
)
def test_packets_under_any_addresses_and_routes(
    role, ours, we_advertise, theirs, they_advertise, inbound, outbound, max_packet
):
    watched = Watched(ConnectIpSession, role).open()
    watched.do(("narrow", max_packet))
    told = encode_address_assign(AssignedAddress(0, prefix) for prefix in ours) + encode_route_advertisement(
        they_advertise
    )
    watched.do(("data", told, "octets", False))
    watched.do(("assign", theirs))
    watched.do(("advertise", we_advertise))
    watched.do(("datagrams", inbound))
    watched.do(("send", outbound))
    # Again, by remembered verdicts, and beside each packet a longer and a shorter one of its flow.
    inbound = [spoilt for payload in inbound for spoilt in (payload, payload + b"\0", payload[:-1])]
    outbound = [spoilt for packet in outbound for spoilt in (packet, packet + b"\0", packet[:-1])]
    watched.do(("datagrams", inbound))
    watched.do(("send", outbound))
    watched.do(("data", encode_address_assign([]) + encode_route_advertisement([]), "whole", False))
    watched.do(("datagrams", inbound))
    watched.do(("send", outbound))


@hostile
@given(st.sampled_from(KINDS), streams())
def test_cuts_do_not_matter(kind_and_role, stream):
    """To the control side: cuts decide neither state, nor what is assigned, nor whether something is an error."""
    outcomes = []
    for cut in ("whole", "octets", "sevens"):
        watched = Watched(*kind_and_role).open()
        watched.do(("data", stream, cut, False))
        session = watched.session
        known = (session.assigned, session.routes, session.dns, session.pref64) if watched.is_ip else ()
        is_error = bool(watched.errors)
        outcomes.append((session.state, is_error, *(() if is_error else (known, watched.events))))
    assert outcomes[0] == outcomes[1] == outcomes[2]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("who_advertises", ["we", "they"])
def test_every_packet_between_addresses_that_matter(role, who_advertises):
    """All pairs of addresses with all beginnings: what passes is exactly what the rules let pass, twice over.

    Each packet comes whole, one octet too long, one too short, and again by the remembered verdict on its flow.
    """
    watched = Watched(ConnectIpSession, role).open()
    watched.do(("narrow", 80))
    told = encode_address_assign(AssignedAddress(0, PREFIXES[index]) for index in (0, 2))
    watched.do(("assign", PREFIXES[1::2]))
    if who_advertises == "we":
        watched.do(("advertise", RANGES))
    else:
        told += encode_route_advertisement(RANGES)
    watched.do(("data", told, "whole", False))
    batches = []
    for source, pool in ((source, family) for family in ADDRESSES.values() for source in family):
        whole = [
            build(source, destination, beginning + payload, protocol)
            for destination in pool
            for protocol, beginning in BEGINNINGS
            for payload in (b"", bytes(40))
        ]
        batches.append([packet for one in whole for packet in (one, one + b"\0", one[:-1])])
    for batch in (batch for batch in batches for _ in range(2)):
        watched.do(("datagrams", [b"\0" + packet for packet in batch]))
        watched.do(("send", batch))
    watched.do(("assign", []))
    watched.do(("advertise", []))
    watched.do(("data", encode_address_assign([]) + encode_route_advertisement([]), "whole", False))
    assert watched.session.encapsulate([packet for batch in batches for packet in batch]).send == []
