from __future__ import annotations

import pytest

from masque_client.errors import RemoteProtocolError
from masque_client.protocol.ip_session import ConnectIpSession
from masque_client.protocol.session import Role
from masque_client.testing.misbehave import FAULTS, HUGE_CAPSULE, MALFORMED_CAPSULE, Misbehaviour, parse_misbehaviour


def test_no_faults_by_default() -> None:
    assert parse_misbehaviour([]) == Misbehaviour()


def test_values_are_converted_and_headers_add_up() -> None:
    assert parse_misbehaviour(
        ["refuse=503", "refuse-header=Retry-After: 7", "refuse-header=a:b", "reset=0x10c", "assign-delay-ms=250"]
    ) == Misbehaviour(
        refuse=503, refuse_headers=((b"retry-after", b"7"), (b"a", b"b")), reset=0x10C, assign_delay_s=0.25
    )


def test_every_fault_in_the_help_can_be_asked_for() -> None:
    values = {"capsules": "00", "refuse-header": "a:b", "accept-header": "a:b", "pvd-header": "a:b", "pvd-type": "t"}
    for fault in FAULTS:
        name, given, _ = fault.partition("=")
        assert parse_misbehaviour([f"{name}={values.get(name, '1')}" if given else name]) != Misbehaviour(), fault


@pytest.mark.parametrize("fault", ["nonsense", "refuse", "silent=1", "refuse=x", "capsules=0g"])
def test_what_is_no_fault(fault: str) -> None:
    with pytest.raises(ValueError):
        parse_misbehaviour([fault])


@pytest.mark.parametrize("capsule", [MALFORMED_CAPSULE, HUGE_CAPSULE])
def test_bad_capsules_are_bad(capsule: bytes) -> None:
    session = ConnectIpSession(Role.CLIENT)
    session.receive_headers([(b":status", b"200")], end_stream=False)
    with pytest.raises(RemoteProtocolError):
        session.receive_data(capsule, end_stream=False)
