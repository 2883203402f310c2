"""What the rest of the program may ask of the operating system: one wish, applied as often as it changes.

`HostConfiguration` is everything that one tunnel wants of this machine. `HostNetwork.apply` compares it with what is
there and changes only the difference, so an address or a route that stays is never touched. `LinuxHostNetwork` acts
on the kernel, `FakeHostNetwork` on a value; the same tests run on both.

How traffic is steered: the tunnel's routes live in a routing table of their own, and one policy rule per family sends
everything there that does not carry our firewall mark. The socket to the proxy carries the mark, so no route of the
tunnel ever captures it, whatever the networks around us do (`masque-core` S-6: no guessed gateway).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_network
from typing import TYPE_CHECKING, Final, Literal, Protocol

from masque_client.engine.interface import Address
from masque_client.errors import ConfigurationError

if TYPE_CHECKING:
    from masque_client.host.state import HostState

Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network
Family = Literal[4, 6]

DEFAULT_FWMARK: Final = 0x4D51
"""The mark of every outer socket of ours ("MQ"). One for all tunnels, so that none ever carries another by accident."""

MIN_IPV4_MTU: Final = 68
MIN_IPV6_MTU: Final = 1280

_LOOPBACKS: Final[tuple[Network, ...]] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@dataclass(frozen=True, slots=True)
class OuterFlow:
    """A connection that carries the tunnel, or may soon.

    Attributes:
        local: its concrete address, not a wildcard; None for any flow of this machine's to `remote`, for while nobody
            knows which one will carry the tunnel.
    """

    protocol: Literal["udp", "tcp"]
    local: Address | None
    remote: Address


@dataclass(frozen=True, slots=True)
class HostConfiguration:
    """Everything one tunnel wants of this machine.

    A family is usable when it has an address and, for IPv6, the MTU reaches 1280 (RFC 8200 §5); addresses and routes
    of an unusable family are left out, and IPv6 is then switched off on the device. The machine's other routes then
    still carry that family: where this would leak, block it.

    Attributes:
        device: an existing TUN device of ours (`netio.TunDevice.name`).
        mtu: of the device: the largest IP packet inside, in bytes.
        addresses: assigned to us (ADDRESS_ASSIGN). They are installed as /32 and /128: a prefix says which sources
            are ours, not who is on the link; destinations come from `routes` alone (RFC 9484 §4.7.1).
        routes: what goes into the tunnel (ROUTE_ADVERTISEMENT, as prefixes). With a default route, or one so short
            that it is a default route in disguise, more specific routes of the main table stay in force, so directly
            attached networks remain reachable.
        unreachable: what must not leave this machine, in or outside the tunnel: it fails at once (EHOSTUNREACH). The
            more specific of these and `routes` counts; none may be in both.
        fwmark: of the outer socket (SO_MARK), never 0.
        block_ipv4: traffic of this family that `routes` do not cover fails at once (EHOSTUNREACH) instead of leaving
            outside the tunnel. Directly attached networks remain reachable.
        block_ipv6: likewise.
        outer_flows: exempt from the tunnel's table in both directions. Needed for IPv4 where reverse-path filtering is
            strict (rp_filter=1): it looks the proxy's packets up without their mark. Matches nothing but the flow.
    """

    device: str
    mtu: int
    addresses: tuple[Interface, ...] = ()
    routes: tuple[Network, ...] = ()
    unreachable: tuple[Network, ...] = ()
    fwmark: int = DEFAULT_FWMARK
    block_ipv4: bool = False
    block_ipv6: bool = False
    outer_flows: tuple[OuterFlow, ...] = ()

    def __post_init__(self) -> None:
        if not MIN_IPV4_MTU <= self.mtu <= 65_535:
            raise ConfigurationError(f"{self.mtu} bytes cannot be the MTU of a tunnel")
        if not 0 < self.fwmark <= 0xFFFF_FFFF:
            raise ConfigurationError("the firewall mark of the outer socket must be a number from 1 to 0xffffffff")
        if both := set(self.routes) & set(self.unreachable):
            raise ConfigurationError(f"{min(map(str, both))} cannot both enter the tunnel and be unreachable")
        for route in (*self.routes, *self.unreachable):
            if any(route.version == own.version and route.subnet_of(own) for own in _LOOPBACKS):  # type: ignore[arg-type]
                raise ConfigurationError(f"a tunnel may neither carry nor block the loopback route {route}")

    @property
    def usable_families(self) -> frozenset[Family]:
        """The families that can send and receive through the tunnel."""
        families: set[Family] = set()
        for address in self.addresses:
            if address.version == 4:
                families.add(4)
            elif self.mtu >= MIN_IPV6_MTU:
                families.add(6)
        return frozenset(families)


class HostNetwork(Protocol):
    """This machine's network, as far as one tunnel changes it. Calls block for milliseconds; one at a time.

    Safe to call with or without a running event loop in the thread. With thousands of routes, use
    `asyncio.to_thread`: the kernel takes about 0.3 ms for each.
    """

    def apply(self, configuration: HostConfiguration) -> None:
        """Make it so. May be repeated with another configuration; what both share is not touched.

        Raises:
            PrivilegeError: CAP_NET_ADMIN is missing.
            HostError: the system refused a change, named in the message. What had been changed is undone.
        """

    def plan(self, configuration: HostConfiguration) -> Sequence[str]:
        """What `apply` would do now, in words and in order; nothing is changed."""

    def observe(self, device: str) -> HostState:
        """What is there now for the tunnel on `device`, whoever put it there (`host.state`)."""

    def restore(self) -> None:
        """Undo everything of ours. Harmless before `apply`, when repeated, and when the device is already gone.

        Raises:
            HostError: something remains; the message names it.
        """

    def clean_up(self) -> Sequence[str]:
        """Remove what dead runs left behind and say what it was; needs no `apply` before.

        A tunnel is alive, and keeps what is its own, while somebody holds its TUN device open.
        """

    def close(self) -> None:
        """Let go of descriptors and threads. It does not restore."""
