"""What a tunnel is asked to be. Frozen; made by the command line or a profile, read by the manager."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

from masque_client.engine.interface import CongestionControl, EngineName, TlsConfiguration
from masque_client.http.authentication import Authenticator
from masque_client.http.connector import HttpVersion
from masque_client.http.network_memory import MemoryFile
from masque_client.tunnel.dns import DnsFromProxy
from masque_client.tunnel.failover import Failover
from masque_client.tunnel.proxies import ProxyChoice
from masque_client.tunnel.route_policy import Unmatched


class AddressRequestMode(StrEnum):
    """When to ask for addresses (digest I-30): a request ends the tunnel on some proxies, so `AUTO` waits a moment."""

    AUTO = "auto"
    IMMEDIATE = "immediate"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class TunnelOptions:
    """One CONNECT-IP tunnel.

    Attributes:
        proxies: the ones to try, best first, and the rules for what they may carry (`tunnel.proxies.ip_proxies`).
        engine, congestion_control, tls: see `EngineConfiguration`.
        http: see `HttpVersion`.
        authenticator: the user's request header fields, and credentials. Never logged.
        grease: None: connections say what means nothing (`EngineConfiguration`); True: sessions, too; False: neither.
        patience_s: how long to wait, in total, for a proxy that says when to come back (`tunnel.patience`).
        give_up_after_s: how long a tunnel that was up may be down; None for ever, and 0 ends it when it is lost.
        refresh_proxies: asked for newer `proxies` while the tunnel is down; None where they cannot change.
        interface: name of the TUN device; `%d` is replaced by the kernel.
        offload: see `TunDevice.open`.
        address_request: see `AddressRequestMode`.
        failover: after which failures the next proxy is tried.
        unmatched: for addresses that the proxy advertises but the rules keep out of the tunnel.
        dns_from_proxy: how far the proxy is trusted with names.
        memory: what worked on this network before; None remembers nothing.
        strict_rules: a rule that routes cannot express fails the tunnel, instead of being reported in its status.
    """

    proxies: ProxyChoice
    engine: EngineName = EngineName.AUTO
    congestion_control: CongestionControl = CongestionControl.AUTO
    tls: TlsConfiguration = field(default_factory=TlsConfiguration)
    http: HttpVersion = HttpVersion.AUTO
    authenticator: Authenticator = field(default_factory=Authenticator)
    grease: bool | None = None
    patience_s: float = 0.0
    give_up_after_s: float | None = None
    refresh_proxies: Callable[[], Awaitable[ProxyChoice]] | None = None
    interface: str = "masque%d"
    offload: bool = True
    address_request: AddressRequestMode = AddressRequestMode.AUTO
    failover: Failover = Failover.UNAVAILABLE
    unmatched: Unmatched = Unmatched.BLOCK
    dns_from_proxy: DnsFromProxy = DnsFromProxy.SPLIT
    memory: MemoryFile | None = None
    strict_rules: bool = False
