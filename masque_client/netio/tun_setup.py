"""Making a TUN device: the ioctls, and what their refusals mean.

A device made here carries whole layer-3 packets (IFF_NO_PI), with offload each behind a virtio_net_hdr (IFF_VNET_HDR).
What a kernel does not know of offload it refuses, and the device is made without.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
from typing import Final, NamedTuple

from masque_client.errors import ConfigurationError, HostError, PrivilegeError
from masque_client.netio.offload.virtio import HEADER_BYTES

TUN_PATH: Final = "/dev/net/tun"

MAX_NAME_BYTES: Final = 15
"""IFNAMSIZ less the terminating zero (include/uapi/linux/if.h)."""

# include/uapi/linux/if_tun.h
_TUNSETIFF: Final = 0x4004_54CA
_TUNSETOFFLOAD: Final = 0x4004_54D0
_TUNSETVNETHDRSZ: Final = 0x4004_54D8
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000
_IFF_TUN_EXCL: Final = 0x8000
_IFREQ: Final = struct.Struct("16sH22x")

_TCP_OFFLOADS: Final = 0x01 | 0x02 | 0x04 | 0x08  # TUN_F_CSUM, TSO4, TSO6, TSO_ECN
_UDP_OFFLOADS: Final = 0x20 | 0x40  # TUN_F_USO4, USO6: Linux 6.2

_NAME: Final = re.compile(r"(?!\.{1,2}\Z)[^\s/:%]*(%d)?[^\s/:%]*")


class OpenTun(NamedTuple):
    """A descriptor of a device. `headers`: packets come and go behind a virtio_net_hdr; `udp`: also merged UDP."""

    descriptor: int
    name: str
    headers: bool
    udp: bool


def open_tun(name: str, *, attach: bool, offload: bool) -> OpenTun:
    """Make a device, or attach to one; see `TunDevice.open`."""
    check_name(name)
    if offload:
        try:
            return _open(name, attach=attach, headers=True)
        except _NoOffload:
            pass
    return _open(name, attach=attach, headers=False)


def leave_plain(descriptor: int) -> None:
    """Before detaching from a device that outlives us: the next user may not know what a super-packet is."""
    try:
        fcntl.ioctl(descriptor, _TUNSETOFFLOAD, 0)
    except OSError:
        pass  # it was deleted, or never knew offload


class _NoOffload(Exception):
    """This kernel has no IFF_VNET_HDR, or takes no offload."""


def _open(name: str, *, attach: bool, headers: bool) -> OpenTun:
    descriptor = _open_clone_device()
    flags = _IFF_TUN | _IFF_NO_PI | (0 if attach else _IFF_TUN_EXCL) | (_IFF_VNET_HDR if headers else 0)
    try:
        reply = fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
        udp = headers and _enable_offload(descriptor)
    except OSError as error:
        os.close(descriptor)
        if headers and error.errno == errno.EINVAL:
            raise _NoOffload from error
        raise _refusal(name, error) from error
    if attach and not headers:
        leave_plain(descriptor)  # an earlier user may have died with offload on
    return OpenTun(descriptor, _IFREQ.unpack(reply)[0].rstrip(b"\0").decode(), headers, udp)


def _enable_offload(descriptor: int) -> bool:
    """Ask for super-packets; returns whether UDP is among them."""
    fcntl.ioctl(descriptor, _TUNSETVNETHDRSZ, struct.pack("i", HEADER_BYTES))
    try:
        fcntl.ioctl(descriptor, _TUNSETOFFLOAD, _TCP_OFFLOADS | _UDP_OFFLOADS)
    except OSError:
        fcntl.ioctl(descriptor, _TUNSETOFFLOAD, _TCP_OFFLOADS)
        return False
    return True


def check_name(name: str) -> None:
    """Refuse what the kernel would not take as an interface name (`dev_valid_name` in net/core/dev.c).

    Raises:
        ConfigurationError: empty, over 15 bytes, `.`, `..`, or with spaces, `/`, `:` or a `%` other than one `%d`.
    """
    if not 0 < len(name.encode()) <= MAX_NAME_BYTES or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a network interface",
            hint=f"use 1 to {MAX_NAME_BYTES} letters, digits, dots, dashes; %d stands for a free number",
        )


def _open_clone_device() -> int:
    try:
        return os.open(TUN_PATH, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except (PermissionError, FileNotFoundError) as error:
        hint = "load the module (modprobe tun); in a container, add --device /dev/net/tun"
        missing = isinstance(error, FileNotFoundError)
        reason = "does not exist" if missing else "may not be opened"
        raise PrivilegeError(f"{TUN_PATH} {reason}", hint=hint if missing else None) from error
    except OSError as error:  # ENODEV, ENXIO: the node is there, the driver is not
        raise PrivilegeError(
            f"{TUN_PATH} does not work: {error.strerror}", hint="the kernel has no TUN driver: modprobe tun"
        ) from error


def _refusal(name: str, error: OSError) -> HostError:
    """What a failed TUNSETIFF means."""
    match error.errno:
        case errno.EPERM | errno.EACCES:
            return PrivilegeError("creating a TUN device needs CAP_NET_ADMIN")
        case errno.ENOTTY | errno.EOPNOTSUPP:
            return PrivilegeError(
                f"{TUN_PATH} is something else than the TUN driver",
                hint="it may be hidden from this container or service",
            )
        case errno.EBUSY:
            return HostError(
                f"the network interface {name} exists or is in use", hint="choose another name, or stop its user"
            )
        case errno.EINVAL:
            return HostError(f"the network interface {name} exists and is no TUN device", hint="choose another name")
        case _:
            return HostError(f"creating the TUN device {name} failed: {error.strerror}")
