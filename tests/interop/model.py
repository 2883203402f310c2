"""The words of the matrix: what is asked, of whom, and what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Protocol(StrEnum):
    """What is tunnelled."""

    IP = "connect-ip"
    UDP = "connect-udp"


class Role(StrEnum):
    """The part that the foreign program plays; ours plays the other."""

    PROXY = "proxy"
    CLIENT = "client"


class Feature(StrEnum):
    """What one cell asks. The order is that of the table."""

    HANDSHAKE = "handshake"
    """The tunnel opens: `up` or `udp` says it is ready; with CONNECT-IP, addresses of both families are assigned."""
    ECHO = "echo"
    """CONNECT-IP: pings are answered. CONNECT-UDP: datagrams of 0 to 1200 bytes come back unchanged."""
    UPLOAD = "upload"
    """20 MB to an origin behind the proxy, SHA-256 equal."""
    DOWNLOAD = "download"
    """20 MB from there."""
    IPV6 = "ipv6"
    """Ping or echo, and 2 MB each way, to an IPv6 target inside."""
    MTU = "mtu"
    """A packet of the tunnel's MTU passes, one byte more is refused with the right MTU; inbound the same by PTB."""
    RESTART = "restart"
    """The proxy is killed and started again: packets flow again, with the same command or after one clean failure."""
    AUTH = "auth refused"
    """The proxy demands credentials that the client has not: a refusal that scripts can tell (ours: exit code 5)."""
    NOT_FOUND = "not found"
    """The proxy knows no such path: ours ends with exit code 8."""


class Status(StrEnum):
    """What came of a cell."""

    OK = "ok"
    DEVIATION = "deviation"
    """It failed in the way that a known deviation of the peer explains."""
    FAIL = "fail"
    """Unexplained; or a deviation is listed and it passed: then the list is out of date."""
    SKIPPED = "skipped"
    """Not asked; the detail says why."""


class CellFailed(Exception):
    """A check did not find what it must."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """A cell that is known to fail, and whose fault that is.

    Attributes:
        role, protocol, feature: the cell. A handshake that is known to fail takes all later cells with it.
        symptom: must occur in what the check reports; another failure of the cell stays a failure.
        fault: who does what, as a sentence for the table.
        clause: what it offends, such as `RFC 9484 §4.7.3`, or what leaves it free to do so.
        engine: with this engine of ours alone; None: with all.
    """

    role: Role
    protocol: Protocol
    feature: Feature
    symptom: str
    fault: str
    clause: str
    engine: str | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """One finished cell of the matrix.

    Attributes:
        detail: measured facts, the failure, or the reason.
        log: of a failure, the last lines of all processes' logs.
    """

    peer: str
    role: Role
    protocol: Protocol
    engine: str
    feature: Feature
    status: Status
    detail: str = ""
    seconds: float = 0.0
    log: Sequence[str] = ()
