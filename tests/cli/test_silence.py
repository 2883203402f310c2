"""Peers that never say what we wait for. The commands wait side by side, so that the tests need not add up."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from masque_client.testing.netns import Namespace
from masque_connect.exit_codes import ExitCode
from tests.cli.commands import Command, failed
from tests.cli.conftest import local_ports
from tests.cli.proxies import Proxies


@pytest.fixture(scope="module")
def waiting(namespace: Namespace | None, proxies: Proxies, ca: tuple[str, str]) -> Iterator[dict[str, Command]]:
    """All commands of this file, by name, started."""
    commands: dict[str, Command] = {}
    with contextlib.ExitStack() as stack:

        def start(name: str, *arguments: str) -> Command:
            commands[name] = stack.enter_context(Command(*arguments, namespace=namespace))
            return commands[name]

        echo = stack.enter_context(echo_server(namespace))
        silent = stack.enter_context(proxies.proxy("silent"))
        stingy = stack.enter_context(proxies.proxy("never-assign"))
        start("udp-echo", "udp", "0=127.0.0.1:9", "--proxy", echo)
        udp = start("udp-silent", "udp", "0=127.0.0.1:9", "--proxy", silent.templates["connect-udp"], "--json", *ca)
        if namespace is not None:
            start("up-echo", "up", echo, "--foreground")
            start("up-silent", "up", silent.templates["connect-ip"], "--foreground", *ca)
            start("up-stingy", "up", stingy.templates["connect-ip"], "--foreground", *ca)
        ready = udp.ready()
        assert ready is not None
        with inside(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"?", local_ports(ready)[0])
        yield commands


@pytest.mark.parametrize("name", ["udp-echo", pytest.param("up-echo", marks=pytest.mark.netns)])
def test_something_else_than_quic_answers(name: str, waiting: dict[str, Command]) -> None:
    failed(waiting[name].outcome(), ExitCode.UNREACHABLE, error="no answer from localhost over UDP", hint="UDP may be")


@pytest.mark.netns
def test_the_request_is_never_answered(waiting: dict[str, Command]) -> None:
    outcome = waiting["up-silent"].outcome()
    failed(outcome, ExitCode.TIMEOUT, error="did not answer the request within 10 s", hint="may be overloaded")


def test_a_flow_that_is_never_answered_is_a_remark(waiting: dict[str, Command]) -> None:
    command = waiting["udp-silent"]
    assert "did not answer the request within 10 s" in command.remark("a flow ended")
    command.process.send_signal(signal.SIGTERM)
    failed(command.outcome(), ExitCode.INTERRUPTED, error="interrupted", hint="undone")


@pytest.mark.netns
def test_no_address_is_ever_assigned(waiting: dict[str, Command]) -> None:
    outcome = waiting["up-stingy"].outcome()
    failed(outcome, ExitCode.TIMEOUT, error="assigned no address within 10 s", hint="address pool")


@contextlib.contextmanager
def echo_server(namespace: Namespace | None) -> Iterator[str]:
    """A UDP service that sends back what it gets; its URL, were it a proxy."""
    with inside(namespace):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def echo() -> None:
        while (received := sock.recvfrom(65_535))[0] != b"stop":
            sock.sendto(*received)

    with sock:
        sock.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=echo)
        thread.start()
        try:
            yield f"https://localhost:{sock.getsockname()[1]}"
        finally:
            sock.sendto(b"stop", sock.getsockname())
            thread.join()


def inside(namespace: Namespace | None) -> contextlib.AbstractContextManager[object]:
    return namespace.entered() if namespace else contextlib.nullcontext()
