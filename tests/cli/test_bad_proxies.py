"""Proxies that are none, cannot be trusted, say no, or break the standard: one error, one hint, nothing left."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from masque_client.testing.certificates import CertificateAuthority
from masque_connect.exit_codes import ExitCode
from tests.cli.commands import Command, failed
from tests.cli.conftest import Run, local_ports
from tests.cli.proxies import Proxies

Tunnel = tuple[str, Run]

# --- no MASQUE there ----------------------------------------------------------------------------------------------


def test_nothing_listens(tunnel: Tunnel) -> None:
    _, run = tunnel
    failed(run("https://127.0.0.1:9"), ExitCode.UNREACHABLE, error="nothing listens on UDP port 9", hint="port")


def test_a_web_server(tunnel: Tunnel, proxies: Proxies, ca: tuple[str, str]) -> None:
    protocol, run = tunnel
    with proxies.proxy("no-extended-connect", "no-datagram") as proxy:
        outcome = run(proxy.templates[protocol], *ca)
    failed(outcome, ExitCode.REFUSED, error="does not offer extended CONNECT", hint="no MASQUE proxy")


def test_half_a_masque_proxy(udp: Run, proxies: Proxies, ca: tuple[str, str]) -> None:
    with proxies.proxy("no-extended-connect") as proxy:
        outcome = udp(proxy.templates["connect-udp"], *ca)
    failed(outcome, ExitCode.REFUSED, error="extended CONNECT (RFC 9220)", hint="check the name and port")


# --- not to be trusted --------------------------------------------------------------------------------------------


def test_unknown_ca(tunnel: Tunnel, proxies: Proxies, ca: tuple[str, str], tmp_path: Path) -> None:
    protocol, run = tunnel
    stranger = CertificateAuthority.create(tmp_path).issue(["localhost"])
    with proxies.proxy(credentials=stranger) as proxy:
        outcome = run(proxy.templates[protocol], *ca)
    failed(outcome, ExitCode.TLS, error="the certificate of localhost is signed by an unknown CA", hint="--ca")


def test_expired_certificate(udp: Run, proxies: Proxies, ca: tuple[str, str]) -> None:
    expired = proxies.authority.issue(["localhost"], not_after=datetime.now(UTC) - timedelta(days=1))
    with proxies.proxy(credentials=expired) as proxy:
        outcome = udp(proxy.templates["connect-udp"], *ca)
    failed(outcome, ExitCode.TLS, error="the certificate of localhost expired on", hint="clock")


def test_certificate_for_another_name(udp: Run, proxies: Proxies, ca: tuple[str, str]) -> None:
    with proxies.proxy(credentials=proxies.authority.issue(["other.example"])) as proxy:
        outcome = udp(proxy.templates["connect-udp"], *ca)
    failed(outcome, ExitCode.TLS, error="not for localhost, but for other.example", hint="name")


def test_pin_of_another_key(udp: Run, proxies: Proxies, ca: tuple[str, str]) -> None:
    with proxies.proxy() as proxy:
        outcome = udp(proxy.templates["connect-udp"], "--pin", "00" * 32, *ca)
    failed(outcome, ExitCode.TLS, error="does not match the pin", hint="intercepting")


# --- refusals -----------------------------------------------------------------------------------------------------

WHOLE_PROXY = {
    "401": (["refuse=401"], ExitCode.AUTHENTICATION, "401 Unauthorized", "--token-file"),
    "404": (["refuse=404"], ExitCode.REFUSED, "404 Not Found", "template"),
    "407": (
        ["refuse=407", "refuse-header=proxy-authenticate: Basic realm=x"],
        ExitCode.AUTHENTICATION,
        "407 Proxy Authentication Required",
        "--token-file",
    ),
    "redirect": (
        ["refuse=308", "refuse-header=location: https://other.example/{target}"],
        ExitCode.REFUSED,
        "redirect to https://other.example/{target}",
        "redirects are not followed",
    ),
}


@pytest.mark.parametrize("case", WHOLE_PROXY)
def test_a_refusal_that_other_requests_would_share(
    case: str, tunnel: Tunnel, proxies: Proxies, ca: tuple[str, str]
) -> None:
    protocol, run = tunnel
    faults, code, error, hint = WHOLE_PROXY[case]
    with proxies.proxy(*faults) as proxy:
        failed(run(proxy.templates[protocol], *ca), code, error=error, hint=hint)


ONE_TARGET = {
    "403": (["refuse=403"], "403 Forbidden", "ask its operator"),
    "503": (["refuse=503", "refuse-header=retry-after: 120"], "503 Service Unavailable", "asks to wait 120 s"),
}


@pytest.mark.netns
@pytest.mark.parametrize("case", ONE_TARGET)
def test_a_refusal_ends_up(case: str, up: Run, proxies: Proxies, ca: tuple[str, str]) -> None:
    faults, error, hint = ONE_TARGET[case]
    with proxies.proxy(*faults) as proxy:
        failed(up(proxy.templates["connect-ip"], *ca), ExitCode.REFUSED, error=error, hint=hint)


@pytest.mark.parametrize("case", ONE_TARGET)
def test_a_refusal_that_may_be_about_one_target_is_a_remark_of_udp(
    case: str, start: Callable[..., Command], udp_socket: socket.socket, proxies: Proxies, ca: tuple[str, str]
) -> None:
    faults, error, hint = ONE_TARGET[case]
    with proxies.proxy(*faults) as proxy:
        command = start("udp", "0=127.0.0.1:9", "--proxy", proxy.templates["connect-udp"], "--json", *ca)
        udp_socket.sendto(b"?", local_ports(ready_of(command))[0])
        remark = command.remark("a flow ended")
        assert error in remark and hint in remark
        command.process.send_signal(signal.SIGTERM)
        failed(command.outcome(), ExitCode.INTERRUPTED, error="interrupted", hint="undone")


def test_a_target_that_does_not_exist_leaves_the_others_alone(
    start: Callable[..., Command], udp_socket: socket.socket, proxies: Proxies, ca: tuple[str, str]
) -> None:
    own = udp_socket.getsockname()
    with proxies.proxy() as proxy:
        command = start(
            *("udp", "0=nothing.invalid:9", f"0={own[0]}:{own[1]}"),
            *("--proxy", proxy.templates["connect-udp"], "--json", *ca),
        )
        bad, good = local_ports(ready_of(command))
        udp_socket.sendto(b"?", bad)
        assert "dns_error: nothing.invalid does not resolve" in command.remark("a flow ended")
        udp_socket.sendto(b"to myself", good)
        assert udp_socket.recv(100) == b"to myself"
        command.process.send_signal(signal.SIGTERM)
        failed(command.outcome(), ExitCode.INTERRUPTED, error="interrupted", hint="undone")


# --- broken tunnels -----------------------------------------------------------------------------------------------

BROKEN = {
    "malformed": ("malformed-capsule", "192.0.2.11/24 has bits set beyond its prefix (RFC 9484 §4.7.1)"),
    "truncated": ("truncated-capsule", "the stream ended inside a capsule (RFC 9297 §3.3)"),
    "huge": ("huge-capsule", "1048577 bytes, more than 65536 (RFC 9297 §3.2)"),
}


@pytest.mark.netns
@pytest.mark.parametrize("case", BROKEN)
def test_broken_capsules(case: str, up: Run, proxies: Proxies, ca: tuple[str, str]) -> None:
    fault, error = BROKEN[case]
    with proxies.proxy(fault) as proxy:
        outcome = up(proxy.templates["connect-ip"], *ca)
    failed(outcome, ExitCode.REFUSED, error=error, hint="breaks the standard")
    assert outcome.error.startswith("the proxy broke the protocol: ")


def test_a_truncated_capsule_ends_udp(udp: Run, proxies: Proxies, ca: tuple[str, str]) -> None:
    with proxies.proxy("truncated-capsule") as proxy:
        outcome = udp(proxy.templates["connect-udp"], *ca)
    failed(outcome, ExitCode.REFUSED, error="the stream ended inside a capsule", hint="breaks the standard")


@pytest.mark.netns
def test_addresses_are_refused(up: Run, proxies: Proxies, ca: tuple[str, str]) -> None:
    with proxies.proxy("refuse-family=4") as proxy:
        outcome = up(proxy.templates["connect-ip"], *ca)
    failed(outcome, ExitCode.REFUSED, error="refused to assign an address", hint="address pool")


@pytest.mark.netns
def test_closed_at_once(up: Run, proxies: Proxies, ca: tuple[str, str]) -> None:
    with proxies.proxy("end") as proxy:
        outcome = up(proxy.templates["connect-ip"], *ca)
    failed(outcome, ExitCode.REFUSED, error="closed the tunnel at once", hint="ask its operator")


def ready_of(command: Command) -> dict[str, list[dict[str, str]]]:
    ready = command.ready()
    assert ready is not None
    return ready
