"""The desired-state engine: observe, compare, change, and look again. The same for the real kernel and the fake.

A kernel may do more than it is asked (a device's last IPv4 address takes the device's routes with it), so after making
its changes `apply` observes again and repeats what is still missing. A refused change undoes those before it.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

from masque_client.errors import HostError, PrivilegeError
from masque_client.host.identity import TunnelIdentity
from masque_client.host.interface import HostConfiguration
from masque_client.host.plan import Change, Entry, SetIpv6, plan
from masque_client.host.state import HostState, desired_state

logger = logging.getLogger(__name__)

PASSES: Final = 3

_ALREADY_GONE: Final = frozenset(
    {errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.ENXIO, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
)
_READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT})


class Kernel(Protocol):
    """What the engine needs of a kernel, real or fake."""

    def observe(self, identity: TunnelIdentity) -> HostState:
        """Read back everything of one tunnel's. Raises OSError."""

    def perform(self, identity: TunnelIdentity, change: Change) -> None:
        """Make one change. Raises OSError with the errno of the refusal."""

    def dead_tunnels(self) -> Sequence[TunnelIdentity]:
        """Tunnels with entries of ours in shared tables, but without a device that somebody holds open."""

    def close(self) -> None:
        """Let go of descriptors."""


class ReconcilingNetwork:
    """A `HostNetwork` over a `Kernel`. Not thread-safe."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._identity: TunnelIdentity | None = None
        self._original = HostState(link=None)
        self._sysctls_writable = True

    def apply(self, configuration: HostConfiguration) -> None:
        """See `HostNetwork.apply`. A change of device restores the old one first."""
        identity = TunnelIdentity.of(configuration.device)
        if self._identity not in (None, identity):
            self.restore()
        before = self._observe(identity)
        if before.link is None:
            raise HostError(f"there is no network device {identity.device}")
        if self._identity is None:
            # Rules and table entries found under our name now are a dead run's: never brought back. Nor are the IPv6
            # sysctls of a device that is ours: the kernel would give it a link-local address on the occasion.
            self._original = before = HostState(replace(before.link, ipv6=None), before.addresses)
        try:
            self._converge(identity, desired_state(configuration))
        except HostError as failure:
            self._roll_back(identity, before, failure)
            raise
        self._identity = identity

    def observe(self, device: str) -> HostState:
        """See `HostNetwork.observe`."""
        return self._observe(TunnelIdentity.of(device))

    def plan(self, configuration: HostConfiguration) -> Sequence[str]:
        """See `HostNetwork.plan`."""
        current = self._observe(TunnelIdentity.of(configuration.device))
        return [str(change) for change in plan(current, desired_state(configuration))]

    def restore(self) -> None:
        """See `HostNetwork.restore`."""
        if self._identity is None:
            return
        gone = self._observe(self._identity).link is None
        self._converge(self._identity, HostState(link=None) if gone else self._original)
        self._identity = None

    def clean_up(self) -> Sequence[str]:
        """See `HostNetwork.clean_up`."""
        removed: list[str] = []
        for identity in self._dead_tunnels():
            if self._identity is not None and identity.slot == self._identity.slot:
                continue  # our device is gone, but what we hold in force is no leftover: it may be a block
            leftovers = self._observe(identity)
            empty = HostState(link=None)
            removed += [str(change) for change in plan(leftovers, empty)]
            self._converge(identity, empty)
        return removed

    def close(self) -> None:
        """See `HostNetwork.close`."""
        self._kernel.close()

    def _converge(self, identity: TunnelIdentity, target: HostState) -> None:
        for _ in range(PASSES):
            changes = self._remaining(identity, target)
            if not changes:
                return
            for change in changes:
                self._perform(identity, change)
        if changes := self._remaining(identity, target):
            raise HostError(f"{identity.device} does not keep what it was told: {', '.join(map(str, changes))}")

    def _remaining(self, identity: TunnelIdentity, target: HostState) -> list[Change]:
        changes = plan(self._observe(identity), target)
        return [change for change in changes if self._sysctls_writable or not isinstance(change, SetIpv6)]

    def _perform(self, identity: TunnelIdentity, change: Change) -> None:
        try:
            self._kernel.perform(identity, change)
        except OSError as error:
            if isinstance(change, Entry) and _is_moot(change, error):
                return
            if isinstance(change, SetIpv6) and error.errno in _READ_ONLY:
                self._sysctls_writable = False
                logger.warning("cannot %s on %s: %s; going on without", change, identity.device, _reason(error))
                return
            raise _refused(f"could not {change} on {identity.device}", error) from error

    def _roll_back(self, identity: TunnelIdentity, before: HostState, failure: HostError) -> None:
        try:
            self._converge(identity, before)
        except HostError as second:
            raise type(failure)(f"{failure}; undoing the rest failed too: {second}") from failure

    def _dead_tunnels(self) -> Sequence[TunnelIdentity]:
        try:
            return self._kernel.dead_tunnels()
        except OSError as error:
            raise _refused("could not look for leftovers", error) from error

    def _observe(self, identity: TunnelIdentity) -> HostState:
        try:
            return self._kernel.observe(identity)
        except OSError as error:
            raise _refused(f"could not read the network state of {identity.device}", error) from error


def _is_moot(change: Entry, error: OSError) -> bool:
    """Somebody or something has done it already; the next look tells whether to our liking."""
    return error.errno == errno.EEXIST if change.verb == "add" else error.errno in _ALREADY_GONE


def _refused(message: str, error: OSError) -> HostError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return PrivilegeError(f"{message}: {_reason(error)}")
    return HostError(f"{message}: {_reason(error)}")


def _reason(error: OSError) -> str:
    return error.strerror or (os.strerror(error.errno) if error.errno else str(error))
