"""What is true of a tunnel now, as a value for displays."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from masque_client.dataplane.forwarder import Traffic
from masque_client.engine.interface import EngineStatistics
from masque_client.host.dns import DnsConfiguration
from masque_client.http.liveness import LivenessStatistics
from masque_client.tunnel.reconnect import Outage


class TunnelState(StrEnum):
    """A promise about the user's traffic."""

    CONNECTED = "connected"
    """What the tunnel is for goes through it; where the proxy answers probes, one has come back."""
    RECONNECTING = "reconnecting"
    """What the tunnel is for goes nowhere: device, addresses and routes are in place, and packets are dropped."""


@dataclass(frozen=True, slots=True)
class TunnelStatus:
    """What is true now. While it reconnects, what is said of proxy and connection is about those that were lost.

    Attributes:
        outage: while it reconnects, why, and how far that is; else None.
        reconnects: how often it has come back.
        down_s: how long it was down the last time; None when it never was.
        fallback_reason: why it is HTTP/2 though HTTP/3 was wanted; None when it was not.
        offload: how packets cross the TUN device: merged by the `compiled` kernel, or one by one (`off`).
        excluded: what the proxy advertises but its rules keep out of the tunnel; direct or blocked as the user decided.
        unsupported_rules: rules that routes cannot express and that are not honoured, in words.
        mtu: of the device.
        path_mtu: outer IP packet that the path to the proxy is known to carry; None over HTTP/2, which does not care.
        dns: what the proxy assigned, as it should be applied to this machine. It is not applied.
        probe_rtt_s: None when no probe came back: then nothing proves that packets flow.
        full_ipv6: whether pings of 1280 bytes came back when the tunnel was built; None when that was not asked.
        drops: packets that were not delivered since the tunnel is up, by reason.
        violations: rules that proxies broke, by clause, since the tunnel was wanted: also those of failed attempts.
    """

    state: TunnelState
    outage: Outage | None
    reconnects: int
    down_s: float | None
    proxy: str
    proxy_address: str
    engine: str
    http_version: int
    fallback_reason: str | None
    interface: str
    offload: str
    addresses: tuple[str, ...]
    routes: tuple[str, ...]
    excluded: tuple[str, ...]
    unsupported_rules: tuple[str, ...]
    dns: DnsConfiguration
    mtu: int
    path_mtu: int | None
    probe_rtt_s: float | None
    full_ipv6: bool | None
    traffic: Traffic
    connection: EngineStatistics
    liveness: LivenessStatistics
    drops: dict[str, int]
    violations: dict[str, int]
