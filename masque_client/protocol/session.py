"""What every tunnel session is: one extended CONNECT stream from its response to its end (RFC 9297, 9298, 9484).

A session is sans-IO and does not know its stream id. The owner routes the engine's events of that stream into it:

    HeadersReceived   → session.receive_headers(…)    DataReceived  → session.receive_data(…)
    DatagramsReceived → session.receive_datagrams(…)  StreamReset   → session.receive_reset(…)

and afterwards drains `next_event`, then sends `data_to_send` on the stream. What `receive_…` returns are inner payloads
for this machine. Outbound, what `encapsulate` lets pass is sent as HTTP Datagrams with `CONTEXT_ID_0` in front.

    REQUESTED ──2xx / accept()──▶ OPEN ──end, reset, close()──▶ CLOSED
        └────────refusal, end, reset, close()────────────────────▲
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import ClassVar, Final, Generic, NamedTuple, TypeVar

from masque_client.errors import LocalProtocolError, RemoteProtocolError
from masque_client.protocol.capsule import Capsule, CapsuleReader, CapsuleType
from masque_client.protocol.connect import Informational, judge_response
from masque_client.protocol.drops import DropReason
from masque_client.protocol.error_codes import H3ErrorCode, describe
from masque_client.protocol.headers import Header, Headers
from masque_client.protocol.packing import ONE_PER_BUFFER, Packing, Split
from masque_client.protocol.proxy_status import ProxyStatus
from masque_client.protocol.varint import parse_varint

CONTEXT_ID_0: Final = b"\x00"
"""In front of every payload we send: unmodified UDP payloads and whole IP packets (RFC 9298 §5, RFC 9484 §6)."""

MAX_EARLY_DATAGRAMS = 32
MAX_EARLY_BYTES = 64 * 1024
MAX_REFUSAL_BODY = 4096


class Role(Enum):
    """Which end of the tunnel we are."""

    CLIENT = "client"
    PROXY = "proxy"


class SessionState(Enum):
    """Where a session is in its life; see the drawing above."""

    REQUESTED = "requested"
    """The request is out, no final response yet. Arriving datagrams are kept, a bounded number of them."""
    OPEN = "open"
    """Payloads flow both ways."""
    CLOSED = "closed"
    """Nothing flows any more, and nothing will."""


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """Client: the proxy accepted. For CONNECT-UDP its socket is open; whether the target answers is unknown."""

    headers: tuple[Header, ...]
    proxy_status: ProxyStatus | None


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The peer ended the session. `error_code` is None for a clean end; finish or reset our half of the stream."""

    error_code: int | None
    reason: str


class Encapsulated(NamedTuple):
    """The outcome of one outbound batch: what to send to the peer, and ICMP packets to give back to the sender."""

    send: list[bytes]
    replies: list[bytes]


EventT = TypeVar("EventT")


class Session(ABC, Generic[EventT]):
    """Common to `ConnectUdpSession` and `ConnectIpSession`.

    Args:
        further_capsules: like `known_capsules`, for those that only some sessions of the class understand.

    Attributes:
        role: fixed at construction.
        state: see `SessionState`.
        packing: CONNECT-IP: how packets lie in the buffers that `encapsulate` takes and `receive_…` return. Whoever
            moves them between the session and a device says so.
        drops: what was not delivered, by reason, both directions; only grows.
    """

    protocol: ClassVar[str]
    """The upgrade token."""
    known_capsules: ClassVar[Mapping[int, int]]
    """Capsule types understood, with the longest value accepted in bytes."""
    skips_long_datagrams: ClassVar[bool]
    """Whether an over-long DATAGRAM capsule is skipped rather than an error."""

    def __init__(self, role: Role, further_capsules: Mapping[int, int] = MappingProxyType({})) -> None:
        self.role = role
        self.state = SessionState.REQUESTED
        self.packing: Packing = ONE_PER_BUFFER
        self.drops: Counter[DropReason] = Counter()
        self._reader = CapsuleReader(
            {**self.known_capsules, **further_capsules},
            drops=self.drops,
            skip_long_datagrams=self.skips_long_datagrams,
        )
        self._events: deque[EventT | SessionOpened | SessionClosed] = deque()
        self._outgoing = bytearray()
        self._early: list[bytes] = []
        self._early_bytes = 0
        self._is_refused = False
        self._refusal_body = b""

    # input ---------------------------------------------------------------------------------------------------------

    def receive_headers(self, headers: Headers, *, end_stream: bool, now_wall: float | None = None) -> list[bytes]:
        """Client: a response header section. Returns payloads of datagrams that had overtaken a 2xx (RFC 9298 §5).

        `now_wall` (seconds since the epoch) turns a Retry-After date into seconds.

        Raises:
            AuthenticationRefused, ProxyRefused: cancel the stream with H3_REQUEST_CANCELLED; its remaining data may
                still be given to `receive_data`, for `refusal_body`.
            RemoteProtocolError: malformed, or anything after the final response (RFC 9114 §4.4).
        """
        if self.role is Role.PROXY or self.state is not SessionState.REQUESTED:
            self._shut()
            raise RemoteProtocolError(
                "a header section came after the one that opened the tunnel",
                clause="RFC 9114 §4.4",
                code=H3ErrorCode.H3_FRAME_UNEXPECTED,
                connection_error=True,
            )
        try:
            verdict = judge_response(headers, protocol=self.protocol, now_wall=now_wall)
        except Exception:
            self._is_refused = True
            self._shut()
            raise
        if isinstance(verdict, Informational):
            if end_stream:
                self._end("the proxy ended the stream without an answer")
            return []
        self._events.append(SessionOpened(verdict.headers, verdict.proxy_status))
        payloads = self._open()
        if end_stream:
            self._end("the proxy closed the tunnel at once")
        return payloads

    def receive_data(self, data: bytes, *, end_stream: bool) -> list[bytes]:
        """Stream content: capsules. Returns the payloads that came in DATAGRAM capsules (RFC 9297 §3.5).

        Proxy: capsules that overtake our answer are taken too.

        Raises:
            RemoteProtocolError: a malformed capsule, an end inside one, or data before any response.
        """
        if self.state is SessionState.CLOSED:
            if self._is_refused:
                self._refusal_body = (self._refusal_body + data)[:MAX_REFUSAL_BODY]
            return []
        if self.state is SessionState.REQUESTED and self.role is Role.CLIENT:
            return self._receive_unanswered_data(data, end_stream=end_stream)
        try:
            payloads = self._receive_capsules(self._reader.receive_data(data))
            if end_stream:
                self._reader.receive_end()
        except RemoteProtocolError:
            self._shut()
            raise
        if end_stream:
            self._end("the peer closed the tunnel")
        return payloads

    def receive_datagrams(self, datagrams: Sequence[bytes], skip: int = 0) -> list[bytes]:
        """HTTP Datagram Payloads, Context ID first, behind `skip` bytes; returns the inner payloads to deliver.

        Raises:
            RemoteProtocolError: CONNECT-UDP only: a payload over 65,527 bytes (RFC 9298 §5).
        """
        if self.state is SessionState.OPEN:
            return self._decapsulate(datagrams, skip)
        for datagram in datagrams:
            self._keep_early(datagram[skip:])
        return []

    def receive_reset(self, error_code: int) -> None:
        """The peer abandoned the stream."""
        self._end(f"the peer reset the stream with {describe(error_code)}", error_code)

    def receive_stop_sending(self, error_code: int) -> None:
        """The peer reads no more of ours. Before the response this ends nothing: the answer may still come."""
        if self.state is SessionState.OPEN:
            self._end(f"the peer stopped reading with {describe(error_code)}", error_code)

    # commands ------------------------------------------------------------------------------------------------------

    def accept(self) -> list[bytes]:
        """Proxy: our 200 is sent. Returns the payloads that had come before it.

        Raises:
            LocalProtocolError: on the client, or twice.
        """
        if self.role is Role.CLIENT or self.state is not SessionState.REQUESTED:
            raise LocalProtocolError(f"a {self.role.value} session that is {self.state.value} cannot accept")
        return self._open()

    @abstractmethod
    def encapsulate(self, payloads: Sequence[bytes], now: float = 0.0) -> Encapsulated:
        """Check one outbound batch; send the result with `CONTEXT_ID_0` in front. Never raises for a payload.

        `now` (seconds, monotonic) only limits the rate of replies.
        """

    @property
    def split(self) -> Split | None:
        """What cuts the buffers that `encapsulate` let pass into packets, or None: each is one."""
        return None if self.packing is ONE_PER_BUFFER else self.packing.split

    def close(self) -> None:
        """End the session from our side: from now on nothing passes. Then end the stream. Emits no event."""
        self._shut()

    # output --------------------------------------------------------------------------------------------------------

    def next_event(self) -> EventT | SessionOpened | SessionClosed | None:
        """The next thing that happened, or None."""
        return self._events.popleft() if self._events else None

    def data_to_send(self) -> bytes:
        """Capsules queued for the stream, once; empty when there are none."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    @property
    def refusal_body(self) -> bytes:
        """The first bytes of a refusing response's content, at most `MAX_REFUSAL_BODY`. Untrusted."""
        return self._refusal_body

    # for subclasses ------------------------------------------------------------------------------------------------

    @abstractmethod
    def _decapsulate(self, datagrams: Sequence[bytes], skip: int) -> list[bytes]:
        """Strip `skip` bytes and the Context ID, and check; drops are counted."""

    def _receive_capsule(self, capsule: Capsule) -> None:
        """Handle a capsule of `known_capsules` other than DATAGRAM. Whoever adds one there overrides this."""
        raise LocalProtocolError(f"the {self.protocol} session knows no capsule of type {capsule.type}")

    def _strip_context(self, payload: bytes) -> bytes | None:
        """The road less travelled: a Context ID that is not the single byte 0. Counts what it drops."""
        context = parse_varint(payload)
        if context is None:
            self.drops[DropReason.CONTEXT_CUT] += 1
        elif context[0] != 0:
            self.drops[DropReason.CONTEXT_UNKNOWN] += 1
        else:
            return payload[context[1] :]
        return None

    # internals -----------------------------------------------------------------------------------------------------

    def _receive_unanswered_data(self, data: bytes, *, end_stream: bool) -> list[bytes]:
        if data:
            self._shut()
            raise RemoteProtocolError(
                "content came before the response",
                clause="RFC 9114 §4.1",
                code=H3ErrorCode.H3_FRAME_UNEXPECTED,
                connection_error=True,
            )
        if end_stream:
            self._end("the proxy ended the stream without an answer")
        return []

    def _receive_capsules(self, capsules: Sequence[Capsule]) -> list[bytes]:
        datagrams: list[bytes] = []
        for capsule in capsules:
            if capsule.type == CapsuleType.DATAGRAM:
                datagrams.append(capsule.value)
            else:
                self._receive_capsule(capsule)
        return self.receive_datagrams(datagrams)

    def _keep_early(self, payload: bytes) -> None:
        """Hold what overtook the response. The owner's response timeout bounds how long (we have no clock)."""
        if self.state is SessionState.CLOSED:
            self.drops[DropReason.NOT_OPEN] += 1
        elif len(self._early) >= MAX_EARLY_DATAGRAMS or self._early_bytes + len(payload) > MAX_EARLY_BYTES:
            self.drops[DropReason.EARLY_OVERFLOW] += 1
        else:
            self._early.append(payload)
            self._early_bytes += len(payload)

    def _open(self) -> list[bytes]:
        self.state = SessionState.OPEN
        early, self._early = self._early, []
        return self.receive_datagrams(early)

    def _end(self, reason: str, error_code: int | None = None) -> None:
        if self.state is not SessionState.CLOSED:
            self._shut()
            self._events.append(SessionClosed(error_code, reason))

    def _shut(self) -> None:
        self.state = SessionState.CLOSED
        self._early.clear()
