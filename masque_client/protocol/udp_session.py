"""CONNECT-UDP (RFC 9298): one tunnel to one UDP host and port. Inner payloads are UDP payloads, without headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Never

from masque_client.errors import RemoteProtocolError
from masque_client.protocol.capsule import CapsuleType
from masque_client.protocol.connect import CONNECT_UDP
from masque_client.protocol.drops import DropReason
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.session import CONTEXT_ID_0, Encapsulated, Session, SessionState

MAX_PAYLOAD: Final = 65527
"""Largest UDP payload there is (RFC 9298 §5). Zero is the smallest, and legal."""


class ConnectUdpSession(Session[Never]):
    """See `Session` for how to drive it. There are no events and capsules of its own."""

    protocol = CONNECT_UDP
    known_capsules: ClassVar[Mapping[int, int]] = {CapsuleType.DATAGRAM: MAX_PAYLOAD}
    skips_long_datagrams = False

    def encapsulate(self, payloads: Sequence[bytes], now: float = 0.0) -> Encapsulated:
        """Let every UDP payload pass that can be one; there are never replies."""
        if self.state is not SessionState.OPEN:
            self.drops[DropReason.NOT_OPEN] += len(payloads)
            return Encapsulated([], [])
        send = [payload for payload in payloads if len(payload) <= MAX_PAYLOAD]
        if len(send) < len(payloads):
            self.drops[DropReason.TOO_BIG] += len(payloads) - len(send)
        return Encapsulated(send, [])

    def _decapsulate(self, datagrams: Sequence[bytes], skip: int) -> list[bytes]:
        inner: list[bytes] = []
        start = skip + len(CONTEXT_ID_0)
        for datagram in datagrams:
            if datagram.startswith(CONTEXT_ID_0, skip):
                content = datagram[start:]
            elif (stripped := self._strip_context(datagram[skip:])) is not None:
                content = stripped
            else:
                continue
            if len(content) > MAX_PAYLOAD:
                self._shut()
                raise RemoteProtocolError(
                    f"a UDP payload of {len(content)} bytes is more than {MAX_PAYLOAD}",
                    clause="RFC 9298 §5",
                    code=H3ErrorCode.H3_DATAGRAM_ERROR,
                )
            inner.append(content)
        return inner
