"""What an HTTP carrier is: the one interface that aioquic, qh3 and HTTP/2 hide behind.

An engine is sans-IO: it speaks HTTP upward (headers, stream data, HTTP Datagrams) and has no socket, clock or task of
its own. The caller owns time: every `now` is a float of seconds of one monotonic clock. Upward all engines are alike
(`HttpEngine`); downward an `Engine` (HTTP/3) speaks UDP payloads, and a `StreamEngine` (HTTP/2) the bytes inside TLS.

The loop that drives it, in this order (see `http/connection.py`, the only place that does):

    engine.receive_datagrams(batch, now)  or  engine.handle_timeout(now)  or any send_… command
    while (event := engine.next_event()) is not None: ...
    socket.send_batch(engine.datagrams_to_send(now))
    arm a timer for engine.next_timeout()

With a `StreamEngine` it is `receive_data` and `data_to_send` instead, and nothing else differs.
Everything is batch-shaped: buffers in are whole UDP GRO trains, HTTP Datagrams go in and come out as lists.
Sources: RFC 9000, 9113, 9114, 8441 and 9220 (extended CONNECT), 9221 (DATAGRAM frames), 9297 (HTTP Datagrams).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol, TextIO, runtime_checkable

from masque_client.errors import RemoteProtocolError
from masque_client.protocol.packing import Split
from masque_client.protocol.quic_invariants import QUIC_VERSION_1, QUIC_VERSION_2

Address = tuple[str, int]
"""IP literal and UDP port. IPv6 scope ids are not carried: link-local proxies are not supported."""

Header = tuple[bytes, bytes]
Headers = Sequence[Header]


class EngineName(StrEnum):
    """The QUIC engines. `AUTO` takes qh3 where it can be imported, else aioquic."""

    AIOQUIC = "aioquic"
    QH3 = "qh3"
    AUTO = "auto"


class CongestionControl(StrEnum):
    """How a QUIC engine finds out how fast it may send. `AUTO` is the engine's best; not every engine has every one."""

    AUTO = "auto"
    RENO = "reno"
    CUBIC = "cubic"
    BBR = "bbr"


class ReceivedBuffer(NamedTuple):
    """One `recvmsg`: UDP payloads of `segment_size` bytes each (the last may be shorter), all from `address`."""

    data: bytes
    segment_size: int
    address: Address


class Transmit(NamedTuple):
    """One UDP payload and where it goes."""

    data: bytes
    address: Address


@dataclass(frozen=True, slots=True)
class TlsConfiguration:
    """Whom to trust and who we are.

    Client: the chain is verified against `ca_file` (PEM), or the system's CAs when None, and against the server
    name; `pin` is then checked in addition: the SHA-256 of the leaf's SubjectPublicKeyInfo (RFC 7469 §2.4).
    `certificate` and `key` (PEM files) answer a CertificateRequest: mutual TLS.
    Server (`masque_client.testing`): `certificate` and `key` are required; with `ca_file` set, client
    certificates are demanded and verified against it.
    """

    ca_file: Path | None = None
    pin: bytes | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class EngineConfiguration:
    """All that an engine needs to know before its first packet. Shared by client and server.

    Attributes:
        is_client: which side of the connection we are.
        server_name: client: the proxy's host, for SNI and for the certificate (RFC 9114 §3.2, §3.3).
        tls: see `TlsConfiguration`.
        max_udp_payload: UDP payload size, in bytes, of every full packet, Initials included (`protocol.mtu`).
        idle_timeout_s: what we advertise as max_idle_timeout (RFC 9000 §10.1).
        versions: QUIC versions, best first. A client starts with the first and follows a server to any other without a
            round trip; a server takes the first that the client also has (RFC 9368 §2.3).
        extended_connect: server: advertise SETTINGS_ENABLE_CONNECT_PROTOCOL=1 (RFC 9220 §3).
        h3_datagram: advertise SETTINGS_H3_DATAGRAM=1 and max_datagram_frame_size=65535 (RFC 9297 §2.1.1).
        grease: say what means nothing, too: reserved settings, frames, streams, transport parameters and versions.
        congestion_control: HTTP/3; over HTTP/2 it is the kernel's business.
        datagram_queue_bytes: HTTP Datagrams waiting for the congestion window are bounded by this many bytes…
        datagram_queue_s: …and by this age; older ones are dropped and counted.
        secrets_log: TLS secrets are written here for a packet dissector; never set it outside tests.
    """

    is_client: bool = True
    server_name: str = ""
    tls: TlsConfiguration = field(default_factory=TlsConfiguration)
    max_udp_payload: int = 1350
    idle_timeout_s: float = 30.0
    versions: tuple[int, ...] = (QUIC_VERSION_1, QUIC_VERSION_2)
    extended_connect: bool = True
    h3_datagram: bool = True
    grease: bool = True
    congestion_control: CongestionControl = CongestionControl.AUTO
    datagram_queue_bytes: int = 512 * 1024
    datagram_queue_s: float = 0.05
    secrets_log: TextIO | None = None


# --- events -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HandshakeCompleted:
    """TLS is done and the certificate (and pin) verified. Requests wait for `SettingsReceived`."""

    peer_certificate: bytes | None
    """The peer's leaf certificate in DER, or None (server without client certificates)."""


@dataclass(frozen=True, slots=True)
class SettingsReceived:
    """The peer's SETTINGS arrived (RFC 9114 §7.2.4). From now on `open_request` may succeed."""

    extended_connect: bool
    h3_datagram: bool
    """HTTP Datagrams ride in QUIC DATAGRAM frames: both SETTINGS said so and the transport parameter allows it.

    Always False over HTTP/2, where they ride in DATAGRAM capsules and need no leave (RFC 9297 §3.5).
    """


@dataclass(frozen=True, slots=True)
class HeadersReceived:
    """A header section, 1xx responses and trailers included. `protocol.connect` judges it."""

    stream_id: int
    headers: tuple[Header, ...]
    end_stream: bool


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Bytes of the stream's DATA frames: capsules after a 2xx, else content. `data` may be empty with `end_stream`."""

    stream_id: int
    data: bytes
    end_stream: bool


@dataclass(slots=True)  # a frozen one takes several times as long to make
class DatagramsReceived:
    """HTTP Datagrams of one stream, in order of arrival; never empty.

    They come as they lie in their packets, to be cut but once: the HTTP Datagram Payload (Context ID first) is what
    follows the first `skip` bytes.
    """

    stream_id: int
    datagrams: list[bytes]
    skip: int = 0

    @property
    def payloads(self) -> list[bytes]:
        """The HTTP Datagram Payloads, for whoever has time."""
        return [datagram[self.skip :] for datagram in self.datagrams]


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The peer abandoned its sending half (RESET_STREAM). DATAGRAMs for the stream are no longer delivered.

    With an `error` it was us, on both halves: the peer had broken the rule that it names.
    """

    stream_id: int
    error_code: int
    error: RemoteProtocolError | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class StopSendingReceived:
    """The peer will not read more of ours; the engine has answered with RESET_STREAM (RFC 9114 §4.1, H-31)."""

    stream_id: int
    error_code: int


@dataclass(frozen=True, slots=True)
class GoAwayReceived:
    """No requests from `stream_id` on are processed (RFC 9114 §5.2)."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class ProbeAcknowledged:
    """A packet of `size` bytes of UDP payload, sent by `Engine.send_probe`, has arrived: the path carries that much."""

    size: int


@dataclass(frozen=True, slots=True)
class ConnectionIdIssued:
    """Server: packets with this Destination Connection ID are ours."""

    connection_id: bytes


@dataclass(frozen=True, slots=True)
class ConnectionIdRetired:
    """Server: forget this Connection ID."""

    connection_id: bytes


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """The connection is over; no further events. `error` is what a caller should raise, or None for a clean close."""

    error_code: int
    reason: str
    is_application: bool
    error: Exception | None


Event = (
    HandshakeCompleted
    | SettingsReceived
    | HeadersReceived
    | DataReceived
    | DatagramsReceived
    | StreamReset
    | StopSendingReceived
    | GoAwayReceived
    | ProbeAcknowledged
    | ConnectionIdIssued
    | ConnectionIdRetired
    | ConnectionClosed
)


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """A snapshot. Counters only grow.

    `rtt_s` is the smoothed round-trip time, None before the first sample. `max_udp_payload` is the UDP payload size
    packets are built for now. `datagrams_too_large`, `datagrams_expired` and `datagrams_stray` count HTTP Datagrams
    refused for size, dropped from our queue by age, and received for no stream of ours.

    `quic_version` is the version in use; before the handshake, the one tried.

    Over HTTP/2 packets are TCP's own business: `packets_sent`, `packets_lost`, `max_udp_payload` and
    `quic_version` are 0,
    `congestion_window` is the connection's flow-control window and `bytes_in_flight` what waits for it.
    """

    rtt_s: float | None
    packets_sent: int
    packets_lost: int
    congestion_window: int
    bytes_in_flight: int
    max_udp_payload: int
    datagrams_too_large: int
    datagrams_expired: int
    datagrams_stray: int
    quic_version: int = 0


class HttpEngine(Protocol):
    """One HTTP connection, client or server side. Not thread-safe; one owner drives it (see the module docstring).

    Error codes are HTTP/3's (`protocol.error_codes`) on every carrier.
    """

    @property
    def name(self) -> str:
        """Which library does the work, for status displays."""

    # input ---------------------------------------------------------------------------------------------------------

    def connect(self, address: Address, now: float) -> None:
        """Start: client of an `Engine`, the handshake; both sides of a `StreamEngine`, the connection preface."""

    def handle_timeout(self, now: float) -> None:
        """Call when `next_timeout` has passed. Then as after input."""

    # commands ------------------------------------------------------------------------------------------------------

    def open_request(self, headers: Headers) -> int:
        """Client: send an extended CONNECT without ending the stream; returns the stream id (RFC 9220 §3).

        Raises:
            LocalProtocolError: SETTINGS have not arrived or do not allow it (RFC 8441 §3), or GOAWAY was received.
        """

    def send_headers(self, stream_id: int, headers: Headers, *, end_stream: bool = False) -> None:
        """Server: answer a request."""

    def send_data(self, stream_id: int, data: bytes, *, end_stream: bool = False) -> None:
        """Send stream content (capsules). Silently does nothing when our sending half is already closed."""

    def send_datagrams(
        self,
        stream_id: int,
        payloads: Sequence[bytes],
        now: float,
        *,
        prefix: bytes = b"",
        split: Split | None = None,
    ) -> int:
        """Queue HTTP Datagrams, each `prefix + payload` (the prefix is the Context ID, framed once per batch).

        With `split` each of `payloads` is a buffer of several, which it cuts and puts behind what precedes them.

        A payload over `datagram_capacity` is counted and skipped; it never blocks the rest. Returns how many of
        `payloads`, from the front, were dealt with: fewer than given means the queue is full, and the caller should
        stop reading its source until `is_datagram_queue_full` is False again.
        Nothing is sent, and all are dealt with, when the stream's sending half is closed (RFC 9297 §2.1).
        """

    def datagram_capacity(self, stream_id: int) -> int:
        """Largest HTTP Datagram Payload, Context ID included, that can be sent now; 0 for none.

        HTTP/3: what fits one QUIC packet. In capsules, over HTTP/2 and with a peer that takes no QUIC datagrams: any
        UDP payload, because they know no path MTU.
        """

    @property
    def is_datagram_queue_full(self) -> bool:
        """True while congestion or flow control holds back `datagram_queue_bytes` of HTTP Datagrams."""

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """Abandon both halves: RESET_STREAM and STOP_SENDING (RFC 9114 §4.1.1). Harmless when already closed."""

    def ping(self) -> None:
        """Send a PING; keeps NAT bindings and the idle timer alive (RFC 9000 §10.1.2)."""

    def close(self, error_code: int = 0x100, reason: str = "") -> None:
        """Close the connection with an application error (default H3_NO_ERROR). Then send what there is."""

    # output --------------------------------------------------------------------------------------------------------

    def next_event(self) -> Event | None:
        """The next thing that happened, or None."""

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout`, or None. May change after any other call."""

    def statistics(self) -> EngineStatistics:
        """A snapshot for status displays."""


class Engine(HttpEngine, Protocol):
    """HTTP/3 over UDP payloads."""

    def receive_datagrams(self, batch: Sequence[ReceivedBuffer], now: float) -> None:
        """Take UDP payloads from the socket. Then drain `next_event`, then `datagrams_to_send`."""

    def datagrams_to_send(self, now: float) -> Sequence[tuple[bytes, Address]]:
        """Sealed UDP payloads (`Transmit`-shaped pairs), as many as congestion control and pacing allow at `now`."""

    # path MTU ------------------------------------------------------------------------------------------------------

    @property
    def max_udp_payload_ceiling(self) -> int:
        """Largest UDP payload size, in bytes, that `set_max_udp_payload` can still reach, and `send_probe` can try."""

    def set_max_udp_payload(self, size: int) -> None:
        """Build packets of at most `size` bytes from now on; within `MIN_UDP_PAYLOAD` and `max_udp_payload_ceiling`.

        `datagram_capacity` follows at once; datagrams queued before that no longer fit are dropped and counted as too
        large. Nothing happens before the handshake is complete, or after the end.
        """

    def send_probe(self, size: int, now: float) -> bool:
        """Put one packet of exactly `size` bytes before everything else (RFC 9000 §14.4); then `datagrams_to_send`.

        `ProbeAcknowledged` says that it arrived; silence says nothing. Its loss is no sign of congestion.
        False when it cannot be sent now: no handshake yet, too large, or the engine needs an open tunnel for it.
        """


@runtime_checkable
class StreamEngine(HttpEngine, Protocol):
    """HTTP/2 over the bytes inside a TLS connection that is already up, verified and agreed on `h2`."""

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the peer, empty at their end. Then drain `next_event`, then `data_to_send`."""

    def data_to_send(self, now: float) -> bytes:
        """Bytes for the peer, as many as flow control allows; none from streams while sending is paused."""

    def pause_sending(self) -> None:
        """The byte stream takes no more for now: HTTP Datagrams stay in the engine's bounded queue."""

    def resume_sending(self) -> None:
        """It does again. Then `data_to_send`."""
