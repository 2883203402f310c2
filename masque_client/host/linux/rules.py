"""Policy rules: which traffic asks the tunnel's table.

On strict reverse-path filtering (rp_filter=1): a packet from the proxy arrives without a mark, so the kernel looks its
source up in the tunnel's table, finds the TUN device instead of the one it came in on, and drops it. wg-quick marks
such packets with a firewall rule and sets net.ipv4.conf.all.src_valid_mark. We change neither the firewall nor a global
sysctl: a rule with the outer connection's addresses and ports matches the reverse lookup too, since the kernel swaps
both for it, and it matches nothing else.
"""

from __future__ import annotations

from socket import AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP
from typing import Any, Final, Literal

from pyroute2 import IPRoute

from masque_client.host.identity import PROTOCOL, slot_of_priority
from masque_client.host.interface import Family, OuterFlow
from masque_client.host.state import FAMILIES, Rule, RuleKind

_AF: Final = {4: AF_INET, 6: AF_INET6}
_IP_PROTOCOLS: Final = {"udp": IPPROTO_UDP, "tcp": IPPROTO_TCP}
_FIB_RULE_INVERT: Final = 0x2
_FR_ACT_GOTO: Final = 2
_FR_ACT_NOP: Final = 3


def read_rules(route: IPRoute, slot: int) -> frozenset[Rule]:
    """Our rules of one tunnel."""
    return frozenset(
        _parse(family, message)
        for family, message in _ours(route)
        if slot_of_priority(message.get_attr("FRA_PRIORITY")) == slot
    )


def slots_with_rules(route: IPRoute) -> set[int]:
    """Whose rules there are."""
    slots = (slot_of_priority(message.get_attr("FRA_PRIORITY")) for _, message in _ours(route))
    return {slot for slot in slots if slot is not None}


def change_rule(route: IPRoute, verb: Literal["add", "remove"], rule: Rule) -> None:
    """Add or remove one."""
    command = "add" if verb == "add" else "del"
    route.rule(command, family=_AF[rule.family], priority=rule.priority, protocol=PROTOCOL, **_selector(rule))


def _selector(rule: Rule) -> dict[str, Any]:
    match rule.kind:
        case RuleKind.TUNNEL:
            return {"table": rule.table, "fwmark": rule.fwmark, "fwmask": 0xFFFF_FFFF, "flags": _FIB_RULE_INVERT}
        case RuleKind.KEEP_LOCAL:
            return {"table": rule.table, "suppress_prefixlen": 0}
        case RuleKind.AFTER:
            return {"action": "nop"}
        case RuleKind.EXEMPT_FLOW:
            assert rule.flow is not None
            bits = 32 if rule.family == 4 else 128
            destination, port = rule.flow.remote
            selector = {
                "action": "goto",
                "goto": rule.target,
                "dst": destination,
                "dst_len": bits,
                "ip_proto": _IP_PROTOCOLS[rule.flow.protocol],
                "dport_range": f"{port}:{port}",
            }
            if rule.flow.local is not None:
                source, port = rule.flow.local
                selector |= {"src": source, "src_len": bits, "sport_range": f"{port}:{port}"}
            return selector


def _ours(route: IPRoute) -> list[tuple[Family, Any]]:
    return [
        (family, message)
        for family in FAMILIES
        for message in route.get_rules(family=_AF[family])
        if message.get_attr("FRA_PROTOCOL") == PROTOCOL and message.get_attr("FRA_PRIORITY") is not None
    ]


def _parse(family: Family, message: Any) -> Rule:
    priority = message.get_attr("FRA_PRIORITY")
    if message["action"] == _FR_ACT_GOTO:
        return Rule(
            family, priority, RuleKind.EXEMPT_FLOW, target=message.get_attr("FRA_GOTO"), flow=_parse_flow(message)
        )
    if message["action"] == _FR_ACT_NOP:
        return Rule(family, priority, RuleKind.AFTER)
    table = message.get_attr("FRA_TABLE")
    if message.get_attr("FRA_SUPPRESS_PREFIXLEN") == 0:
        return Rule(family, priority, RuleKind.KEEP_LOCAL, table=table)
    return Rule(family, priority, RuleKind.TUNNEL, table=table, fwmark=message.get_attr("FRA_FWMARK"))


def _parse_flow(message: Any) -> OuterFlow:
    def port(attribute: str) -> int:
        return int(message.get_attr(attribute).split(":")[0])

    source = message.get_attr("FRA_SRC")
    return OuterFlow(
        "udp" if message.get_attr("FRA_IP_PROTO") == IPPROTO_UDP else "tcp",
        None if source is None else (source, port("FRA_SPORT_RANGE")),
        (message.get_attr("FRA_DST"), port("FRA_DPORT_RANGE")),
    )
