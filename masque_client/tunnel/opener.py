"""Opens carriers: reaches proxies, and asks them for the tunnel, as the user's options say."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from masque_client.engine.interface import Address, Headers
from masque_client.errors import MasqueError, ProxyRefused
from masque_client.host.interface import DEFAULT_FWMARK
from masque_client.http.connector import ConnectOptions, ProxyConnection, connect
from masque_client.http.service_records import query_marked_with
from masque_client.netio.clock import Clock
from masque_client.netio.resolver import resolve_past_tunnels
from masque_client.protocol.connect import ip_request_headers
from masque_client.protocol.mtu import MIN_IPV6_MTU
from masque_client.protocol.uri_template import IpTemplate, RequestTarget
from masque_client.pvd.names import HostPort
from masque_client.pvd.proxies import PvdProxy
from masque_client.tunnel.carrier import Carrier
from masque_client.tunnel.failover import use_first
from masque_client.tunnel.options import AddressRequestMode, TunnelOptions

logger = logging.getLogger(__name__)

_NOT_FOUND = (400, 404)
"""How a proxy answers that does not recognize a request target as one of its own."""

OnFailure = Callable[[PvdProxy, MasqueError], None]


class Opener:
    """One tunnel's.

    Attributes:
        dial: how its proxies are reached.
    """

    def __init__(self, options: TunnelOptions, clock: Clock) -> None:
        self.dial = ConnectOptions(
            engine=options.engine,
            congestion_control=options.congestion_control,
            tls=options.tls,
            mark=DEFAULT_FWMARK,
            http=options.http,
            min_packet=MIN_IPV6_MTU,
            memory=options.memory,
            certificate_origin=options.authenticator.origin,
            grease=options.grease is not False,
            resolve=resolve_past_tunnels(DEFAULT_FWMARK),
            query_https=query_marked_with(DEFAULT_FWMARK),
        )
        self._options = options
        self._clock = clock

    async def open_first(
        self,
        candidates: Iterable[PvdProxy],
        on_failure: OnFailure,
        *,
        timeout_s: float | None = None,
        known: Mapping[HostPort, Address] = MappingProxyType({}),
    ) -> Carrier:
        """An open session with the first candidate that does (`tunnel.failover`); addresses are still to come.

        Args:
            candidates: best first.
            on_failure: told of each that does not do.
            timeout_s: for reaching one; None for the usual time.
            known: where proxies were before, for when their names do not resolve.

        Raises:
            MasqueError: nobody did.
        """
        dial = self.dial if timeout_s is None else replace(self.dial, timeout_s=timeout_s)

        async def reach(proxy: PvdProxy) -> ProxyConnection:
            return await connect(
                proxy.authority.host,
                proxy.authority.port,
                replace(dial, known_address=known.get(proxy.authority)),
                self._clock,
            )

        return await use_first(
            candidates,
            reach,
            self.open_on,
            release=ProxyConnection.close,
            policy=self._options.failover,
            on_failure=on_failure,
        )

    async def open_first_with_addresses(self, candidates: Iterable[PvdProxy], on_failure: OnFailure) -> Carrier:
        """As `open_first`, and the proxy has assigned addresses.

        Some proxies end a tunnel because they are asked for them: they get a second one, and are not asked (digest
        I-30).
        """
        carrier = await self.open_first(candidates, on_failure)
        try:
            try:
                await carrier.wait_addresses(self._options.address_request)
            except MasqueError as error:
                if not carrier.has_died_of_asking(error):
                    raise
                logger.info("%s ended the tunnel when it was asked for addresses: %s", carrier.template.host, error)
                carrier.close()
                carrier = await self.open_first(candidates, on_failure)
                await carrier.wait_addresses(AddressRequestMode.NEVER)
        except BaseException:
            carrier.close()
            raise
        return carrier

    async def open_on(self, proxy: PvdProxy, connection: ProxyConnection) -> Carrier:
        """Ask a proxy that is connected for the tunnel; a session that was refused is not used again.

        Raises:
            MasqueError: the session did not come about. `connection` stays the caller's.
        """
        template = proxy.proxy
        assert isinstance(template, IpTemplate)

        async def ask(target: RequestTarget, fields: Headers) -> Carrier:
            carrier = Carrier(proxy, connection, grease=bool(self._options.grease))
            await carrier.stream.open(connection.http, ip_request_headers(target, fields))
            return carrier

        async def send(fields: Headers) -> Carrier:
            usual, strict = template.expand(), template.expand(escape_wildcard=True)
            try:
                return await ask(usual, fields)
            except ProxyRefused as error:
                if error.status not in _NOT_FOUND or strict == usual:
                    raise
            return await ask(strict, fields)  # the wildcard is the one thing that is written in two ways (digest T-12)

        return await self._options.authenticator.request((proxy.authority.host, proxy.authority.port), send)
