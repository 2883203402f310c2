"""Receiving router advertisements: a raw ICMPv6 socket on one interface.

The kernel verifies checksums and keeps its own use of advertisements; we only read along. It forwards neither the PvD
option nor any other unknown one to programs, hence the raw socket, which needs CAP_NET_RAW.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from ipaddress import IPv6Address
from types import TracebackType
from typing import Final, Self

from masque_client.errors import ConfigurationError, HostError, PrivilegeError, RemoteProtocolError
from masque_client.pvd.ra import (
    REQUIRED_HOP_LIMIT,
    ROUTER_ADVERTISEMENT,
    ROUTER_SOLICITATION,
    RouterAdvertisement,
    parse_router_advertisement,
)

logger = logging.getLogger(__name__)

ALL_ROUTERS = "ff02::2"
MAX_MESSAGE_BYTES = 65_536

_ICMP6_FILTER: Final = 1  # <linux/icmpv6.h>; a set bit blocks the type
_CONTROL_BYTES: Final = socket.CMSG_SPACE(4)


class RouterAdvertisementSocket:
    """A context manager; call `receive` in a loop. For one event loop.

    Args:
        interface: the name of a network interface.

    Raises:
        PrivilegeError: CAP_NET_RAW is missing.
        ConfigurationError: there is no such interface.
        HostError: the kernel refuses for another reason.
    """

    def __init__(self, interface: str) -> None:
        self._interface = interface
        try:
            self._index = socket.if_nametoindex(interface)
        except OSError as error:
            raise ConfigurationError(
                f"there is no interface {interface}", hint="see the names: ip -brief link"
            ) from error
        try:
            self._socket = _open(interface)
        except PermissionError as error:
            raise PrivilegeError(
                "reading router advertisements needs CAP_NET_RAW", hint="run as root, or name the host instead"
            ) from error
        except OSError as error:
            raise HostError(f"cannot read router advertisements on {interface}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; no `receive` may be waiting."""
        self._socket.close()

    def solicit(self) -> None:
        """Ask the routers of the link to advertise now (RFC 4861 §6.3.7).

        Raises:
            HostError: the interface is down or has no IPv6.
        """
        message = struct.pack("!BBHI", ROUTER_SOLICITATION, 0, 0, 0)  # the kernel fills in the checksum
        try:
            self._socket.sendto(message, (ALL_ROUTERS, 0, 0, self._index))
        except OSError as error:
            raise HostError(
                f"cannot ask for router advertisements on {self._interface}: {error.strerror}",
                hint="is the interface up, with IPv6 enabled?",
            ) from error

    async def receive(self) -> RouterAdvertisement:
        """The next valid advertisement; invalid ones are dropped with a remark in the debug log.

        Raises:
            HostError: the interface went away.
        """
        while True:
            await _readable(self._socket)
            try:
                message, ancillary, _, address = self._socket.recvmsg(MAX_MESSAGE_BYTES, _CONTROL_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOBUFS):
                    continue
                raise HostError(f"cannot read from {self._interface}: {error.strerror}") from error
            try:
                return parse_router_advertisement(
                    message, source=IPv6Address(address[0].partition("%")[0]), hop_limit=_hop_limit(ancillary)
                )
            except RemoteProtocolError as error:
                logger.debug("dropped a message from %s on %s: %s", address[0], self._interface, error)


def _open(interface: str) -> socket.socket:
    raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
    try:
        only_advertisements = bytearray(b"\xff" * 32)
        only_advertisements[ROUTER_ADVERTISEMENT // 8] &= ~(1 << ROUTER_ADVERTISEMENT % 8) & 0xFF
        raw.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, bytes(only_advertisements))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, REQUIRED_HOP_LIMIT)
    except OSError:
        raw.close()
        raise
    return raw


def _hop_limit(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT) and len(data) == 4:
            return int(struct.unpack("=i", data)[0])
    return 0


async def _readable(raw: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(raw, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(raw)
