"""Credentials on the command line: each kind, renewed and refused, for one origin; and nowhere else to be seen."""

from __future__ import annotations

import base64
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from masque_client.protocol.headers import Header, Headers
from masque_client.testing.credentials import Authentication
from masque_connect.exit_codes import ExitCode
from tests.cli.commands import Command, Outcome, failed
from tests.cli.conftest import Run, local_ports
from tests.cli.proxies import Proxies

PASSWORD, TOKEN, STALE = "pässwört-3b1f", "t0ken-9c2e.abc", "stale-77aa.xyz"
USER = "jürgen"
BASIC = f"basic:{USER}:{PASSWORD}"
BEARER = f"bearer:{TOKEN}"
SECRETS = [text.encode() for text in (PASSWORD, TOKEN, STALE)]
SECRETS += [base64.b64encode(f"{USER}:{PASSWORD}".encode())]

Start = Callable[..., Command]
Files = Callable[[str, str], str]


@pytest.fixture
def file(tmp_path: Path) -> Files:
    """Make a private file, or replace one at once; its path."""

    def file(name: str, text: str) -> str:
        new = tmp_path / "new"
        new.touch(mode=0o600)
        new.write_text(text)
        return str(new.rename(tmp_path / name))

    return file


def token_command(file: Files, *tokens: str) -> str:
    """A program that prints one token after the other, and then the last one again."""
    rest = file("tokens", "\n".join(tokens) + "\n")
    script = file("print-token", f'head -1 {rest}; [ $(wc -l < {rest}) -lt 2 ] || sed -i 1d "{rest}"\n')
    return f"/bin/sh '{script}'"


KINDS: dict[str, tuple[str, Callable[[Files], list[str]]]] = {
    "basic": (BASIC, lambda file: ["--user", USER, "--password-file", file("password", PASSWORD + "\n")]),
    "token-file": (BEARER, lambda file: ["--token-file", file("token", TOKEN + "\n")]),
    "token-command": (BEARER, lambda file: ["--token-command", token_command(file, TOKEN)]),
    "renewed": (BEARER, lambda file: ["--token-command", token_command(file, STALE, TOKEN)]),
}
WRONG: dict[str, tuple[str, Callable[[Files], list[str]]]] = {
    "basic": (f"basic:{USER}:other", KINDS["basic"][1]),
    "token-file": ("bearer:other", KINDS["token-file"][1]),
    "token-command": ("bearer:other", lambda file: ["--token-command", token_command(file, STALE, TOKEN)]),
}


def no_secrets(text: str) -> None:
    for secret in SECRETS:
        assert secret not in text.encode(), text


def command_lines(pid: int) -> str:
    """The arguments of a process and of all its descendants, as everybody sees them."""
    own = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + "".join(command_lines(int(child)) for child in children)


def exchange(command: Command, sock: socket.socket, port: int = 0) -> None:
    """Send a datagram to ourselves, through one of the command's forwards."""
    ready = command.ready() if port == 0 else None
    sock.sendto(b"to myself", local_ports(ready)[0] if ready else ("127.0.0.1", port))
    assert sock.recv(100) == b"to myself"


def interrupt(command: Command) -> Outcome:
    command.process.send_signal(signal.SIGTERM)
    outcome = command.outcome()
    assert outcome.code == ExitCode.INTERRUPTED
    return outcome


@pytest.mark.parametrize(
    ("kind", "status"),
    [("basic", 401), ("basic", 407), ("token-file", 401), ("token-command", 407), ("renewed", 401)],
)
def test_accepted_and_nowhere_to_be_seen(
    kind: str, status: int, start: Start, udp_socket: socket.socket, proxies: Proxies, ca: tuple[str, str], file: Files
) -> None:
    secret, options = KINDS[kind]
    own = f"127.0.0.1:{udp_socket.getsockname()[1]}"
    with proxies.proxy(authentication=Authentication.parse(secret, status)) as proxy:  # type: ignore[arg-type]
        command = start(
            "udp", f"0={own}", "--proxy", proxy.templates["connect-udp"], "--json", "-vv", *ca, *options(file)
        )
        exchange(command, udp_socket)
        no_secrets(command_lines(command.process.pid))
        outcome = interrupt(command)
    no_secrets(outcome.stdout + outcome.stderr)


@pytest.mark.parametrize(("kind", "status"), [("basic", 401), ("token-file", 407), ("token-command", 401)])
def test_refused_and_nowhere_to_be_seen(
    kind: str, status: int, udp: Run, proxies: Proxies, ca: tuple[str, str], file: Files
) -> None:
    secret, options = WRONG[kind]
    with proxies.proxy(authentication=Authentication.parse(secret, status)) as proxy:  # type: ignore[arg-type]
        outcome = udp(proxy.templates["connect-udp"], *ca, *options(file))
    failed(outcome, ExitCode.AUTHENTICATION, error=f"the proxy answered {status}", hint="does not accept your")
    no_secrets(outcome.stdout + outcome.stderr)


@pytest.mark.netns
@pytest.mark.parametrize("kind", ["basic", "token-command"])
def test_up_says_no_secrets(kind: str, up: Run, proxies: Proxies, ca: tuple[str, str], file: Files) -> None:
    secret, options = WRONG[kind]
    with proxies.proxy(authentication=Authentication.parse(secret)) as proxy:
        outcome = up(proxy.templates["connect-ip"], *ca, *options(file))
    failed(outcome, ExitCode.AUTHENTICATION, error="401 Unauthorized", hint="does not accept your credentials")
    no_secrets(outcome.stdout + outcome.stderr)


@pytest.mark.parametrize("fault", ["refuse=403", "refuse=503", "reset=0x10e", "malformed-capsule"])
def test_failures_of_other_kinds_say_no_secrets(
    fault: str, start: Start, udp_socket: socket.socket, proxies: Proxies, ca: tuple[str, str], file: Files
) -> None:
    with proxies.proxy(fault) as proxy:
        arguments = ("--proxy", proxy.templates["connect-udp"], "--json", "-vv", *ca)
        command = start("udp", "0=127.0.0.1:9", *arguments, "--token-file", file("token", TOKEN))
        ready = command.ready()
        assert ready is not None
        udp_socket.sendto(b"?", local_ports(ready)[0])
        said = command.remark("flow to 127.0.0.1:9 ended") if fault != "malformed-capsule" else ""
        outcome = interrupt(command)
    no_secrets(said + outcome.stdout + outcome.stderr)


class Rotating:
    """A proxy's authentication whose token changes."""

    scheme, status = "bearer", 401

    def __init__(self, token: str) -> None:
        self.token = token

    def accepts(self, fields: Headers) -> bool:
        return Authentication("bearer", self.token).accepts(fields)

    def challenge(self) -> Header:
        return Authentication("bearer", self.token).challenge()


def test_a_token_is_renewed_without_dropping_what_runs(
    start: Start, udp_socket: socket.socket, proxies: Proxies, ca: tuple[str, str], file: Files
) -> None:
    own, rotating = f"127.0.0.1:{udp_socket.getsockname()[1]}", Rotating(STALE)
    with proxies.proxy(authentication=rotating) as proxy:
        arguments = ("--proxy", proxy.templates["connect-udp"], "--json", *ca)
        command = start("udp", f"0={own}", f"0={own}", *arguments, "--token-file", file("token", STALE))
        ready = command.ready()
        assert ready is not None
        first, second = (port for _, port in local_ports(ready))
        exchange(command, udp_socket, first)
        rotating.token = TOKEN
        file("token", TOKEN)
        exchange(command, udp_socket, second)
        exchange(command, udp_socket, first)
        outcome = interrupt(command)
    assert "flow ended" not in outcome.stderr


def test_credentials_are_for_the_named_origin_alone(
    udp: Run, proxies: Proxies, ca: tuple[str, str], file: Files
) -> None:
    with proxies.proxy(authentication=Authentication.parse(BEARER)) as proxy:
        outcome = udp(
            *(proxy.templates["connect-udp"], *ca, "--token-file", file("token", TOKEN)),
            *("--auth-origin", "other.example"),
        )
    failed(outcome, ExitCode.AUTHENTICATION, error="wants Bearer", hint="for other.example:443 alone")


def test_a_token_command_that_fails_is_a_remark_of_the_flow(
    start: Start, udp_socket: socket.socket, proxies: Proxies, ca: tuple[str, str], file: Files
) -> None:
    script = file("fails", f"echo {TOKEN}; exit 7")
    with proxies.proxy(authentication=Authentication.parse(BEARER)) as proxy:
        command = start(
            *("udp", "0=127.0.0.1:9", "--proxy", proxy.templates["connect-udp"], "--json", *ca),
            *("--token-command", f"/bin/sh {script}"),
        )
        ready = command.ready()
        assert ready is not None
        udp_socket.sendto(b"?", local_ports(ready)[0])
        remark = command.remark("a flow ended")
        assert "ended with exit status 7" in remark
        outcome = interrupt(command)
    no_secrets(remark + outcome.stderr)
