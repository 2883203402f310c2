"""One place for all tests of the command line: a network namespace where we may make one, else this loopback."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from masque_client.testing.certificates import CertificateAuthority
from masque_client.testing.netns import Lab, Namespace, Snapshot, unavailable_reason
from tests.cli.commands import Command, Outcome
from tests.cli.proxies import Proxies

Run = Callable[..., Outcome]


@pytest.fixture(scope="session")
def namespace() -> Iterator[Namespace | None]:
    """Where commands and proxies run; at the end, nothing may have been left in it."""
    if unavailable_reason():
        yield None  # `udp` and `discover` need no privilege; the tests of `up` are marked netns
        return
    with Lab() as lab:
        namespace = lab.namespace("cli")
        before = namespace.snapshot()
        yield namespace
        assert before.difference(namespace.snapshot()) == []
        pids = subprocess.run(["ip", "netns", "pids", namespace.name], capture_output=True, check=True, text=True)
        assert pids.stdout == "", "a process was left behind"


@pytest.fixture(scope="session")
def before(namespace: Namespace | None) -> Snapshot | None:
    """The namespace as it was before any command ran, which is how every command must leave it."""
    return namespace.snapshot() if namespace else None


@pytest.fixture(scope="session")
def proxies(namespace: Namespace | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxies]:
    with Proxies(CertificateAuthority.create(tmp_path_factory.mktemp("ca")), namespace) as proxies:
        yield proxies


@pytest.fixture(scope="session")
def ca(proxies: Proxies) -> tuple[str, str]:
    """The options that trust the proxies."""
    return "--ca", str(proxies.authority.ca_file)


@pytest.fixture
def udp_socket(namespace: Namespace | None) -> Iterator[socket.socket]:
    """A local program's socket, beside the commands."""
    with namespace.entered() if namespace else contextlib.nullcontext():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(60)
        sock.bind(("127.0.0.1", 0))
        yield sock


@pytest.fixture
def start(namespace: Namespace | None) -> Iterator[Callable[..., Command]]:
    """Start a command; ended with the test. `start("discover", …, wrapper=[…])`."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str | Path, wrapper: tuple[str, ...] = ()) -> Command:
            command = Command(*map(str, arguments), namespace=namespace, wrapper=wrapper)
            return stack.enter_context(command)

        yield start


@pytest.fixture
def run(start: Callable[..., Command]) -> Run:
    """Run a command to its end."""

    def run(*arguments: str | Path) -> Outcome:
        return start(*arguments).outcome()

    return run


@pytest.fixture
def udp(start: Callable[..., Command], udp_socket: socket.socket) -> Run:
    """Run `udp 0=127.0.0.1:9 --proxy PROXY …` to its end; a local program sends one datagram when it is ready."""

    def udp(proxy: str, *arguments: str | Path) -> Outcome:
        command = start("udp", "0=127.0.0.1:9", "--proxy", proxy, "--json", *arguments)
        if (ready := command.ready()) is not None:
            udp_socket.sendto(b"anybody there?", local_ports(ready)[0])
        return command.outcome()

    return udp


@pytest.fixture
def up(namespace: Namespace | None, before: Snapshot | None, start: Callable[..., Command]) -> Run:
    """Run `up PROXY --foreground …` to its end; no link, address, route, rule or sysctl may differ afterwards."""

    def up(proxy: str, *arguments: str | Path, wrapper: tuple[str, ...] = ()) -> Outcome:
        assert namespace is not None and before is not None, "mark the test netns"
        outcome = start("up", proxy, "--foreground", *arguments, wrapper=wrapper).outcome()
        assert before.difference(namespace.snapshot()) == []
        return outcome

    return up


@pytest.fixture(params=["udp", pytest.param("up", marks=pytest.mark.netns)])
def tunnel(request: pytest.FixtureRequest) -> tuple[str, Run]:
    """Both commands that use a proxy: the protocol they need, and how to run them."""
    run: Run = request.getfixturevalue(request.param)
    return {"udp": "connect-udp", "up": "connect-ip"}[request.param], run


def local_ports(ready: dict[str, list[dict[str, str]]]) -> list[tuple[str, int]]:
    """Where a `udp` that said it is ready listens."""
    pairs = [forward["local"].rpartition(":") for forward in ready["forwards"]]
    return [(host, int(port)) for host, _, port in pairs]
