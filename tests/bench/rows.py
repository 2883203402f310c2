"""The table of what is measured: who is the client, who is the proxy, and which question the row answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tests.bench.programs import Build, ConnectIpGo, MasqueGo, Ours, Program, WireGuardGo, binary
from tests.interop.programs import BuildFailed, Unavailable


class Group(StrEnum):
    """Rows that are compared with each other. The value is the first part of a row's key."""

    BARE = "bare"
    PAIR = "pair"
    GO_PROXY = "go"
    UDP_GO_PROXY = "udp-go"
    UDP_OUR_PROXY = "udp-ours"

    @property
    def heading(self) -> str:
        """For people."""
        return _HEADINGS[self]

    @property
    def is_forwarder(self) -> bool:
        """Whether its rows carry datagrams from a local port, not IP packets from a TUN device."""
        return self in (Group.UDP_GO_PROXY, Group.UDP_OUR_PROXY)


_HEADINGS = {
    Group.BARE: "No tunnel",
    Group.PAIR: "Tunnels, both ends of the same implementation",
    Group.GO_PROXY: "Tunnels, clients against the same connect-ip-go proxy",
    Group.UDP_GO_PROXY: "CONNECT-UDP forwarders, against the same masque-go proxy",
    Group.UDP_OUR_PROXY: "CONNECT-UDP forwarders, against our test proxy with aioquic",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. Without `client` it is the bare path; with `absent` it says why nothing is measured."""

    group: Group
    name: str
    client: Program | None = None
    proxy: Program | None = None
    absent: str | None = None

    @property
    def key(self) -> str:
        """For `--rows`, ratios and bars."""
        return f"{self.group}/{self.name}" if self.name else str(self.group)

    @property
    def label(self) -> str:
        """For people."""
        label = _LABELS.get(self.name, self.name)
        return label.removesuffix(" + TUN offload") if self.group.is_forwarder else label

    def problem(self) -> str | None:
        """Build what it needs; why it cannot be measured here, or None."""
        if self.absent:
            return self.absent
        for program in (self.client, self.proxy):
            if isinstance(program, Ours) and not self.group.is_forwarder and (reason := program.problem()):
                return reason
            for build in program.builds if program else ():
                try:
                    binary(build)
                except (Unavailable, BuildFailed) as error:
                    return str(error)
        return None


BARE = "bare"
_LABELS = {
    "": "bare path",
    "aioquic-plain": "ours, aioquic",
    "aioquic": "ours, aioquic + TUN offload",
    "qh3-pure": "ours, qh3, pure Python",
    "qh3-plain": "ours, qh3",
    "qh3": "ours, qh3 + TUN offload",
}


def all_rows() -> list[Row]:
    """In the order of a round."""
    connect_ip_go, masque_go, wireguard_go = ConnectIpGo(), MasqueGo(), WireGuardGo.with_new_keys()
    ours = {
        "aioquic-plain": Ours("aioquic", Build.NO_OFFLOAD),
        "aioquic": Ours("aioquic"),
        "qh3-pure": Ours("qh3", Build.PURE_PYTHON),
        "qh3-plain": Ours("qh3", Build.NO_OFFLOAD),
        "qh3": Ours("qh3"),
    }
    rows = [Row(Group.BARE, "")]
    rows += [Row(Group.PAIR, name, program, program) for name, program in ours.items()]
    rows.append(Row(Group.PAIR, "connect-ip-go", connect_ip_go, connect_ip_go))
    rows.append(Row(Group.PAIR, "wireguard-go", wireguard_go, wireguard_go))
    # Its own client against this proxy is the pair above: the same two processes need no second measurement.
    against_go = ("aioquic", "qh3-plain", "qh3")
    rows += [Row(Group.GO_PROXY, name, ours[name], connect_ip_go) for name in against_go]
    rows.append(Row(Group.GO_PROXY, "sing-box", absent=SING_BOX_ABSENT))
    # As a server qh3 takes no client with an empty connection ID, which quic-go's clients have.
    for group, proxy in ((Group.UDP_GO_PROXY, masque_go), (Group.UDP_OUR_PROXY, ours["aioquic"])):
        rows += [Row(group, name, ours[name], proxy) for name in ("aioquic", "qh3")]
        rows.append(Row(group, "masque-go", masque_go, proxy))
    return rows


SING_BOX_ABSENT = "no release of sing-box with MASQUE endpoints is on the Go module proxy"
