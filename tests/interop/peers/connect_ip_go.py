"""connect-ip-go: its API as a proxy and as a client, around a TUN device and a plain loop (go/connectip)."""

from __future__ import annotations

from typing import ClassVar, Final

from tests.interop.deviations import no_empty_connection_ids
from tests.interop.model import Protocol
from tests.interop.peer import ClientTask, Launch, Peer, ProxyTask
from tests.interop.programs import GoProgram

SERVER: Final = GoProgram("connectip-server", "connectip", "./server")
CLIENT: Final = GoProgram("connectip-client", "connectip", "./client")


class ConnectIpGo(Peer):
    """Its templates may have no variables (it cannot do IP flow forwarding, RFC 9484 §4.6): a plain path."""

    name = "connect-ip-go"
    version = "0.7.0"
    stack = "Go, quic-go 0.65"
    proxies = clients = frozenset({Protocol.IP})
    deviations = (no_empty_connection_ids(Protocol.IP),)
    remarks = (
        "names 1280 in every Packet Too Big, though 1420 bytes and more pass: smaller packets than need be "
        "(RFC 4443 §3.2, RFC 1191 §4)",
        "answers so to IPv4 packets without DF, too, instead of fragmenting them (RFC 1812 §5.2.7.1)",
    )
    paths: ClassVar = {Protocol.IP: "/vpn"}

    def build(self) -> None:
        SERVER.build()
        CLIENT.build()

    def proxy(self, task: ProxyTask) -> Launch:
        return Launch(
            (
                *(str(SERVER.build()), "-listen", task.listen, "-template", task.url + self.paths[Protocol.IP]),
                *("-certificate", str(task.certificate), "-key", str(task.key), "-mtu", str(task.mtu)),
                *(part for pool in task.pools for part in ("-pool", pool)),
                *(part for route in task.routes for part in ("-route", route)),
                *(("-basic", task.basic) if task.basic else ()),
            )
        )

    def client(self, task: ClientTask) -> Launch:
        return Launch(
            (
                *(str(CLIENT.build()), "-template", task.template, "-ca", str(task.ca), "-mtu", str(task.mtu)),
                *(("-basic", task.basic) if task.basic else ()),
            )
        )


PEERS = (ConnectIpGo(),)
