"""What is true of a tunnel now, as a value for displays."""

from __future__ import annotations

from dataclasses import dataclass

from masque_client.dataplane.forwarder import Traffic
from masque_client.engine.interface import EngineStatistics
from masque_client.host.dns import DnsConfiguration
from masque_client.http.liveness import LivenessStatistics


@dataclass(frozen=True, slots=True)
class TunnelStatus:
    """What is true now.

    Attributes:
        fallback_reason: why it is HTTP/2 though HTTP/3 was wanted; None when it was not.
        excluded: what the proxy advertises but its rules keep out of the tunnel; direct or blocked as the user decided.
        unsupported_rules: rules that routes cannot express and that are not honoured, in words.
        mtu: of the device.
        path_mtu: outer IP packet that the path to the proxy is known to carry; None over HTTP/2, which does not care.
        dns: what the proxy assigned, as it should be applied to this machine. It is not applied.
        probe_rtt_s: None when no probe came back: then nothing proves that packets flow.
        drops: packets of this session that were not delivered, by reason.
        violations: rules that proxies broke, by clause, since the tunnel was wanted: also those of failed attempts.
    """

    proxy: str
    proxy_address: str
    engine: str
    http_version: int
    fallback_reason: str | None
    interface: str
    addresses: tuple[str, ...]
    routes: tuple[str, ...]
    excluded: tuple[str, ...]
    unsupported_rules: tuple[str, ...]
    dns: DnsConfiguration
    mtu: int
    path_mtu: int | None
    probe_rtt_s: float | None
    traffic: Traffic
    connection: EngineStatistics
    liveness: LivenessStatistics
    drops: dict[str, int]
    violations: dict[str, int]
