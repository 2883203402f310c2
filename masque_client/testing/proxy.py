"""A MASQUE proxy for demos and tests. Not for production.

It speaks HTTP/3 and HTTP/2 with CONNECT-UDP (RFC 9298) and CONNECT-IP (RFC 9484), serves its PvD document over HTTPS,
and uses the same engines, sessions and batches as the client, so that it is not the bottleneck. It can be told to
misbehave.

    async with MasqueProxy(configuration) as proxy:     # or: python -m masque_client.testing.proxy --help
        ...
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, Final, Self

from masque_client.engine import create_server_engine, resolve_engine
from masque_client.engine.interface import Address, Engine, EngineConfiguration, EngineName, TlsConfiguration
from masque_client.host.interface import HostConfiguration, HostNetwork
from masque_client.netio.clock import Clock, MonotonicClock
from masque_client.netio.tun import TunDevice
from masque_client.protocol.mtu import DEFAULT_UDP_PAYLOAD, MAX_UDP_PAYLOAD_OVER_IPV4, MIN_UDP_PAYLOAD, inner_max
from masque_client.protocol.quic_invariants import QUIC_VERSION_1, LongHeader
from masque_client.protocol.scope import IpPrefix
from masque_client.protocol.uri_template import DEFAULT_IP_PATH, DEFAULT_UDP_PATH, HTTPS_PORT, IpTemplate, UdpTemplate
from masque_client.testing.address_pool import AddressPool
from masque_client.testing.certificates import Credentials
from masque_client.testing.credentials import Authentication
from masque_client.testing.http2_service import Http2Service
from masque_client.testing.ip_client import NO_NAMES, ClientNames
from masque_client.testing.ip_router import IpRouter
from masque_client.testing.misbehave import Misbehaviour
from masque_client.testing.proxy_requests import RequestServer, Services
from masque_client.testing.pvd_server import PvdBehaviour, PvdServer, pvd_document
from masque_client.testing.quic_listener import QuicListener
from masque_client.testing.udp_target import TargetPolicy

_PADDED_TO_ON_ANY_PATH = frozenset({MIN_UDP_PAYLOAD, 1280})
"""First packets of these sizes tell nothing: the least that RFC 9000 §14.1 allows, and quic-go's constant."""
_ANY_INITIAL: Final = LongHeader(QUIC_VERSION_1, bytes(8), bytes(8), is_initial=True)


_PORT_ATTEMPTS: Final = 16
"""How often a port number that is free for both UDP and TCP is looked for."""


def answer_size(first_payload: int) -> int:
    """UDP payload size, in bytes, of packets to a client whose first one had this: what the path has just carried.

    Not all engines can grow from there, and what carries no inner packet of 1280 bytes carries no IPv6 (RFC 9484 §7.2):
    where the first packet says nothing we start with what fits almost every path.
    """
    if first_payload in _PADDED_TO_ON_ANY_PATH:
        return DEFAULT_UDP_PAYLOAD
    return min(first_payload, MAX_UDP_PAYLOAD_OVER_IPV4)


@dataclass(frozen=True, slots=True)
class ProxyConfiguration:
    """Everything the proxy is told.

    Attributes:
        credentials: certificate and key for `name`.
        listen: UDP addresses for QUIC. The port of the first is that of the templates.
        name: host name of the proxy, in templates and in the PvD document.
        pvd_listen: TCP addresses for the PvD document (HTTP/1.1) and for HTTP/2; empty for none.
        h2_listen: further TCP addresses for both; port 0 stands for that of the templates.
        http2: offer HTTP/2 on the TCP addresses.
        pvd_document: served instead of the one that lists the templates.
        udp_path, ip_path: path and query of the templates; None does not offer the tunnel type.
        pools: one IPv4 and one IPv6 prefix, or one of them, to assign addresses from. The TUN device gets the first
            address of each.
        routes: what CONNECT-IP clients are told of, and CONNECT-UDP clients may reach.
        names: DNS and NAT64 prefixes that CONNECT-IP clients are told of.
        allow: further CONNECT-UDP targets; loopback only works when it is in here.
        tun: name of the TUN device; None for a control plane only, whose packets are discarded.
        offload: see `TunDevice.open`.
        engine, authentication, misbehaviour: see there.
        client_ca: with mutual TLS, who signs client certificates.
        max_udp_payload: of packets to clients; None goes by the client's first packet (`answer_size`).
        secrets_log: the TLS secrets of all connections are appended to this file, so that a dissector can read them.
    """

    credentials: Credentials
    listen: Sequence[Address]
    name: str = "localhost"
    pvd_listen: Sequence[Address] = ()
    h2_listen: Sequence[Address] = ()
    http2: bool = True
    pvd_document: bytes | None = None
    udp_path: str | None = DEFAULT_UDP_PATH
    ip_path: str | None = DEFAULT_IP_PATH
    pools: Sequence[IpPrefix] = ()
    routes: Sequence[IpPrefix] = ()
    names: ClientNames = NO_NAMES
    allow: Sequence[IpPrefix] = ()
    tun: str | None = None
    offload: bool = True
    engine: EngineName = EngineName.AUTO
    authentication: Authentication = field(default_factory=Authentication)
    client_ca: Path | None = None
    misbehaviour: Misbehaviour = field(default_factory=Misbehaviour)
    max_udp_payload: int | None = None
    secrets_log: Path | None = None


class MasqueProxy:
    """The proxy, running inside `async with`. Leaving takes everything down again.

    Args:
        host: configures the TUN device; needed when there is one.
        clock: must agree with the event loop's.

    Raises (from `async with`):
        MasqueError, OSError: an address is taken, a privilege is missing, a file cannot be used. Nothing remains.
    """

    def __init__(
        self, configuration: ProxyConfiguration, host: HostNetwork | None = None, clock: Clock | None = None
    ) -> None:
        if configuration.tun is not None and host is None:
            raise ValueError("a TUN device needs a HostNetwork to configure it")
        self.configuration = configuration
        self.engine = resolve_engine(configuration.engine)
        self.templates: Mapping[str, str] = {}
        self.pvd: PvdServer
        self.http2: Http2Service
        self.listener: QuicListener
        self.tun: TunDevice | None = None
        self._host = host
        self._clock = clock or MonotonicClock()
        self._stack = AsyncExitStack()
        faults = configuration.misbehaviour
        mutual = configuration.authentication.scheme == "mtls"
        self._engine_configuration = EngineConfiguration(
            is_client=False,
            tls=TlsConfiguration(
                ca_file=configuration.client_ca if mutual else None,
                certificate=configuration.credentials.certificate,
                key=configuration.credentials.key,
            ),
            extended_connect=not faults.no_extended_connect,
            h3_datagram=not faults.no_datagram,
        )

    async def __aenter__(self) -> Self:
        self._create_engine(_ANY_INITIAL, MAX_UDP_PAYLOAD_OVER_IPV4)  # a certificate that cannot be used fails here
        attempts = _PORT_ATTEMPTS
        while True:
            attempts -= 1
            try:
                await self._start()
            except BaseException as error:
                await self._stack.aclose()
                if not (attempts and self._port_was_taken_on_tcp(error)):
                    raise
            else:
                return self

    def _port_was_taken_on_tcp(self, error: BaseException) -> bool:
        """Whether another number may do: the kernel chose one that QUIC could have, and HTTP/2 was to have the same."""
        configuration = self.configuration
        free_choice = configuration.listen[0][1] == 0 and any(port == 0 for _, port in configuration.h2_listen)
        return free_choice and isinstance(error, OSError) and error.errno == errno.EADDRINUSE

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def addresses(self) -> list[Address]:
        """Where QUIC is listened for."""
        return self.listener.addresses

    async def _start(self) -> None:
        configuration = self.configuration
        if configuration.secrets_log is not None:
            log = self._stack.enter_context(configuration.secrets_log.open("a", buffering=1))
            self._engine_configuration = replace(self._engine_configuration, secrets_log=log)
        pools: dict[int, AddressPool] = {prefix.version: AddressPool(prefix) for prefix in configuration.pools}
        self._open_tun(pools)
        router = IpRouter(self.tun, self._clock)
        self._stack.callback(router.close)
        requests: RequestServer  # known once the port is; no packet is read before this coroutine yields
        self.listener = QuicListener(
            configuration.listen,
            self._create_engine,
            lambda stream, headers: requests.on_request(stream, headers),
            self._clock,
        )
        self._stack.callback(self.listener.close)
        services = self._services(pools)
        requests = RequestServer(services, router, self._clock)
        self._stack.push_async_callback(requests.close)
        self.http2 = Http2Service(
            self._engine_configuration, lambda stream, headers: requests.on_request(stream, headers), self._clock
        )
        await self._start_tcp(self.http2 if configuration.http2 else None)
        self._stack.callback(self.http2.close)

    def _services(self, pools: Mapping[int, AddressPool]) -> Services:
        configuration = self.configuration
        port = self.addresses[0][1]
        authority = configuration.name if port == HTTPS_PORT else f"{configuration.name}:{port}"
        paths = {"connect-udp": configuration.udp_path, "connect-ip": configuration.ip_path}
        self.templates = {
            protocol: f"https://{authority}{path}" for protocol, path in paths.items() if path is not None
        }
        udp, ip = self.templates.get("connect-udp"), self.templates.get("connect-ip")
        return Services(
            name=configuration.name,
            udp_template=None if udp is None else UdpTemplate.parse(udp),
            ip_template=None if ip is None else IpTemplate.parse(ip),
            policy=TargetPolicy(configuration.routes, configuration.allow),
            routes=configuration.routes,
            pools=pools,
            names=configuration.names,
            authentication=configuration.authentication,
            misbehaviour=configuration.misbehaviour,
        )

    def _create_engine(self, initial: LongHeader, first_payload: int) -> Engine:
        name = self.engine
        if not initial.source_cid and self.configuration.engine is EngineName.AUTO:
            name = EngineName.AIOQUIC  # qh3 2.1 cannot serve clients whose connection id has no bytes (quic-go's)
        size = self.configuration.max_udp_payload or answer_size(first_payload)
        engine_configuration = replace(self._engine_configuration, max_udp_payload=size)
        return create_server_engine(
            name, engine_configuration, original_destination_connection_id=initial.destination_cid
        )

    def _open_tun(self, pools: Mapping[int, AddressPool]) -> None:
        """One device for all clients, the pools routed to it. Sessions answer what is too big for their own path."""
        if self.configuration.tun is None or self._host is None:
            return
        self.tun = TunDevice.open(self.configuration.tun, offload=self.configuration.offload)
        self._stack.callback(self.tun.close)
        self._stack.callback(self._host.close)
        self._stack.callback(self._host.restore)
        self._host.apply(
            HostConfiguration(
                device=self.tun.name,
                mtu=inner_max(self.configuration.max_udp_payload or MAX_UDP_PAYLOAD_OVER_IPV4),
                addresses=tuple(ip_interface(pool.gateway) for pool in pools.values()),
                routes=tuple(pool.prefix for pool in pools.values()),
            )
        )

    async def _start_tcp(self, http2: Http2Service | None) -> None:
        configuration, faults = self.configuration, self.configuration.misbehaviour
        alpn = ["h3"] if http2 is None else ["h3", "h2"]
        proxies: list[dict[str, Any]] = [
            {"protocol": protocol, "proxy": template, "alpn": alpn} for protocol, template in self.templates.items()
        ]
        document = configuration.pvd_document or pvd_document(configuration.name, proxies)
        behaviour = PvdBehaviour(status=faults.pvd_status, body=faults.pvd_body, headers=faults.pvd_headers)
        if faults.pvd_type is not None:
            behaviour = replace(behaviour, content_type=faults.pvd_type)
        self.pvd = PvdServer(document, configuration.credentials, behaviour, http2)
        self._stack.push_async_callback(self.pvd.close)
        default_port = self.addresses[0][1]
        more = [(host, port or default_port) for host, port in configuration.h2_listen]
        await self.pvd.start([*configuration.pvd_listen, *more])


if __name__ == "__main__":
    import sys

    from masque_client.testing.proxy_command import main

    sys.exit(main())
