"""masque-go: its own proxy command, ours where that one cannot do what is asked, and its client API (go/masque)."""

from __future__ import annotations

from typing import Final

from tests.interop.deviations import no_empty_connection_ids
from tests.interop.model import Protocol
from tests.interop.peer import ClientTask, Launch, Peer, ProxyTask, when_bound
from tests.interop.programs import GoProgram

OWN_PROXY: Final = GoProgram("masque-go-cmd-proxy", "masque", "github.com/quic-go/masque-go/cmd/proxy")
PROXY: Final = GoProgram("masque-proxy", "masque", "./proxy")
CLIENT: Final = GoProgram("masque-client", "masque", "./client")


class MasqueGo(Peer):
    name = "masque-go"
    version = "0.6.0"
    stack = "Go, quic-go 0.63"
    proxies = clients = frozenset({Protocol.UDP})
    deviations = (no_empty_connection_ids(Protocol.UDP),)

    def build(self) -> None:
        for program in (OWN_PROXY, PROXY, CLIENT):
            program.build()

    def proxy(self, task: ProxyTask) -> Launch:
        template = task.url + self.paths[Protocol.UDP]
        if task.basic:  # its own command knows no credentials
            return Launch(
                (
                    *(str(PROXY.build()), "-listen", task.listen, "-template", template, "-basic", task.basic),
                    *("-certificate", str(task.certificate), "-key", str(task.key)),
                )
            )
        return Launch(
            (
                *(str(OWN_PROXY.build()), "-b", task.listen, "-t", template),
                *("-c", str(task.certificate), "-k", str(task.key)),
            ),
            ready=when_bound(int(task.listen.rpartition(":")[2])),
        )

    def client(self, task: ClientTask) -> Launch:
        return Launch(
            (
                *(str(CLIENT.build()), "-template", task.template, "-ca", str(task.ca)),
                *("-listen", task.local, "-target", task.target),
                *(("-basic", task.basic) if task.basic else ()),
            )
        )


PEERS = (MasqueGo(),)
