"""masquerade-proxy, a prototype of 2022 on crates.io (quiche 0.16): its own proxy command, as published.

Its client is not asked: it speaks SOCKS inside, and its requests are malformed. They have a pseudo-header field
`:authorization` (RFC 9114 §4.3) and no real `:scheme` and `:authority`; our proxy resets them with H3_MESSAGE_ERROR.
"""

from __future__ import annotations

import shutil
from typing import Final

from tests.interop.model import Deviation, Feature, Protocol, Role
from tests.interop.peer import Launch, Peer, ProxyTask, when_bound
from tests.interop.rust_programs import CrateProgram

SERVER: Final = CrateProgram("masquerade-proxy", "0.1.0", "server", needs=("cmake", "cc", "c++"))

NO_EXTENDED_CONNECT: Final = Deviation(
    role=Role.PROXY,
    protocol=Protocol.UDP,
    feature=Feature.HANDSHAKE,
    symptom="does not offer extended CONNECT",
    fault="its SETTINGS lack ENABLE_CONNECT_PROTOCOL and have a draft's 0x276 for H3_DATAGRAM: no client may use it",
    clause="RFC 9220 §3, RFC 9297 §2.1.1",
)


class Masquerade(Peer):
    """Reads `example_cert/cert.crt` and `.key` in the directory where it is started."""

    name = "masquerade"
    version = "0.1.0"
    stack = "Rust, quiche 0.16"
    proxies = frozenset({Protocol.UDP})
    deviations = (NO_EXTENDED_CONNECT,)

    def build(self) -> None:
        SERVER.build()

    def proxy(self, task: ProxyTask) -> Launch:
        certificates = task.directory / "example_cert"
        certificates.mkdir()
        shutil.copy(task.certificate, certificates / "cert.crt")
        shutil.copy(task.key, certificates / "cert.key")
        return Launch(
            ("env", f"--chdir={task.directory}", str(SERVER.build()), task.listen),
            ready=when_bound(int(task.listen.rpartition(":")[2])),
        )


PEERS = (Masquerade(),)
