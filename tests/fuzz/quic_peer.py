"""A proxy that may send anything, properly protected: what no outsider could do to a client, and any proxy can.

The peer is always aioquic's connection below an engine of ours, opened up by `tests.unit.engine.raw`; the client is the
engine under test.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from aioquic.quic.packet import QuicPacketType, encode_long_header_first_byte
from aioquic.tls import Epoch

from masque_client.engine.interface import EngineConfiguration, EngineName, TlsConfiguration
from masque_client.protocol.varint import encode_varint
from masque_client.testing.certificates import CertificateAuthority
from tests.sim.link import Conditions, Pair

PROXY = "proxy.example"
INITIAL, HANDSHAKE, ONE_RTT = Epoch.INITIAL, Epoch.HANDSHAKE, Epoch.ONE_RTT
_PACKET_TYPES = {INITIAL: QuicPacketType.INITIAL, HANDSHAKE: QuicPacketType.HANDSHAKE}


@cache
def _configurations() -> tuple[EngineConfiguration, EngineConfiguration]:
    """Of client and server. The directory of the certificates lives as long as the process."""
    directory = tempfile.TemporaryDirectory()
    _configurations.directory = directory  # type: ignore[attr-defined]
    authority = CertificateAuthority.create(Path(directory.name))
    leaf = authority.issue([PROXY])
    return (
        EngineConfiguration(server_name=PROXY, tls=TlsConfiguration(ca_file=authority.ca_file)),
        EngineConfiguration(is_client=False, tls=TlsConfiguration(certificate=leaf.certificate, key=leaf.key)),
    )


def make_pair(engine: str, **client: Any) -> Pair:
    """A client of this engine and an aioquic server, a millisecond apart, not yet connected.

    `client` changes fields of its configuration.
    """
    configuration, server = _configurations()
    return Pair(
        (EngineName(engine), replace(configuration, **client)), (EngineName.AIOQUIC, server), Conditions(delay_s=0.001)
    )


def seal(quic: Any, epoch: Epoch, frames: bytes) -> bytes | None:
    """A packet of the server with these frames, however wrong; None when it has no keys for `epoch`."""
    crypto = quic._cryptos.get(epoch)
    if crypto is None or not crypto.send.is_valid():
        return None
    number, quic._packet_number = quic._packet_number, quic._packet_number + 1
    packet_number = (number & 0xFFFF).to_bytes(2)
    payload = frames.ljust(4, b"\0")
    peer_cid = quic._peer_cid.cid
    if epoch is ONE_RTT:
        header = bytes((0x41 | crypto.key_phase << 2,)) + peer_cid
    else:
        first = encode_long_header_first_byte(quic._version, _PACKET_TYPES[epoch], 1)
        header = b"".join(
            (
                bytes((first,)),
                quic._version.to_bytes(4),
                len(peer_cid).to_bytes(1) + peer_cid,
                len(quic.host_cid).to_bytes(1) + quic.host_cid,
                b"\0" if epoch is INITIAL else b"",
                (0x4000 | (len(payload) + 2 + 16)).to_bytes(2),
            )
        )
    return bytes(crypto.encrypt_packet(header + packet_number, payload, number))


def crypto_frame(offset: int, data: bytes) -> bytes:
    """A CRYPTO frame (RFC 9000 §19.6)."""
    return b"\x06" + encode_varint(offset) + encode_varint(len(data)) + data


def mutated(data: bytes, offset: int, noise: bytes) -> bytes:
    """`data` with `noise` XORed over it from `offset` on; without noise, cut there."""
    offset %= len(data) or 1
    if not noise:
        return data[:offset]
    changed = bytes(a ^ b for a, b in zip(data[offset:], noise, strict=False))
    return data[:offset] + changed + data[offset + len(changed) :]
