"""The TUN device: IP packets of this machine, read and written in batches.

A packet is one layer-3 packet from its version nibble to its last payload byte, nothing before it (IFF_NO_PI), which is
what RFC 9484 §6 carries, with checksums already final (no IFF_VNET_HDR, `masque-core` I-48). The device disappears
with its last descriptor unless someone made it persistent. Addresses, routes and MTU are `host`'s business.

Offload (IFF_VNET_HDR, 64 KiB super-packets) has its seam here: `read_batch` and `write_batch` already speak of
batches, so it changes what happens inside the two methods and nobody else.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from masque_client.errors import ConfigurationError, HostError, PrivilegeError

TUN_PATH: Final = "/dev/net/tun"

MAX_NAME_BYTES: Final = 15
"""IFNAMSIZ less the terminating zero (include/uapi/linux/if.h)."""

MAX_PACKET_BYTES: Final = 65_535

# include/uapi/linux/if_tun.h
_TUNSETIFF: Final = 0x4004_54CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_IFF_TUN_EXCL: Final = 0x8000
_IFREQ: Final = struct.Struct("16sH22x")

_NAME: Final = re.compile(r"(?!\.{1,2}\Z)[^\s/:%]*(%d)?[^\s/:%]*")


@dataclass(slots=True)
class TunCounters:
    """What went through the device. Counters only grow. Read: host → tunnel; written: tunnel → host."""

    packets_read: int = 0
    bytes_read: int = 0
    packets_written: int = 0
    bytes_written: int = 0
    write_drops: int = 0


class TunDevice:
    """One non-blocking queue of one TUN device. Not thread-safe; make it with `open`.

    Attributes:
        name: the interface's name as the kernel gave it.
        counters: see `TunCounters`.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self.counters = TunCounters()
        self._descriptor = descriptor

    @classmethod
    def open(cls, name: str = "masque%d", *, attach: bool = False) -> Self:
        """Create a device in the network namespace of this thread, link down and without addresses.

        Args:
            name: at most 15 bytes; `%d` becomes the first free number.
            attach: allow `name` to be an existing persistent device that nobody has open. Its owner may do so
                without CAP_NET_ADMIN.

        Raises:
            ConfigurationError: the kernel would not take the name.
            PrivilegeError: no CAP_NET_ADMIN, or no /dev/net/tun.
            HostError: the name is taken, or the device is in use or of another kind.
        """
        check_name(name)
        descriptor = _open_clone_device()
        flags = _IFF_TUN | _IFF_NO_PI | (0 if attach else _IFF_TUN_EXCL)
        try:
            reply = fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
        except OSError as error:
            os.close(descriptor)
            raise _refusal(name, error) from error
        return cls(descriptor, _IFREQ.unpack(reply)[0].rstrip(b"\0").decode())

    def read_batch(self, limit: int = 64) -> list[bytes]:
        """Take the packets the host has sent, at most `limit`, in order; empty when there are none.

        Raises:
            HostError: the device was deleted under us; close it.
        """
        packets: list[bytes] = []
        read, descriptor = os.read, self._descriptor
        try:
            for _ in range(limit):
                packets.append(read(descriptor, MAX_PACKET_BYTES))
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno == errno.EBADF:
                raise
            raise HostError(
                f"the TUN device {self.name} is gone: {error.strerror}", hint="something else deleted it; try again"
            ) from error
        self.counters.packets_read += len(packets)
        self.counters.bytes_read += sum(map(len, packets))
        return packets

    def write_batch(self, packets: Sequence[bytes]) -> int:
        """Hand packets to the host, in order; returns how many it took. The others are lost and counted.

        A link that is down refuses them all, and what is no IP packet is refused at any time.
        """
        written = 0
        write, descriptor, counters = os.write, self._descriptor, self.counters
        for packet in packets:
            try:
                counters.bytes_written += write(descriptor, packet)
                written += 1
            except OSError as error:
                if error.errno == errno.EBADF:
                    raise
                counters.write_drops += 1
        counters.packets_written += written
        return written

    def fileno(self) -> int:
        """The descriptor, for readiness callbacks; -1 when closed."""
        return self._descriptor

    def close(self) -> None:
        """Close the descriptor, and with it a device that is not persistent; harmless when repeated."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


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
