"""What a lost tunnel comes back from, and when it is tried."""

from __future__ import annotations

import pytest

from masque_client.errors import (
    AddressInUse,
    AuthenticationRefused,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    EmptyTunnel,
    HostError,
    MasqueError,
    NameResolutionError,
    PrivilegeError,
    ProxyRefused,
    PvdError,
    PvdUnavailable,
    RemoteProtocolError,
    TimedOut,
    TlsError,
)
from masque_client.tunnel.reconnect import (
    ATTEMPT_S,
    LONGEST_DELAY_S,
    LONGEST_RETRY_AFTER_S,
    QUICK_ATTEMPT_S,
    attempt_timeout_s,
    delay_s,
    may_pass,
    next_attempt_s,
)

LOST = ConnectionLost("gone")


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (LOST, True),
        (ConnectError("nobody there"), True),
        (NameResolutionError("no such name, now"), True),
        (TimedOut("no answer"), True),
        (AddressInUse("no address to send from"), True),
        (EmptyTunnel("the pool is empty"), True),
        (PvdUnavailable("busy", status=503), True),
        *[(ProxyRefused("busy", status=status), True) for status in (408, 425, 429, 500, 502, 503, 504)],
        *[(ProxyRefused("no", status=status), False) for status in (302, 400, 403, 404, 405, 410, 421, 501)],
        (ProxyRefused("no extended CONNECT"), False),
        (AuthenticationRefused("who are you", status=401), False),
        (AuthenticationRefused("who are you", status=407), False),
        (TlsError("another certificate"), False),
        (RemoteProtocolError("nonsense", clause="RFC 9297 §3.3"), False),
        (ConfigurationError("no template"), False),
        (PvdError("no proxy"), False),
        (HostError("no route"), False),
        (PrivilegeError("no device"), False),
    ],
)
def test_what_may_pass(error: MasqueError, passes: bool) -> None:
    assert may_pass(error) is passes
    assert (next_attempt_s(1, error, chance=0, down_s=0, give_up_after_s=None) is not None) is passes


def test_delays_double_up_to_the_longest() -> None:
    delays = [delay_s(attempt, LOST, 0.0) for attempt in range(1, 12)]
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30])
    assert delay_s(10_000, LOST, 0.0) == LONGEST_DELAY_S


def test_chance_takes_up_to_half() -> None:
    assert delay_s(5, LOST, 1.0) == pytest.approx(0.8)
    assert delay_s(5, LOST, 0.5) == pytest.approx(1.2)


def test_retry_after_is_a_lower_bound_and_bounded() -> None:
    assert delay_s(1, ProxyRefused("busy", status=503, retry_after_s=7), 0.0) == 7
    assert delay_s(9, ProxyRefused("busy", status=503, retry_after_s=7), 0.0) == pytest.approx(25.6)
    assert delay_s(1, ProxyRefused("busy", status=503, retry_after_s=1e9), 0.0) == LONGEST_RETRY_AFTER_S


def test_patience_ends_before_it_is_waited_for_in_vain() -> None:
    assert next_attempt_s(9, LOST, chance=0, down_s=1.0, give_up_after_s=30) == pytest.approx(25.6)
    assert next_attempt_s(9, LOST, chance=0, down_s=5.0, give_up_after_s=30) is None
    assert next_attempt_s(1, LOST, chance=1, down_s=0.0, give_up_after_s=0) is None
    assert next_attempt_s(1000, LOST, chance=0, down_s=1e9, give_up_after_s=None) == LONGEST_DELAY_S


def test_first_attempts_are_short() -> None:
    assert [attempt_timeout_s(attempt) for attempt in (1, 5, 6, 100)] == [*[QUICK_ATTEMPT_S] * 2, *[ATTEMPT_S] * 2]
