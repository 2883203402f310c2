"""The far side of CONNECT-UDP in the test proxy: which targets are allowed, and the real UDP socket to one of them."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import Final, Never

from masque_client.engine.interface import Address
from masque_client.errors import MasqueError
from masque_client.http.stream import SessionStream
from masque_client.netio.udp import UdpSocket
from masque_client.protocol.scope import IpAddress, IpPrefix

RESOLVE_TIMEOUT_S: Final = 5.0
READ_TRAINS: Final = 16
"""Trains taken from the target before the tunnel gets its turn."""
_UNUSABLE: Final = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH})


class TargetRefused(MasqueError):
    """A target cannot be had: `status` and `error`, a Proxy-Status type (RFC 9209 §2.3), say why."""

    def __init__(self, message: str, *, status: int, error: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error


class TargetPolicy:
    """Which addresses clients may reach (RFC 9298 §7).

    Args:
        routes: what CONNECT-IP clients may reach, CONNECT-UDP clients may too; without this machine's loopback,
            link-local and multicast addresses, however wide the route.
        allow: allowed in any case. Loopback targets are only reached through this.
    """

    def __init__(self, routes: Iterable[IpPrefix], allow: Iterable[IpPrefix] = ()) -> None:
        self._routes = tuple(routes)
        self._allow = tuple(allow)

    def allows(self, address: IpAddress) -> bool:
        """Whether packets may be sent there."""
        if any(address in prefix for prefix in self._allow):
            return True
        is_special = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
        return not is_special and any(address in prefix for prefix in self._routes)

    async def resolve(self, host: str) -> list[IpAddress]:
        """The allowed addresses of a name or literal, never empty; before the request is answered (RFC 9298 §3.1).

        Raises:
            TargetRefused: it does not resolve, or none of its addresses is allowed.
        """
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT_S):
                found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_DGRAM)
        except TimeoutError as error:
            raise TargetRefused(f"resolving {host} took too long", status=504, error="dns_timeout") from error
        except (OSError, UnicodeError) as error:
            raise TargetRefused(f"{host} does not resolve", status=502, error="dns_error") from error
        addresses = dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found)
        allowed = [address for address in addresses if self.allows(address)]
        if not allowed:
            raise TargetRefused(f"{host} is not an allowed target", status=502, error="destination_ip_prohibited")
        return allowed


class UdpTargetFlow:
    """One connected UDP socket and the tunnel it belongs to, between `start` and `close`.

    The socket being connected, the kernel drops what does not come from the target (RFC 9298 §3.1).

    Raises:
        MasqueError: there is no route to the target.
    """

    def __init__(self, target: Address, tunnel: SessionStream[Never]) -> None:
        self._target = target
        self._tunnel = tunnel
        self._socket = UdpSocket.connected(target)
        self._waiting: Sequence[bytes] = ()
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Begin to move payloads. The tunnel is open."""
        self._tunnel.on_payloads = self.send
        self._tunnel.on_writable_again = self.resume
        self._loop.add_reader(self._socket.fileno(), self._on_readable)

    def close(self) -> None:
        """Close the socket. Idempotent."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def send(self, payloads: list[bytes]) -> None:
        """Client → target. What the kernel has no room for is lost, as UDP may be."""
        self._socket.send_batch([(payload, self._target) for payload in payloads])
        self._check()

    def resume(self) -> None:
        """The tunnel has room again."""
        waiting, self._waiting = self._waiting, ()
        self._deliver(waiting)
        if not self._waiting and self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        datagrams = self._socket.receive_datagrams(READ_TRAINS)
        self._deliver([data for data, _ in datagrams])
        self._check()

    def _deliver(self, payloads: Sequence[bytes]) -> None:
        """Target → client."""
        passed = self._tunnel.session.encapsulate(payloads).send
        if not passed:
            return
        taken = self._tunnel.send_payloads(passed)
        if taken < len(passed):
            self._waiting = passed[taken:]
            self._loop.remove_reader(self._socket.fileno())
        self._tunnel.flush()

    def _check(self) -> None:
        """A target that the network says is not there ends the tunnel (RFC 9298 §3.1)."""
        error = self._socket.last_error
        if error is not None and error.errno in _UNUSABLE:
            self._tunnel.close()
