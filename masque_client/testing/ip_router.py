"""The far side of CONNECT-IP in the test proxy: one TUN device, shared by all clients.

    TUN → client   read a batch → group by destination → encapsulate → queue → flush once per client
    client → TUN   what the session lets pass is written; the kernel routes, forwards and answers

The kernel must forward (`net.ipv4.ip_forward`, `net.ipv6.conf.all.forwarding`): this program does not switch it on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from masque_client.http.stream import SessionStream
from masque_client.netio.clock import Clock
from masque_client.netio.packing import TunPort
from masque_client.netio.tun import TunDevice
from masque_client.protocol.ip_session import ConnectIpSession
from masque_client.protocol.packing import ONE_PER_BUFFER, Packing

TUN_BATCH: Final = 128
"""As the client's forwarder."""

Client = SessionStream[Any]


class IpRouter:
    """Moves packets between the TUN device and the clients whose addresses were `attach`ed.

    While one client's datagram queue is full, reading stops for all: a known wart, bounded by the age at which engines
    drop what waits (50 ms), and the backpressure that keeps one client's TCP from overrunning its tunnel.

    Args:
        tun: configured and up; None discards every packet and counts it, for control-plane tests without privilege.
    """

    def __init__(self, tun: TunDevice | None, clock: Clock) -> None:
        self.undeliverable = 0
        self._tun = None if tun is None else TunPort(tun)
        self._clock = clock
        self._clients: dict[bytes, Client] = {}
        self._waiting: dict[Client, list[bytes]] = {}
        self._loop = asyncio.get_running_loop()
        if tun is not None:
            self._loop.add_reader(tun.fileno(), self._on_tun_readable)

    @property
    def packing(self) -> Packing:
        """How the packets given to `deliver` must lie in their buffers; a client's session packs like this."""
        return ONE_PER_BUFFER if self._tun is None else self._tun.packing

    def attach(self, addresses: Iterable[bytes], client: Client) -> None:
        """Send packets for these packed addresses, and no others, to `client`."""
        others = {address: other for address, other in self._clients.items() if other is not client}
        self._clients = others | dict.fromkeys(addresses, client)

    def detach(self, client: Client) -> None:
        """The client is gone."""
        self._clients = {address: other for address, other in self._clients.items() if other is not client}
        if self._waiting.pop(client, None) is not None and not self._waiting:
            self._read(True)

    def close(self) -> None:
        """Stop reading; the device stays open, and its owner's. Idempotent."""
        if self._tun is not None and self._tun.fileno() >= 0:
            self._loop.remove_reader(self._tun.fileno())

    # --- TUN → client -----------------------------------------------------------------------------------------------

    def _on_tun_readable(self) -> None:
        assert self._tun is not None
        by_client: dict[Client, list[bytes]] = {}
        find, packing = self._clients.get, self._tun.packing
        start = packing.head
        for buffer in self._tun.read(TUN_BATCH):
            is_ipv4 = buffer[start] >> 4 == 4
            client = find(buffer[start + 16 : start + 20] if is_ipv4 else buffer[start + 24 : start + 40])
            if client is None:
                self.undeliverable += packing.measure([buffer])[0]
            elif client in by_client:
                by_client[client].append(buffer)
            else:
                by_client[client] = [buffer]
        for client, buffers in by_client.items():
            session = client.session
            assert isinstance(session, ConnectIpSession)
            session.max_packet = client.max_payload  # the path may have changed
            outcome = session.encapsulate(buffers, self._clock.now())
            if outcome.replies:
                self._tun.write_packets(outcome.replies)
            self._send(client, outcome.send)

    def _send(self, client: Client, buffers: list[bytes]) -> None:
        if not buffers:
            return
        taken = client.send_payloads(buffers)
        if taken < len(buffers):
            if not self._waiting:
                self._read(False)
            self._waiting[client] = buffers[taken:]
        client.flush()

    def resume(self, client: Client) -> None:
        """The client's datagram queue has room again."""
        if (waiting := self._waiting.pop(client, None)) is None:
            return
        self._send(client, waiting)
        if not self._waiting:
            self._read(True)

    def _read(self, wanted: bool) -> None:
        if self._tun is None or self._tun.fileno() < 0:
            return
        if wanted:
            self._loop.add_reader(self._tun.fileno(), self._on_tun_readable)
        else:
            self._loop.remove_reader(self._tun.fileno())

    # --- client → TUN -----------------------------------------------------------------------------------------------

    def deliver(self, buffers: list[bytes]) -> None:
        """Hand a client's packets to the kernel."""
        if self._tun is None:
            self.undeliverable += len(buffers)
        else:
            self._tun.write(buffers)
            if not self._waiting:
                self._on_tun_readable()  # what was answered at once need not wait for another turn
