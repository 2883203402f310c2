"""A DNS responder with a handful of fixed names, and a query that measures its round trip. UDP only, for demos.

`query` is what the demo sends through a CONNECT-UDP tunnel: one real question, one real answer, one rtt.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from masque_client.engine.interface import Address
from masque_client.errors import ConnectError, TimedOut

Records = Mapping[str, Mapping[str, Sequence[str]]]
"""Name → record type → values in presentation form."""

ORIGIN_NAME = "origin.masque.test"
"""The name that the test origin answers for."""


def origin_records(addresses: Sequence[str]) -> Records:
    """Records that name the test origin: the first address of each family, and a TXT to recognise it by."""
    families = {
        "A": [text for text in addresses if ":" not in text],
        "AAAA": [text for text in addresses if ":" in text],
    }
    records = {record_type: values[:1] for record_type, values in families.items()}
    return {ORIGIN_NAME: {**records, "TXT": ['"hello from the masque-connect test origin"']}}


DEFAULT_RECORDS = origin_records(["192.0.2.80", "2001:db8::80"])
TTL_S = 60
MAX_QUERY_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `values` are in presentation form and empty when the name has no record of that type."""

    name: str
    type: str
    rcode: str
    values: tuple[str, ...]
    rtt_s: float

    @property
    def rtt_ms(self) -> float:
        """The round trip in milliseconds."""
        return self.rtt_s * 1000


class DnsResponder:
    """Answers authoritatively for its names, NXDOMAIN for others. Use as a context manager.

    Args:
        listen: UDP addresses; port 0 takes a free one, see `addresses`.
        records: the names it knows.

    Raises:
        OSError: an address cannot be bound.
    """

    def __init__(self, listen: Sequence[Address], records: Records = DEFAULT_RECORDS) -> None:
        self._records = {dns.name.from_text(name): types for name, types in records.items()}
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        try:
            for address in listen:
                family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
                self._sockets.append(socket.socket(family, socket.SOCK_DGRAM))
                self._sockets[-1].bind(address)
        except OSError:
            self.close()
            raise

    @property
    def addresses(self) -> list[Address]:
        """Where it is bound, in the order given."""
        return [bound.getsockname()[:2] for bound in self._sockets]

    def start(self) -> None:
        """Answer, in one thread for each address, until `close`. Harmless when repeated."""
        for bound in self._sockets[len(self._threads) :]:
            thread = threading.Thread(target=self._serve, args=(bound,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stop answering. May be called twice."""
        for bound in self._sockets:
            with contextlib.suppress(OSError):  # ENOTCONN: it wakes the reader all the same
                bound.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for bound in self._sockets:
            bound.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def respond(self, wire: bytes) -> bytes | None:
        """The answer to one query, or None for what is not a query (never answer an answer: it would loop)."""
        try:
            question = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        if question.flags & dns.flags.QR or len(question.question) != 1:
            return None
        asked = question.question[0]
        response = dns.message.make_response(question)
        response.flags |= dns.flags.AA
        types = self._records.get(asked.name)
        if types is None or asked.rdclass != dns.rdataclass.IN:
            response.set_rcode(dns.rcode.NXDOMAIN)
        else:
            type_name = dns.rdatatype.to_text(asked.rdtype)
            if values := types.get(type_name):
                response.answer.append(dns.rrset.from_text_list(asked.name, TTL_S, "IN", type_name, values))
        return response.to_wire(want_shuffle=False)  # dnspython shuffles otherwise; we are deterministic

    def _serve(self, bound: socket.socket) -> None:
        while True:
            try:
                wire, sender = bound.recvfrom(MAX_QUERY_BYTES)
            except OSError:
                return
            if not wire and not sender:
                return  # woken by shutdown
            if response := self.respond(wire):
                with contextlib.suppress(OSError):
                    bound.sendto(response, sender)


def query(server: Address, name: str, record_type: str = "A", *, timeout_s: float = 3.0) -> Answer:
    """Ask once over UDP, without retransmission, and wait for the answer. Blocks.

    Raises:
        TimedOut: no answer within `timeout_s`.
        ConnectError: the socket failed, or what came back is no answer to this question.
    """
    question = dns.message.make_query(name, record_type)
    started = time.perf_counter()
    try:
        response = dns.query.udp(question, server[0], timeout=timeout_s, port=server[1])
    except dns.exception.Timeout as error:
        raise TimedOut(f"no DNS answer from {server[0]} within {timeout_s:g} s") from error
    except (OSError, dns.exception.DNSException) as error:
        raise ConnectError(f"DNS query to {server[0]} failed: {error}") from error
    rtt_s = time.perf_counter() - started
    values = tuple(str(record) for rrset in response.answer for record in rrset)
    return Answer(name, record_type, dns.rcode.to_text(response.rcode()), values, rtt_s)
