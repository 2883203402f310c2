"""A UDP relay between a client and a proxy that behaves like a bad link, from a seed. Not for production.

Like a NAT it has one upstream socket for each client address; `rebind` gives every client a new one, as a NAT that
forgot does. Both directions are `LinkModel`s, shared by all clients as a real link is, and driven by one timer.
The event loop's timer is accurate to a millisecond: delays come out up to that much longer.

    python -m masque_client.testing.relay --listen 127.0.0.1:4433 --to 192.0.2.1:443 --loss 1 --delay 20 --seed 7
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Self

from masque_client.engine.interface import Address, ReceivedBuffer
from masque_client.errors import MasqueError
from masque_client.http.udp_link import UdpLink
from masque_client.netio.udp import UdpSocket
from masque_client.testing.addresses import format_address, parse_address
from masque_client.testing.link import LinkModel, LinkProfile
from masque_client.testing.tcp_relay import TcpRelay

MAX_CLIENTS = 1024


class Relay:
    """The relay. Construct it inside a running event loop, which drives it until `close`.

    Args:
        listen: where clients send; port 0 takes a free one, see `address`.
        to: the proxy.
        outbound: what happens to datagrams from client to proxy.
        inbound: the other way; as `outbound` when None.
        seed: equal seeds and equal sequences of datagrams give equal losses.

    Raises:
        AddressInUse: `listen` is taken.
    """

    def __init__(
        self,
        listen: Address,
        to: Address,
        outbound: LinkProfile | None = None,
        inbound: LinkProfile | None = None,
        *,
        seed: int = 0,
    ) -> None:
        self.outbound: LinkModel[tuple[bytes, Address]] = LinkModel(outbound, seed=f"{seed} outbound")
        self.inbound: LinkModel[tuple[bytes, Address]] = LinkModel(inbound or outbound, seed=f"{seed} inbound")
        self._to = to
        self._loop = asyncio.get_running_loop()
        self._listener = UdpLink(UdpSocket.bound(listen), self._on_client_batch)
        self._upstreams: dict[Address, UdpLink] = {}  # in order of last use, oldest first
        self._timer: asyncio.TimerHandle | None = None

    @property
    def address(self) -> Address:
        """Where clients send."""
        return self._listener.socket.local_address

    def set_profile(self, outbound: LinkProfile, inbound: LinkProfile | None = None) -> None:
        """Change the link from the next datagram on."""
        self.outbound.profile = outbound
        self.inbound.profile = inbound or outbound

    def rebind(self) -> None:
        """Forget all mappings: the proxy sees every client come from a new port, and answers to the old are lost."""
        for upstream in self._upstreams.values():
            upstream.close()
        self._upstreams.clear()

    def statistics(self) -> dict[str, Any]:
        """Counters of both directions, and how many clients are mapped."""
        return {
            "clients": len(self._upstreams),
            "outbound": dataclasses.asdict(self.outbound.counters),
            "inbound": dataclasses.asdict(self.inbound.counters),
        }

    def close(self) -> None:
        """Stop. Datagrams under way are forgotten. May be called twice."""
        if self._timer:
            self._timer.cancel()
        self.rebind()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- client → proxy -------------------------------------------------------------------------------------------

    def _on_client_batch(self, batch: list[ReceivedBuffer]) -> None:
        now = self._loop.time()
        for data, address in _datagrams(batch):
            self.outbound.offer((data, address), len(data), now)
        self._forward()

    def _send_outbound(self, datagrams: Iterable[tuple[bytes, Address]]) -> None:
        by_client: dict[Address, list[tuple[bytes, Address]]] = {}
        for data, client in datagrams:
            by_client.setdefault(client, []).append((data, self._to))
        for client, batch in by_client.items():
            self._upstream(client).send(batch)

    def _upstream(self, client: Address) -> UdpLink:
        upstream = self._upstreams.pop(client, None)
        if upstream is None:
            for oldest in list(islice(self._upstreams, max(0, len(self._upstreams) - MAX_CLIENTS + 1))):
                self._upstreams.pop(oldest).close()
            upstream = UdpLink(UdpSocket.connected(self._to), partial(self._on_upstream_batch, client))
        self._upstreams[client] = upstream
        return upstream

    # --- proxy → client -------------------------------------------------------------------------------------------

    def _on_upstream_batch(self, client: Address, batch: list[ReceivedBuffer]) -> None:
        now = self._loop.time()
        for data, _ in _datagrams(batch):
            self.inbound.offer((data, client), len(data), now)
        self._forward()

    # --- both -----------------------------------------------------------------------------------------------------

    def _forward(self) -> None:
        """Send what is due and set the timer for what is next."""
        now = self._loop.time()
        if outbound := self.outbound.take_due(now):
            self._send_outbound(outbound)
        if inbound := self.inbound.take_due(now):
            self._listener.send(inbound)
        due = [time for model in (self.outbound, self.inbound) if (time := model.next_due()) is not None]
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_at(min(due), self._forward) if due else None


def _datagrams(batch: Iterable[ReceivedBuffer]) -> Iterator[tuple[bytes, Address]]:
    """Take GRO trains apart."""
    for data, size, address in batch:
        for start in range(0, len(data), size):
            yield data[start : start + size], address


# --- command line ---------------------------------------------------------------------------------------------------

_UNITS = {"loss": 0.01, "delay": 0.001, "jitter": 0.001, "reorder": 0.01, "bandwidth": 1e6, "mtu": 1}
_FIELDS = {"delay": "delay_s", "jitter": "jitter_s", "bandwidth": "bandwidth_bit_s"}


def profile_from(options: dict[str, Any]) -> LinkProfile:
    """A profile from the command line's units: percent, milliseconds, Mbit/s, bytes.

    Raises:
        ValueError: a value is out of range or unknown.
    """
    if unknown := options.keys() - _UNITS.keys():
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    given = {name: value for name, value in options.items() if value is not None}
    return LinkProfile(**{_FIELDS.get(name, name): value * _UNITS[name] for name, value in given.items()})


async def _obey(relay: Relay, reader: asyncio.StreamReader) -> None:
    """Read commands, one JSON object a line, until the end of the input; answer each with the counters."""
    while line := await reader.readline():
        try:
            command = json.loads(line)
            if command.pop("rebind", False):
                relay.rebind()
            if command:
                relay.set_profile(profile_from(command))
            answer = relay.statistics()
        except (ValueError, TypeError, AttributeError) as error:
            answer = {"error": str(error)}
        _print_line(answer)


def _print_line(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def _run(options: argparse.Namespace) -> None:
    profile = profile_from({name: getattr(options, name) for name in _UNITS})
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    with Relay(options.listen, options.to, profile, seed=options.seed) as relay:
        tcp = TcpRelay(options.to)
        if options.tcp:
            await tcp.start(relay.address)
        _print_line({"ready": "relay", "pid": os.getpid(), "address": format_address(relay.address)})
        if options.control:
            reader = asyncio.StreamReader()
            pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
            control = asyncio.create_task(_obey(relay, reader))
            await stopped.wait()
            control.cancel()
            pipe.close()
        else:
            await stopped.wait()
        await tcp.close()
        _print_line(relay.statistics())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a relay alone until SIGINT or SIGTERM; JSON on stdout when it is ready and when it ends."""
    parser = argparse.ArgumentParser(description="Lossy, delaying UDP relay for demos and tests. Not for production.")
    parser.add_argument("--listen", type=parse_address, required=True, metavar="ADDR:PORT")
    parser.add_argument("--to", type=parse_address, required=True, metavar="ADDR:PORT")
    parser.add_argument("--loss", type=float, metavar="PERCENT")
    parser.add_argument("--delay", type=float, metavar="MS", help="one way")
    parser.add_argument("--jitter", type=float, metavar="MS")
    parser.add_argument("--reorder", type=float, metavar="PERCENT")
    parser.add_argument("--bandwidth", type=float, metavar="MBIT_S")
    parser.add_argument("--mtu", type=int, metavar="BYTES", help="larger UDP payloads disappear")
    parser.add_argument("--tcp", action="store_true", help="pass TCP on as well, on the same address, unharmed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--control",
        action="store_true",
        help='read commands from stdin, one JSON object a line: {"loss": 5, "delay": 20} or {"rebind": true}',
    )
    options = parser.parse_args(arguments)
    try:
        asyncio.run(_run(options))
    except (MasqueError, OSError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
