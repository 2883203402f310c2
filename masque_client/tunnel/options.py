"""What a tunnel is asked to be. Frozen; made by the command line or a profile, read by the manager."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from masque_client.engine.interface import EngineName, Headers, TlsConfiguration
from masque_client.protocol.uri_template import IpTemplate


class AddressRequestMode(StrEnum):
    """When to ask for addresses (digest I-30): a request ends the tunnel on some proxies, so `AUTO` waits a moment."""

    AUTO = "auto"
    IMMEDIATE = "immediate"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class TunnelOptions:
    """One CONNECT-IP tunnel.

    Attributes:
        templates: the proxies to try, best first (`tunnel.proxies.ip_proxies`).
        engine, tls: see `EngineConfiguration`.
        headers: extra request header fields, such as authorization. Never logged.
        interface: name of the TUN device; `%d` is replaced by the kernel.
        address_request: see `AddressRequestMode`.
    """

    templates: tuple[IpTemplate, ...]
    engine: EngineName = EngineName.AUTO
    tls: TlsConfiguration = field(default_factory=TlsConfiguration)
    headers: Headers = ()
    interface: str = "masque%d"
    address_request: AddressRequestMode = AddressRequestMode.AUTO
