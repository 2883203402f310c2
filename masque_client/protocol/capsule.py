"""The Capsule Protocol (RFC 9297 §3): type, length and value, one after another on a request stream.

`CapsuleReader` takes stream bytes as they come, cut anywhere, and gives whole capsules. Unknown types are skipped by
counting, so a capsule of 2^62 bytes costs nothing; known ones are bounded; a DATAGRAM capsule shows its Context ID
before its content is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from masque_client.errors import RemoteProtocolError
from masque_client.protocol.drops import DropReason
from masque_client.protocol.error_codes import H3ErrorCode
from masque_client.protocol.varint import encode_varint, parse_varint


class CapsuleType(IntEnum):
    """The capsules we know: RFC 9297 §3.5, RFC 9484 §4.7."""

    DATAGRAM = 0x00
    ADDRESS_ASSIGN = 0x01
    ADDRESS_REQUEST = 0x02
    ROUTE_ADVERTISEMENT = 0x03


@dataclass(frozen=True, slots=True)
class Capsule:
    """One complete capsule of a known type. For DATAGRAM the value is an HTTP Datagram Payload, Context ID first."""

    type: int
    value: bytes

    def encode(self) -> bytes:
        """The bytes for the stream."""
        return encode_capsule(self.type, self.value)


def encode_capsule(type: int, value: bytes) -> bytes:
    """Encode one capsule, for the content of the request stream after a 2xx."""
    return encode_varint(type) + encode_varint(len(value)) + value


@lru_cache(maxsize=2048)
def datagram_capsule_head(length: int) -> bytes:
    """Type and length of a DATAGRAM capsule; packets come in few sizes."""
    return encode_varint(CapsuleType.DATAGRAM) + encode_varint(length)


class CapsuleReader:
    """Turns one direction of a request stream into capsules.

    Args:
        known: the capsule types to return, each with the largest value in bytes that is accepted. For DATAGRAM the
            limit counts what follows Context ID 0.
        drops: where skipped DATAGRAM capsules are counted.
        skip_long_datagrams: what an over-long DATAGRAM capsule gets: skipped and counted (CONNECT-IP, where it is
            a forwarding matter), or an error (CONNECT-UDP, where RFC 9298 §5 demands to abort the stream).

    After an error the stream is beyond repair and the reader must not be used again.
    """

    def __init__(
        self,
        known: Mapping[int, int],
        *,
        drops: Counter[DropReason] | None = None,
        skip_long_datagrams: bool = False,
    ) -> None:
        self._known = known
        self._drops: Counter[DropReason] = Counter() if drops is None else drops
        self._skip_long_datagrams = skip_long_datagrams
        self._buffer = bytearray()
        self._skip = 0

    def receive_data(self, data: bytes) -> list[Capsule]:
        """Take stream content, cut anywhere; returns the capsules it completed, in order.

        Raises:
            RemoteProtocolError: a known capsule is longer than allowed.
        """
        if self._skip >= len(data):
            self._skip -= len(data)
            return []
        self._buffer += data[self._skip :] if self._skip else data
        self._skip = 0
        capsules: list[Capsule] = []
        start = 0
        while (head := self._parse_head(start)) is not None:
            type, value_start, end, wanted = head
            if not wanted:
                self._skip = max(0, end - len(self._buffer))
            elif end <= len(self._buffer):
                capsules.append(Capsule(type, bytes(self._buffer[value_start:end])))
            else:
                break
            start = end
        del self._buffer[:start]
        return capsules

    def receive_end(self) -> None:
        """The stream ended cleanly. Between capsules that is how a tunnel closes.

        Raises:
            RemoteProtocolError: it ended inside a capsule (RFC 9297 §3.3).
        """
        if self._buffer or self._skip:
            raise RemoteProtocolError("the stream ended inside a capsule", clause="RFC 9297 §3.3")

    def _parse_head(self, start: int) -> tuple[int, int, int, bool] | None:
        """`(type, start of value, end of value, wanted)`, or None when that cannot be told yet."""
        buffer = self._buffer
        if (type_ := parse_varint(buffer, start)) is None or (length := parse_varint(buffer, type_[1])) is None:
            return None
        value_start, end = length[1], length[1] + length[0]
        limit = self._known.get(type_[0])
        if limit is None:
            wanted = False
        elif type_[0] == CapsuleType.DATAGRAM:
            context = parse_varint(buffer[value_start : min(end, value_start + 8)])
            if context is None and len(buffer) < end:
                return None
            wanted = context is None or self._is_datagram_wanted(context[0], length[0] - context[1], limit)
        elif length[0] > limit:
            raise RemoteProtocolError(
                f"a capsule of type 0x{type_[0]:x} has {length[0]} bytes, more than {limit}",
                clause="RFC 9297 §3.2",
                code=H3ErrorCode.H3_EXCESSIVE_LOAD,
            )
        else:
            wanted = True
        return type_[0], value_start, end, wanted

    def _is_datagram_wanted(self, context_id: int, payload_length: int, limit: int) -> bool:
        if context_id != 0:
            self._drops[DropReason.CONTEXT_UNKNOWN] += 1
            return False
        if payload_length <= limit:
            return True
        if self._skip_long_datagrams:
            self._drops[DropReason.TOO_BIG] += 1
            return False
        raise RemoteProtocolError(
            f"a DATAGRAM capsule carries a UDP payload of {payload_length} bytes, more than {limit}",
            clause="RFC 9298 §5",
            code=H3ErrorCode.H3_DATAGRAM_ERROR,
        )
