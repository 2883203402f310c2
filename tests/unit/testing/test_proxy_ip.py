"""The proxy's CONNECT-IP as it should be, with both engines on loopback: addresses, routes, scopes."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from masque_client.engine.interface import EngineName
from masque_client.errors import (
    ProxyRefused,
)
from masque_client.protocol.connect import ip_request_headers
from masque_client.protocol.ip_capsules import ANY_IPV4, ANY_IPV6, RequestedAddress, encode_address_request
from masque_client.protocol.ip_session import AddressesAssigned, ConnectIpSession, RoutesAdvertised
from masque_client.protocol.session import Role
from masque_client.protocol.uri_template import IpTemplate
from tests.unit.testing.proxy_client import ENGINES, POOLS, TIMEOUT_S, Bench, Run, Tunnel


@pytest.mark.parametrize("engine", ENGINES)
def test_addresses_and_routes_come_unprompted(run: Run, engine: EngineName) -> None:
    async def scenario(running: Bench) -> None:
        tunnel = await running.open_ip()
        assigned = await tunnel.event(AddressesAssigned)
        assert [str(entry.prefix) for entry in assigned.addresses] == ["10.89.0.2/32", "fd89::2/128"]
        advertised = await tunnel.event(RoutesAdvertised)
        assert [str(entry) for entry in advertised.ranges] == [
            "10.80.0.0-10.80.0.255",
            "fd80::-fd80::ffff:ffff:ffff:ffff",
        ]

    run(scenario, engine=engine)


def test_every_client_has_its_own_address_and_returns_it(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        seen = []
        for _ in range(8):  # more than the pool has
            tunnel = await running.open_ip()
            assigned = await tunnel.event(AddressesAssigned)
            seen.append(str(assigned.addresses[0].prefix))
            served = list(running.proxy.listener.connections)
            running.connections.pop().close()
            assert all([await connection.wait_closed(TIMEOUT_S) for connection in served])
        first = [f"10.89.0.{number}/32" for number in range(2, 7)]
        assert seen == [*first, *first[:3]]

    run(scenario)


def test_address_requests_are_answered_entry_by_entry(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        tunnel = await running.open_ip()
        tunnel.session.request_addresses([RequestedAddress(1, ANY_IPV6), RequestedAddress(2, ANY_IPV4)])
        tunnel.stream.pump()
        assigned = await tunnel.event(AddressesAssigned)
        answers = {entry.request_id: entry for entry in assigned.addresses}
        assert answers.keys() == {1, 2}
        assert str(answers[2].prefix) == "10.89.0.2/32"
        assert answers[1].is_rejection

    run(scenario, "assign-on-request", pools=POOLS[:1])


def test_wanted_address_is_given_when_free(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        tunnel = await running.open_ip()
        tunnel.session.request_addresses([RequestedAddress(7, ip_network("10.89.0.5/32"))])
        tunnel.stream.pump()
        assigned = await tunnel.event(AddressesAssigned)
        assert [(entry.request_id, str(entry.prefix)) for entry in assigned.addresses] == [(7, "10.89.0.5/32")]

    run(scenario, "assign-on-request")


def test_scope_narrows_the_routes_or_is_refused(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        tunnel = await running.open_ip("10.80.0.10")
        advertised = await tunnel.event(RoutesAdvertised)
        assert [str(entry) for entry in advertised.ranges] == ["10.80.0.10-10.80.0.10"]
        with pytest.raises(ProxyRefused, match="destination_ip_unroutable"):
            await running.open_ip("198.51.100.0/24")

    run(scenario)


def test_capsules_that_overtake_the_answer_are_kept(run: Run) -> None:
    async def scenario(running: Bench) -> None:
        connection = await running.connect()
        tunnel = Tunnel(ConnectIpSession(Role.CLIENT))
        template = IpTemplate.parse(running.proxy.templates["connect-ip"])
        stream = connection.http.open_request(ip_request_headers(template.expand("localhost")), tunnel.stream)
        tunnel.stream.stream = stream
        stream.send_data(encode_address_request([RequestedAddress(9, ANY_IPV4)]))
        connection.http.flush()
        assigned = await tunnel.event(AddressesAssigned)
        assert [entry.request_id for entry in assigned.addresses] == [9]

    run(scenario, "assign-on-request", routes=[ip_network("127.0.0.0/8"), ip_network("::1/128")])
