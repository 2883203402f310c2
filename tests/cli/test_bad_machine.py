"""What this machine does not have or allow. The proxy is not troubled with it: nothing listens where it would be."""

from __future__ import annotations

import shutil
import socket

import pytest

from masque_connect.exit_codes import ExitCode
from tests.cli.commands import failed
from tests.cli.conftest import Run
from tests.cli.proxies import Proxies

NO_PROXY = "https://127.0.0.1:9"
NO_NET_ADMIN = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")


def with_mount(mount: str) -> tuple[str, ...]:
    """A wrapper: a mount namespace of the command's own, changed before it runs."""
    return ("unshare", "--mount", "sh", "-c", f'{mount} && exec "$0" "$@"')


def require(command: str) -> None:
    if shutil.which(command) is None:
        pytest.skip(f"NEEDS {command} (util-linux): a missing privilege is not tested here")


def test_local_port_in_use(udp_socket: socket.socket, run: Run, proxies: Proxies, ca: tuple[str, str]) -> None:
    port = udp_socket.getsockname()[1]
    with proxies.proxy() as proxy:
        outcome = run("udp", f"{port}=127.0.0.1:9", "--proxy", proxy.templates["connect-udp"], *ca)
    failed(outcome, ExitCode.GENERIC, error=f"127.0.0.1:{port}: Address already in use", hint="another local port")


@pytest.mark.netns
def test_no_net_admin(up: Run) -> None:
    require("setpriv")
    outcome = up(NO_PROXY, wrapper=NO_NET_ADMIN)
    failed(outcome, ExitCode.PERMISSION, error="creating a TUN device needs CAP_NET_ADMIN", hint="run as root")


@pytest.mark.netns
def test_no_tun_device(up: Run) -> None:
    require("unshare")
    outcome = up(NO_PROXY, wrapper=with_mount("mount -t tmpfs none /dev/net"))
    failed(outcome, ExitCode.PERMISSION, error="/dev/net/tun does not exist", hint="modprobe tun")


@pytest.mark.netns
def test_a_masked_tun_device(up: Run) -> None:
    require("unshare")
    outcome = up(NO_PROXY, wrapper=with_mount("mount --bind /dev/null /dev/net/tun"))
    failed(outcome, ExitCode.PERMISSION, error="/dev/net/tun is something else", hint="container")


@pytest.mark.netns
@pytest.mark.parametrize("name", ["a/b", "far-too-long-a-name"])
def test_bad_interface_names(name: str, up: Run) -> None:
    outcome = up(NO_PROXY, "--interface", name)
    failed(outcome, ExitCode.BAD_CONFIGURATION, error="cannot be the name of a network interface", hint="1 to 15")


@pytest.mark.netns
def test_an_interface_that_exists(up: Run) -> None:
    outcome = up(NO_PROXY, "--interface", "lo")
    failed(outcome, ExitCode.GENERIC, error="the network interface lo exists", hint="another name")
