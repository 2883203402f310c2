"""wireguard-go: how a pair of them is configured, over its UAPI socket (the cross-platform interface of WireGuard).

set=1
private_key=…             hex
…                         an empty line ends it; errno=0 answers
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from masque_client.errors import MasqueError

_SOCKETS = Path("/var/run/wireguard")
_POLL_S = 0.002


class WireGuardFailed(MasqueError):
    """wireguard-go did not start, or refused its configuration."""

    default_hint = "the last lines of every process's log are above"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Curve25519 keys in hex."""

    private: str
    public: str

    @classmethod
    def generate(cls) -> KeyPair:
        """A new one."""
        key = X25519PrivateKey.generate()
        raw = serialization.Encoding.Raw
        private = key.private_bytes(raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
        public = key.public_key().public_bytes(raw, serialization.PublicFormat.Raw)
        return cls(private.hex(), public.hex())


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end: its key, what is reached through it, and, on the side that calls, where it listens."""

    public_key: str
    allowed: tuple[str, ...]
    endpoint: str | None = None


def configuration(private_key: str, peer: Peer, listen_port: int | None = None) -> str:
    """The request that sets a device up with one peer."""
    lines = ["set=1", f"private_key={private_key}"]
    lines += [f"listen_port={listen_port}"] if listen_port else []
    lines += ["replace_peers=true", f"public_key={peer.public_key}"]
    lines += [f"endpoint={peer.endpoint}"] if peer.endpoint else []
    lines += [f"allowed_ip={prefix}" for prefix in peer.allowed]
    return "\n".join(lines) + "\n\n"


def configure(interface: str, request: str, *, timeout_s: float = 5.0) -> None:
    """Wait for the device's socket and send it a request. The socket is found by the file system, not the namespace.

    Raises:
        WireGuardFailed: there is none within `timeout_s`, or the request was refused.
    """
    deadline = time.monotonic() + timeout_s
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(timeout_s)
        while True:
            try:
                control.connect(str(_SOCKETS / f"{interface}.sock"))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > deadline:
                    raise WireGuardFailed(f"wireguard-go opened no socket for {interface}") from None
                time.sleep(_POLL_S)
        control.sendall(request.encode())
        answer = b""
        while not answer.endswith(b"\n\n") and (data := control.recv(4096)):
            answer += data
    if answer.split() != [b"errno=0"]:
        raise WireGuardFailed(f"wireguard-go refused the configuration of {interface}: {answer.decode().strip()}")
