"""The test proxy's requests: judged, answered, served to their end.

`RequestServer.on_request` is what a `HttpConnection` calls. The order of judgement: form, credentials, protocol, path,
scope; then, in a task of the request's own, name resolution; only then the answer (RFC 9298 §3.1, RFC 9484 §4.6).
Capsules and datagrams that come before the answer are kept by the session.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Never

from masque_client.engine.interface import Headers
from masque_client.errors import ConfigurationError, MasqueError, RemoteProtocolError
from masque_client.http.request_stream import RequestStream, StreamHandler
from masque_client.http.stream import SessionStream
from masque_client.netio.clock import Clock
from masque_client.protocol.connect import (
    CONNECT_IP,
    CONNECT_UDP,
    ConnectRequest,
    accept_headers,
    parse_connect_request,
    refuse_headers,
)
from masque_client.protocol.headers import Header
from masque_client.protocol.ip_session import ConnectIpSession
from masque_client.protocol.scope import IpPrefix, IpScope, UdpTarget
from masque_client.protocol.session import EventT, Role
from masque_client.protocol.udp_session import ConnectUdpSession
from masque_client.protocol.uri_template import IpTemplate, UdpTemplate
from masque_client.testing.address_pool import AddressPool
from masque_client.testing.credentials import Authentication
from masque_client.testing.floods import NO_FLOOD, pour
from masque_client.testing.ip_client import NO_NAMES, ClientNames, IpClient, IpTunnel, routes_in_scope
from masque_client.testing.ip_router import IpRouter
from masque_client.testing.misbehave import FaultyStream, Misbehaviour
from masque_client.testing.udp_target import TargetPolicy, TargetRefused, UdpTargetFlow

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """What the proxy offers. A template that is None is a tunnel type that is not offered.

    Attributes:
        name: of the proxy, for Proxy-Status.
        routes: prefixes that CONNECT-IP clients are told of.
        pools: addresses for them, by IP version.
        names: what they are told of DNS and NAT64.
    """

    name: str
    udp_template: UdpTemplate | None
    ip_template: IpTemplate | None
    policy: TargetPolicy
    routes: Sequence[IpPrefix] = ()
    pools: Mapping[int, AddressPool] = field(default_factory=dict)
    names: ClientNames = NO_NAMES
    authentication: Authentication = field(default_factory=Authentication)
    misbehaviour: Misbehaviour = field(default_factory=Misbehaviour)


class RequestServer:
    """Serves the requests of all connections. `close` ends every tunnel."""

    def __init__(self, services: Services, router: IpRouter, clock: Clock) -> None:
        self._services = services
        self._misbehaviour = services.misbehaviour
        self._stream_class = FaultyStream if FaultyStream.wanted(services.misbehaviour) else SessionStream
        self._router = router
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    def on_request(self, stream: RequestStream, headers: Headers) -> StreamHandler:
        """A new request stream; see `HttpConnection`. Its headers come again, to the handler."""
        return _FirstHeaders(self, stream)

    async def close(self) -> None:
        """End all tunnels and wait until their sockets and addresses are free."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- judgement --------------------------------------------------------------------------------------------------

    def judge(self, stream: RequestStream, headers: Headers) -> None:
        """Answer at once with a refusal, or start to serve."""
        faults = self._misbehaviour
        if faults.silent:
            return
        if faults.informational is not None:
            stream.send_headers([(b":status", str(faults.informational).encode())])
        if dict(headers).get(b":method") != b"CONNECT":
            self._answer_no(stream, 405, [(b"allow", b"CONNECT")])  # the PvD document is served over HTTP/1.1
            return
        try:
            request = parse_connect_request(headers)
        except RemoteProtocolError as error:
            logger.info("malformed request: %s", error)
            stream.reset(error.code)
            return
        if faults.refuse is not None:
            self._answer_no(stream, faults.refuse, faults.refuse_headers)
        elif not self._services.authentication.accepts(request.fields):
            authentication = self._services.authentication
            self._answer_no(stream, authentication.status, [authentication.challenge()])
        else:
            self._dispatch(stream, request)

    def _dispatch(self, stream: RequestStream, request: ConnectRequest) -> None:
        services = self._services
        offered = {CONNECT_UDP: services.udp_template, CONNECT_IP: services.ip_template}
        template = offered.get(request.protocol)
        if template is None:
            self._answer_no(stream, 501)
            return
        values = template.match(request.path)
        if values is None:
            self._answer_no(stream, 404)
            return
        try:
            if request.protocol == CONNECT_UDP:
                target = UdpTarget.parse(values.get("target_host", ""), values.get("target_port", ""))
                self._start(self._serve_udp(self._new_udp_tunnel(stream), target))
            else:
                scope = IpScope.parse(values.get("target"), values.get("ipproto"))
                self._start(self._serve_ip(*self._new_ip_tunnel(stream), scope))
        except ConfigurationError as error:
            self._refuse(stream, TargetRefused(str(error), status=400, error="http_request_error"))

    def _start(self, service: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(service)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- refusals ---------------------------------------------------------------------------------------------------

    def _refuse(self, stream: RequestStream, error: TargetRefused) -> None:
        """Say why in Proxy-Status (RFC 9209 §2)."""
        details = str(error).replace("\\", "").replace('"', "'").encode("ascii", "replace").decode()
        status = f'"{self._services.name}";error={error.error};details="{details}"'
        self._answer_no(stream, error.status, [(b"proxy-status", status.encode())])

    def _answer_no(self, stream: RequestStream, status: int, fields: Sequence[Header] = ()) -> None:
        logger.info("refused a request with %d", status)
        stream.send_headers(refuse_headers(status, fields), end_stream=True)
        stream.forget()
        stream.connection.flush()

    # --- CONNECT-UDP ------------------------------------------------------------------------------------------------

    def _new_udp_tunnel(self, stream: RequestStream) -> SessionStream[Never]:
        tunnel: SessionStream[Never] = self._stream_class(
            ConnectUdpSession(Role.PROXY), on_payloads=lambda payloads: None, on_event=lambda event: None
        )
        return self._take_over(tunnel, stream)

    async def _serve_udp(self, tunnel: SessionStream[Never], target: UdpTarget) -> None:
        try:
            address = (await self._services.policy.resolve(target.host))[0]
            flow = UdpTargetFlow((str(address), target.port), tunnel)
        except TargetRefused as error:
            self._refuse_tunnel(tunnel, error)
            return
        except MasqueError as error:
            self._refuse_tunnel(tunnel, TargetRefused(str(error), status=502, error="destination_ip_unroutable"))
            return
        try:
            if not tunnel.is_closed:
                flow.start()
                self._accept(tunnel)
                await tunnel.wait_closed()
        finally:
            flow.close()
            tunnel.close()

    # --- CONNECT-IP -------------------------------------------------------------------------------------------------

    def _new_ip_tunnel(self, stream: RequestStream) -> tuple[IpTunnel, IpClient]:
        session = ConnectIpSession(Role.PROXY)
        session.packing = self._router.packing
        client = IpClient(session, self._services.pools, self._router, self._misbehaviour, self._services.names)
        tunnel: IpTunnel = self._stream_class(session, on_payloads=self._router.deliver, on_event=client.on_event)
        tunnel.on_writable_again = lambda: self._router.resume(tunnel)
        return self._take_over(tunnel, stream), client

    async def _serve_ip(self, tunnel: IpTunnel, client: IpClient, scope: IpScope) -> None:
        try:
            routes = await routes_in_scope(scope, self._services.routes, self._services.policy)
        except TargetRefused as error:
            self._refuse_tunnel(tunnel, error)
            return
        try:
            if not tunnel.is_closed:
                self._accept(tunnel)
                client.start(tunnel, routes)
                await tunnel.wait_closed()
        finally:
            client.close()
            tunnel.close()

    # --- both -------------------------------------------------------------------------------------------------------

    def _take_over(self, tunnel: SessionStream[EventT], stream: RequestStream) -> SessionStream[EventT]:
        """From now on the tunnel hears what happens on the stream; before it is accepted the session keeps it."""
        if isinstance(tunnel, FaultyStream):
            tunnel.misbehaviour = self._misbehaviour
        tunnel.stream = stream
        stream.connection.handlers[stream.stream_id] = tunnel
        return tunnel

    def _refuse_tunnel(self, tunnel: SessionStream[Any], error: TargetRefused) -> None:
        if tunnel.stream is not None and not tunnel.is_closed:
            tunnel.session.close()
            self._refuse(tunnel.stream, error)

    def _accept(self, tunnel: SessionStream[Any]) -> None:
        """Send the 2xx, then whatever `misbehaviour` puts behind it."""
        stream, faults = tunnel.stream, self._misbehaviour
        assert stream is not None
        _, *fields = accept_headers(faults.accept_headers)
        stream.send_headers([(b":status", str(faults.accept_status).encode()), *fields])
        early = tunnel.session.accept()
        is_flooded = faults.flood != NO_FLOOD
        if faults.capsules or faults.end:
            stream.send_data(faults.capsules, end_stream=faults.end and not is_flooded)
        tunnel.attach(stream)
        if early:
            tunnel.on_payloads(early)
        tunnel.flush()
        if is_flooded:
            self._start(pour(faults.flood, stream, end_stream=faults.end))
        if faults.reset is not None:
            stream.reset(faults.reset)
            tunnel.flush()
        if faults.close_after_s is not None:
            asyncio.get_running_loop().call_later(faults.close_after_s, stream.connection.close)


class _FirstHeaders:
    """The handler of a stream nothing is known of yet: it hears the request, and ignores everything else."""

    def __init__(self, server: RequestServer, stream: RequestStream) -> None:
        self._server = server
        self._stream = stream

    def on_headers(self, headers: Headers, *, end_stream: bool) -> None:
        self._server.judge(self._stream, headers)

    def on_data(self, data: bytes, *, end_stream: bool) -> None:
        pass

    def on_datagrams(self, datagrams: list[bytes], skip: int) -> None:
        pass

    def on_reset(self, error_code: int, error: RemoteProtocolError | None) -> None:
        self._stream.reset(error_code)

    def on_stop_sending(self, error_code: int) -> None:
        pass

    def on_writable(self) -> None:
        pass

    def on_connection_closed(self, error: MasqueError) -> None:
        pass
