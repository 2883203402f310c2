"""Making a socket the way we want it, and saying in our own errors what went wrong.

Everything that happens once per socket; what happens per datagram is in `udp.py`.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Iterator
from typing import Final

from masque_client.engine.interface import Address
from masque_client.errors import AddressInUse, ConnectError, LocalProtocolError, PrivilegeError

# Linux constants that the socket module lacks in Python 3.11 (include/uapi/linux/{udp,in,in6}.h, asm-generic/socket.h).
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
_IP_MTU_DISCOVER: Final = 10
_IP_MTU: Final = 14
_IPV6_MTU_DISCOVER: Final = 23
_IPV6_MTU: Final = 24
_PMTUDISC_DO: Final = 2
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33

MAX_UNSENT_TCP_BYTES: Final = 128 * 1024
"""How much a TCP socket takes beyond what the path has taken: 10 ms at 100 Mbit/s."""


def open_udp(family_of: Address, *, mark: int | None, receive_buffer: int, send_buffer: int) -> socket.socket:
    """An unbound non-blocking socket of the address's family with Don't Fragment, mark and buffers set.

    The mark comes before any `connect`, because that is when the kernel looks the route up.

    Raises:
        PrivilegeError: `mark` needs CAP_NET_ADMIN.
        ConnectError: the family is switched off on this machine.
        LocalProtocolError: the address is not an IP literal.
    """
    is_ipv6 = _is_ipv6(family_of)
    with translated_errors(family_of):
        sock = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        with translated_errors(family_of):
            if is_ipv6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)
            _grow_buffer(sock, _SO_RCVBUFFORCE, socket.SO_RCVBUF, receive_buffer)
            _grow_buffer(sock, _SO_SNDBUFFORCE, socket.SO_SNDBUF, send_buffer)
        if mark is not None:
            _set_mark(sock, mark)
    except BaseException:
        sock.close()
        raise
    return sock


def open_tcp(family_of: Address, *, mark: int | None) -> socket.socket:
    """An unconnected non-blocking TCP socket of the address's family with the mark set.

    What is not sent yet stays with us, where late datagrams can still be dropped, instead of in a deep kernel buffer
    (TCP_NOTSENT_LOWAT); what is sent leaves at once (TCP_NODELAY).

    Raises:
        PrivilegeError, ConnectError, LocalProtocolError: as `open_udp`.
    """
    with translated_errors(family_of):
        family = socket.AF_INET6 if _is_ipv6(family_of) else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_TCP_BYTES)
        if mark is not None:
            _set_mark(sock, mark)
    except BaseException:
        sock.close()
        raise
    return sock


def enable_gro(sock: socket.socket) -> bool:
    """Ask for whole trains on receive; False where the kernel cannot (before Linux 5.0)."""
    try:
        sock.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
    except OSError:
        return False
    return True


def route_mtu(sock: socket.socket) -> int | None:
    """The MTU, in bytes of IP packet, of a connected socket's route as the kernel knows it now; else None."""
    try:
        if sock.family == socket.AF_INET6:
            return sock.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
        return sock.getsockopt(socket.IPPROTO_IP, _IP_MTU)
    except OSError:  # ENOTCONN: not connected, or its route is gone
        return None


@contextlib.contextmanager
def translated_errors(address: Address) -> Iterator[None]:
    """Turn what `socket`, `bind` and `connect` raise into our errors, naming the address."""
    try:
        yield
    except OSError as error:
        where, reason = format_address(address), error.strerror
        match error.errno:
            case errno.EADDRINUSE | errno.EADDRNOTAVAIL:
                raise AddressInUse(f"cannot use the local address {where}: {reason}") from error
            case errno.EACCES | errno.EPERM:
                raise PrivilegeError(f"not allowed to use {where}: {reason}") from error
            case _:
                raise ConnectError(f"cannot reach {where}: {reason}") from error


def format_address(address: Address) -> str:
    """`192.0.2.1:443` or `[2001:db8::1]:443`."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_ipv6(address: Address) -> bool:
    try:
        return ipaddress.ip_address(address[0]).version == 6
    except ValueError as error:
        raise LocalProtocolError(f"{address[0]!r} is not an IP literal; resolve names first") from error


def _grow_buffer(sock: socket.socket, force: int, ask: int, size: int) -> None:
    """Set a buffer past the system's limit where we may (CAP_NET_ADMIN), else as far as it lets us."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, ask, size)


def _set_mark(sock: socket.socket, mark: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    except PermissionError as error:
        raise PrivilegeError("a firewall mark on the outer socket needs CAP_NET_ADMIN") from error
