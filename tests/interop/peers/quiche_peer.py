"""quiche (Cloudflare's QUIC and HTTP/3 in Rust, BoringSSL): a proxy and a client of ours on its API (rust/quiche-peer).

Of its own kind in that it assigns addresses only when asked to, answers the first Initial with a Retry, sizes its TUN
device by what its QUIC packets carry, and says nothing to a client of a connection that it does not know.
"""

from __future__ import annotations

from typing import Final

from tests.interop.model import Protocol
from tests.interop.peer import ClientTask, Launch, Peer, ProxyTask
from tests.interop.rust_programs import RustProgram, authorization

PROGRAM: Final = RustProgram("quiche-peer", needs=("cmake", "cc", "c++"), needs_libclang=True)


class Quiche(Peer):
    """`mtu` of the tasks is not used: see the module."""

    name = "quiche"
    version = "0.30.0"
    stack = "Rust, quiche"
    proxies = clients = frozenset({Protocol.IP, Protocol.UDP})

    def build(self) -> None:
        PROGRAM.build()

    def proxy(self, task: ProxyTask) -> Launch:
        pools = (part for pool in task.pools for part in ("--pool6" if ":" in pool else "--pool4", pool))
        routes = (part for route in task.routes for part in ("--route", route))
        return Launch(
            (
                *(str(PROGRAM.build()), "proxy", "--listen", task.listen, "--retry"),
                *("--certificate", str(task.certificate), "--key", str(task.key)),
                *(("--tun", "quiche0", *pools, *routes) if task.protocol is Protocol.IP else ()),
                *authorization(task.basic),
            )
        )

    def client(self, task: ClientTask) -> Launch:
        inside = ("--tun", "quiche0") if task.protocol is Protocol.IP else ("--forward", task.local)
        return Launch(
            (
                *(str(PROGRAM.build()), "client", "--template", task.template, "--ca", str(task.ca)),
                *(*inside, "--target", task.target, *authorization(task.basic)),
            )
        )


PEERS = (Quiche(),)
