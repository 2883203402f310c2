"""Network namespaces for demos and tests: made with random names, wired with veth pairs, always taken down.

    with Lab() as lab:
        client, proxy = lab.namespace("client"), lab.namespace("proxy")
        lab.link(client, ["192.0.2.1/24"], proxy, ["192.0.2.2/24"])
        client.run("ping", "-c1", "192.0.2.2")
        with client.entered():
            ...  # sockets made here, by this thread, live in the client

Nothing outside the namespaces is touched: a veth end leaves for its namespace before it is given an address. `Snapshot`
holds everything a tunnel could leave behind, of a namespace or of the one we run in, for comparing before and after.

Needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN) and the `ip` command; `unavailable_reason` says what is missing.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

NAMESPACE_PREFIX: Final = "masque-"
RUN_TIMEOUT_S: Final = 60.0
LINK_TIMEOUT_S: Final = 30.0
KILL_AFTER_S: Final = 5.0

_CLONE_NEWNET: Final = 0x4000_0000
_NETNS_DIRECTORY: Final = Path("/run/netns")


class Namespace:
    """One named network namespace with its loopback up. Made by `Lab.namespace`.

    Attributes:
        name: as `ip netns` knows it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._processes: list[subprocess.Popen[Any]] = []
        _ip("netns", "add", name)
        try:
            self.ip("link", "set", "lo", "up")
            # Duplicate address detection would delay every new address by a second, and nobody here is a duplicate.
            self.sysctl("net.ipv6.conf.default.accept_dad", 0)
            self.sysctl("net.ipv6.conf.all.accept_dad", 0)
        except BaseException:
            self.delete()
            raise

    def run(
        self, *command: str, check: bool = True, timeout_s: float = RUN_TIMEOUT_S, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end; output is captured as text.

        Raises:
            subprocess.CalledProcessError: `check`, and it failed. `run` prints its stderr in the message.
            subprocess.TimeoutExpired: it was killed after `timeout_s`.
        """
        return _run(("ip", "netns", "exec", self.name, *command), check=check, timeout_s=timeout_s, input=input)

    def spawn(
        self,
        *command: str,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a command inside. `delete` terminates it if nobody has by then."""
        process = subprocess.Popen(
            ("ip", "netns", "exec", self.name, *command),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=env,
        )
        self._processes.append(process)
        return process

    @contextlib.contextmanager
    def entered(self) -> Iterator[Self]:
        """Move the calling thread inside for the length of a block; threads started in it are born inside.

        Descriptors opened inside stay there afterwards. /proc/sys/net follows the thread, /sys does not.
        """
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            there = os.open(_NETNS_DIRECTORY / self.name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _setns(there)
            finally:
                os.close(there)
            try:
                yield self
            finally:
                _setns(home)
        finally:
            os.close(home)

    def ip(self, *arguments: str) -> Any:
        """`ip -n NAME -j …`: the parsed JSON, or None when the command prints nothing."""
        return _ip("-n", self.name, *arguments)

    def sysctl(self, key: str, value: int | str) -> None:
        """Set a sysctl that belongs to the namespace (net.…), such as `net.ipv4.ip_forward`."""
        with self.entered():
            Path("/proc/sys", *key.split(".")).write_text(f"{value}\n")

    def set_forwarding(self) -> None:
        """Make a router of it, for both families."""
        self.sysctl("net.ipv4.ip_forward", 1)
        self.sysctl("net.ipv6.conf.all.forwarding", 1)

    def add_route(self, destination: str, *, via: str) -> None:
        """Route a prefix, or `default`, through a gateway."""
        family = "-6" if ":" in via else "-4"
        self.ip(family, "route", "add", destination, "via", via)

    def route_to(self, destination: str, *arguments: str) -> dict[str, Any]:
        """What `ip route get` answers: keys such as `dev`, `gateway`, `table`, `prefsrc`.

        Raises:
            subprocess.CalledProcessError: there is no route, or an unreachable one.
        """
        answer: dict[str, Any] = self.ip("route", "get", destination, *arguments)[0]
        return answer

    def snapshot(self) -> Snapshot:
        """Everything a tunnel could leave behind in here."""
        return Snapshot.take(self)

    def delete(self) -> None:
        """Terminate what `spawn` started and remove the namespace, its devices with it. Harmless when repeated."""
        for process in self._processes:
            _terminate(process)
        self._processes.clear()
        if (_NETNS_DIRECTORY / self.name).exists():
            _ip("netns", "delete", self.name)


class Lab:
    """Namespaces and links that end together. A context manager; leaving it undoes everything, errors or not."""

    def __init__(self) -> None:
        self.suffix = secrets.token_hex(3)
        self._undo = ExitStack()
        self._links = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def namespace(self, role: str) -> Namespace:
        """A new namespace, named `masque-ROLE-SUFFIX`."""
        namespace = Namespace(f"{NAMESPACE_PREFIX}{role}-{self.suffix}")
        self._undo.callback(namespace.delete)
        return namespace

    def link(
        self,
        left: Namespace,
        left_addresses: Sequence[str],
        right: Namespace,
        right_addresses: Sequence[str],
        *,
        names: tuple[str, str] | None = None,
        mtu: int = 1500,
    ) -> tuple[str, str]:
        """A veth pair between two namespaces, up and addressed (`192.0.2.1/24`); returns the two device names."""
        first, second = names or (f"veth{self._links}", f"veth{self._links + 1}")
        self._links += 2
        left.ip(
            *("link", "add", first, "mtu", str(mtu), "type", "veth"),
            *("peer", "name", second, "mtu", str(mtu), "netns", right.name),
        )
        for namespace, device, addresses in ((left, first, left_addresses), (right, second, right_addresses)):
            for address in addresses:
                namespace.ip("address", "add", address, "dev", device, *(["nodad"] if ":" in address else []))
            namespace.ip("link", "set", device, "up")
        _await_up(left, first)
        _await_up(right, second)
        return first, second


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Links, addresses, routes of all tables, policy rules and sysctls; equal when nothing changed.

    Counters and lifetimes are left out. Each element is one line of JSON, sorted.
    """

    links: tuple[str, ...]
    addresses: tuple[str, ...]
    routes: tuple[str, ...]
    rules: tuple[str, ...]
    sysctls: tuple[str, ...]

    @classmethod
    def take(cls, namespace: Namespace | None = None) -> Self:
        """Look around in `namespace`, or where this process runs."""
        ip = namespace.ip if namespace else _ip
        with namespace.entered() if namespace else contextlib.nullcontext():
            sysctls = tuple(sorted(_sysctls()))
        return cls(
            links=_lines(ip("link", "show")),
            addresses=_lines(
                {"ifname": link["ifname"], **address} for link in ip("address", "show") for address in link["addr_info"]
            ),
            routes=_lines(route for family in ("-4", "-6") for route in ip(family, "route", "show", "table", "all")),
            rules=_lines(
                {"family": family, **rule} for family in ("-4", "-6") for rule in ip(family, "rule", "show") or []
            ),
            sysctls=sysctls,
        )

    def difference(self, later: Snapshot) -> list[str]:
        """What was removed (`- …`) and added (`+ …`) since; empty when the two are equal."""
        changes: list[str] = []
        for name in (field.name for field in fields(self)):
            before, after = set(getattr(self, name)), set(getattr(later, name))
            changes += [f"- {name}: {line}" for line in sorted(before - after)]
            changes += [f"+ {name}: {line}" for line in sorted(after - before)]
        return changes


@cache
def unavailable_reason() -> str | None:
    """Why namespaces cannot be made here, as a sentence for a skipped test; None when they can."""
    if shutil.which("ip") is None:
        return "the `ip` command (iproute2) is missing"
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with Lab() as lab:
            lab.namespace("try")
    except (subprocess.CalledProcessError, OSError) as error:
        return f"network namespaces cannot be made: {error}"
    return None


# Sysctls of a host that a tunnel may be tempted to change and forget; those of a device vanish with it.
_WATCHED_SYSCTLS: Final = (
    "ipv4/ip_forward",
    "ipv4/conf/all/src_valid_mark",
    "ipv4/conf/*/rp_filter",
    "ipv6/conf/all/disable_ipv6",
    "ipv6/conf/all/forwarding",
    "ipv6/conf/default/disable_ipv6",
)

_VOLATILE: Final = frozenset(
    {"valid_life_time", "preferred_life_time", "expires", "stats", "stats64", "age", "used", "ifindex", "link_index"}
)


def _sysctls() -> Iterator[str]:
    root = Path("/proc/sys/net")
    for pattern in _WATCHED_SYSCTLS:
        for path in root.glob(pattern):
            yield f"{path.relative_to(root)} = {path.read_text().strip()}"


def _lines(items: Any) -> tuple[str, ...]:
    kept = ({key: value for key, value in item.items() if key not in _VOLATILE} for item in items or [])
    return tuple(sorted(json.dumps(item, sort_keys=True) for item in kept))


def _ip(*arguments: str) -> Any:
    output = _run(("ip", "-j", *arguments)).stdout
    return json.loads(output) if output.strip() else None


def _run(
    command: Sequence[str], *, check: bool = True, timeout_s: float = RUN_TIMEOUT_S, input: str | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s, input=input)
    if check and done.returncode:
        raise CommandFailed(done.returncode, command, done.stdout, done.stderr)
    return done


class CommandFailed(subprocess.CalledProcessError):
    """A command failed; unlike its base, the message shows what it said."""

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.stderr or self.stdout}".rstrip()


def _terminate(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _await_up(namespace: Namespace, device: str) -> None:
    """Carrier is announced asynchronously; without it the device has no IPv6 link-local address and drops packets."""
    deadline = time.monotonic() + LINK_TIMEOUT_S
    while namespace.ip("link", "show", "dev", device)[0]["operstate"] != "UP":
        if time.monotonic() > deadline:
            raise TimeoutError(f"{device} in {namespace.name} did not come up in {LINK_TIMEOUT_S} s")
        time.sleep(0.005)


def _setns(descriptor: int) -> None:
    """setns(2) for the calling thread; `os.setns` is Python 3.12 and newer."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
