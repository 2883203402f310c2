"""quinn with hyperium's h3 (QUIC and HTTP/3 in Rust, TLS by rustls): a proxy and a client of ours on them.

h3 0.0.8 parses no other `:protocol` than `connect-udp` and `webtransport`, so CONNECT-IP cannot be had from it. The
program is in rust/quinn-peer.
"""

from __future__ import annotations

from typing import Final

from tests.interop.model import Protocol
from tests.interop.peer import ClientTask, Launch, Peer, ProxyTask
from tests.interop.rust_programs import RustProgram, authorization

PROGRAM: Final = RustProgram("quinn-peer", needs=("cc",))


class Quinn(Peer):
    """Its first packets are of 1350 bytes and grow to what the path carries."""

    name = "quinn"
    version = "0.11.12 with h3 0.0.8"
    stack = "Rust, quinn"
    proxies = clients = frozenset({Protocol.UDP})

    def build(self) -> None:
        PROGRAM.build()

    def proxy(self, task: ProxyTask) -> Launch:
        return Launch(
            (
                *(str(PROGRAM.build()), "proxy", "--listen", task.listen),
                *("--certificate", str(task.certificate), "--key", str(task.key)),
                *authorization(task.basic),
            )
        )

    def client(self, task: ClientTask) -> Launch:
        return Launch(
            (
                *(str(PROGRAM.build()), "client", "--template", task.template, "--ca", str(task.ca)),
                *("--forward", task.local, "--target", task.target, *authorization(task.basic)),
            )
        )


PEERS = (Quinn(),)
