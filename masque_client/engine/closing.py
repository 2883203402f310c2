"""Why a connection ended, as the error a caller should raise (RFC 9000 §10, §20; RFC 9001 §4.8; RFC 9114 §8)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from masque_client.engine.trust import explain_refusal
from masque_client.errors import ConnectError, ConnectionLost, MasqueError, ProxyRefused, RemoteProtocolError, TlsError
from masque_client.protocol.error_codes import H3ErrorCode, describe

CRYPTO_ERROR = 0x100
"""Transport error 0x100 + TLS alert (RFC 9000 §20.1)."""
CRYPTO_FRAME = 0x06
NO_COMMON_VERSION = "Could not find a common protocol version"
"""How both libraries word it; they have no code of their own for it."""

BAD_CERTIFICATE = 42
UNKNOWN_CA = 48
CERTIFICATE_REQUIRED = 116
NO_APPLICATION_PROTOCOL = 120
_CERTIFICATE_ALERTS = frozenset({42, 43, 44, 45, 46, 48, 49, 113, 116})
"""Bad, unsupported, revoked, expired, unknown certificate; unknown CA; access denied; bad OCSP; required."""

_TRANSPORT_ERRORS = (
    "NO_ERROR",
    "INTERNAL_ERROR",
    "CONNECTION_REFUSED",
    "FLOW_CONTROL_ERROR",
    "STREAM_LIMIT_ERROR",
    "STREAM_STATE_ERROR",
    "FINAL_SIZE_ERROR",
    "FRAME_ENCODING_ERROR",
    "TRANSPORT_PARAMETER_ERROR",
    "CONNECTION_ID_LIMIT_ERROR",
    "PROTOCOL_VIOLATION",
    "INVALID_TOKEN",
    "APPLICATION_ERROR",
    "CRYPTO_BUFFER_EXCEEDED",
    "KEY_UPDATE_ERROR",
    "AEAD_LIMIT_REACHED",
    "NO_VIABLE_PATH",
    "VERSION_NEGOTIATION_ERROR",
)
_CONNECTION_REFUSED = 0x02


class Origin(Enum):
    """Who ended the connection."""

    PEER = auto()
    LOCAL = auto()
    IDLE = auto()
    """Nobody: it fell silent."""
    VERSIONS = auto()
    """Nobody: a Version Negotiation packet listed no version of ours (RFC 9000 §6.2)."""


@dataclass(frozen=True, slots=True)
class Closing:
    """How a library says that its connection ended. `frame_type` is None for an application close."""

    origin: Origin
    error_code: int
    frame_type: int | None
    reason: str

    @property
    def is_application(self) -> bool:
        """CONNECTION_CLOSE of type 0x1d, whose code is HTTP/3's."""
        return self.frame_type is None and self.origin in (Origin.PEER, Origin.LOCAL)


def explain(
    closing: Closing, *, peer: str, is_client: bool, is_established: bool, certificate: bytes | None
) -> MasqueError | None:
    """The error to hand to callers, or None for a clean goodbye.

    Args:
        closing: what the library reported.
        peer: the other end's name, for messages.
        is_client: which side we are.
        is_established: the handshake had completed.
        certificate: the peer's leaf, DER, if one arrived.
    """
    if closing.origin is Origin.IDLE:
        if is_established:
            return ConnectionLost(f"nothing has been heard from {peer} for the idle timeout")
        return ConnectError(f"{peer} does not answer over UDP")
    if closing.origin is Origin.VERSIONS:
        return ProxyRefused(f"{peer} speaks no version of QUIC that we do", hint="try HTTP/2: --http 2")
    if closing.is_application:
        return _explain_application(closing, peer)
    if 0 <= closing.error_code - CRYPTO_ERROR <= 0xFF:
        return _explain_alert(closing, peer, is_client=is_client, certificate=certificate)
    return _explain_transport(closing, peer, is_established=is_established)


def _explain_application(closing: Closing, peer: str) -> MasqueError | None:
    if closing.origin is Origin.LOCAL:
        return RemoteProtocolError(
            closing.reason or "an HTTP/3 rule was broken",
            clause=_clause_of(closing.error_code),
            code=closing.error_code,
            connection_error=True,
        )
    if closing.error_code == H3ErrorCode.H3_NO_ERROR:
        return None
    return ConnectionLost(f"{peer} closed the connection: {describe(closing.error_code)}{_because(closing)}")


def _clause_of(error_code: int) -> str:
    """The libraries say which error it is, not which rule: the clause that defines the error is as near as we get."""
    table = "RFC 9204 §6" if error_code >= H3ErrorCode.QPACK_DECOMPRESSION_FAILED else "RFC 9114 §8.1"
    return f"{table} {describe(error_code)}"


def _explain_alert(closing: Closing, peer: str, *, is_client: bool, certificate: bytes | None) -> MasqueError:
    alert = closing.error_code - CRYPTO_ERROR
    # qh3 words a failed ALPN negotiation as a handshake_failure, contrary to RFC 9001 §8.1.
    if alert == NO_APPLICATION_PROTOCOL or "ALPN" in closing.reason:
        return ProxyRefused(
            f"{peer} is not an HTTP/3 server", hint="check the port; the proxy must speak HTTP/3 (ALPN h3) over UDP"
        )
    if alert not in _CERTIFICATE_ALERTS:
        return TlsError(f"the TLS handshake with {peer} failed with alert {alert}{_because(closing)}")
    if closing.origin is Origin.LOCAL:
        if is_client:
            return explain_refusal(certificate, peer, closing.reason)
        return TlsError(f"{peer} gave no acceptable client certificate{_because(closing)}")
    if not is_client:
        return TlsError(f"{peer} does not accept our certificate{_because(closing)}")
    if alert == CERTIFICATE_REQUIRED:
        return TlsError(f"{peer} demands a client certificate", hint="give one with --cert and --key")
    return TlsError(
        f"{peer} does not accept our client certificate{_because(closing)}",
        hint="give a certificate that the proxy's operator issued to you, with --cert and --key",
    )


def _explain_transport(closing: Closing, peer: str, *, is_established: bool) -> MasqueError | None:
    code = closing.error_code
    name = _TRANSPORT_ERRORS[code] if code < len(_TRANSPORT_ERRORS) else f"0x{code:x}"
    if closing.origin is Origin.LOCAL:
        return RemoteProtocolError(
            closing.reason or name, clause=f"RFC 9000 §20.1 {name}", code=code, connection_error=True
        )
    if not is_established:
        if code == _CONNECTION_REFUSED:
            return ConnectError(f"{peer} refuses connections at the moment{_because(closing)}")
        return ConnectError(f"{peer} ended the handshake with {name}{_because(closing)}")
    return ConnectionLost(f"{peer} closed the connection: {name}{_because(closing)}")


def _because(closing: Closing) -> str:
    printable = "".join(character for character in closing.reason if character.isprintable())[:200]
    return f" ({printable})" if printable else ""
