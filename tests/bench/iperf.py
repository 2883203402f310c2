"""TCP throughput by iperf3: its command lines and its JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from masque_client.errors import MasqueError

PORT = 5201
SERVER = ("iperf3", "--server", "--one-off", "--logfile", "/dev/null")
"""For one transfer: between two, a lasting server refuses connections for a moment."""
Direction = Literal["up", "down"]


class IperfFailed(MasqueError):
    """iperf3 reported an error instead of a result, or something that is no result."""

    default_hint = "is the tunnel up, and does the server still run?"


@dataclass(frozen=True, slots=True)
class TcpResult:
    """What arrived at the receiver: `bytes` of payload in `seconds`; and what the sender sent again, in segments."""

    bytes: int
    seconds: float
    retransmits: int

    @property
    def gbit_s(self) -> float:
        """10^9 bits/s."""
        return self.bytes * 8 / 1e9 / self.seconds


def client_command(address: str, direction: Direction, *, streams: int, seconds: int) -> tuple[str, ...]:
    """Send to (`up`) or receive from (`down`) the server at `address`. Whole seconds only; 0 would be for ever."""
    command = ("iperf3", "--json", "--client", address, "--port", str(PORT), "--time", str(seconds))
    return (*command, "--parallel", str(streams), *(("--reverse",) if direction == "down" else ()))


def parse_result(output: str) -> TcpResult:
    """What a run came to.

    Raises:
        IperfFailed: with iperf3's own words where it has some.
    """
    try:
        document = json.loads(output)
        if "error" in document:
            raise IperfFailed(f"iperf3: {document['error']}")
        sent, received = document["end"]["sum_sent"], document["end"]["sum_received"]
        result = TcpResult(int(received["bytes"]), float(received["seconds"]), int(sent["retransmits"]))
    except (ValueError, KeyError, TypeError) as error:
        raise IperfFailed(f"iperf3 printed no result: {output[:200]!r}") from error
    if not result.bytes or not result.seconds:
        raise IperfFailed("iperf3 transferred nothing")
    return result
