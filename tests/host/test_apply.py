"""One list of wishes, walked in order over the fake and over the real kernel: after each, exactly this is there.

`masque0` has slot 59: table 0x4D51003B = 1297154107, rules from 20236 (some destinations) or 25236 (all of them).
"""

from __future__ import annotations

import errno
from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest

from masque_client.errors import HostError, PrivilegeError
from masque_client.host.interface import HostConfiguration, OuterFlow
from masque_client.host.plan import Change, Entry, SetIpv6
from masque_client.host.state import Rule, RuleKind
from tests.host.conftest import DEVICE, Machine


def wish(addresses: str = "", routes: str = "", mtu: int = 1400) -> HostConfiguration:
    return HostConfiguration(
        device=DEVICE,
        mtu=mtu,
        addresses=tuple(ip_interface(address) for address in addresses.split()),
        routes=tuple(ip_network(route) for route in routes.split()),
    )


FRESH = ["link down mtu 1500 ipv6 on, as by default"]

SPLIT4 = "rule IPv4 20238: not fwmark 0x4d51 lookup 1297154107"
SPLIT6 = "rule IPv6 20238: not fwmark 0x4d51 lookup 1297154107"
FULL4 = "rule IPv4 25238: not fwmark 0x4d51 lookup 1297154107"
FULL6 = "rule IPv6 25238: not fwmark 0x4d51 lookup 1297154107"
LOCAL4 = "rule IPv4 25237: lookup main suppress_prefixlength 0"
LOCAL6 = "rule IPv6 25237: lookup main suppress_prefixlength 0"
SILENT = "link up mtu 1400 ipv6 on, silent"
NO_IPV6 = "link up mtu 1400 ipv6 off"

BOTH = "192.0.2.1/32 2001:db8::1/128"
DEFAULTS = "0.0.0.0/0 ::/0"
FLOW = OuterFlow("udp", ("198.51.100.7", 50_000), ("203.0.113.9", 443))
FLOW_OVER_IPV6 = OuterFlow("udp", ("2001:db8:7::1", 50_000), ("2001:db8:9::1", 443))

STEPS: list[tuple[str, HostConfiguration, list[str]]] = [
    (
        "some destinations, IPv4 only; the assigned prefix is not on the link",
        wish("192.0.2.1/24", "10.0.0.0/8"),
        [NO_IPV6, "address 192.0.2.1/32", "route 10.0.0.0/8", SPLIT4],
    ),
    (
        "one more destination, and IPv6",
        wish("192.0.2.1/24 2001:db8::1/64", "10.0.0.0/8 172.16.0.0/12 2001:db8:1::/48"),
        [
            SILENT,
            *("address 192.0.2.1/32", "address 2001:db8::1/128"),
            *("route 10.0.0.0/8", "route 172.16.0.0/12", "route 2001:db8:1::/48"),
            *(SPLIT4, SPLIT6),
        ],
    ),
    (
        "all destinations: asked later, after the main table's own networks",
        wish(BOTH, DEFAULTS),
        [
            SILENT,
            *("address 192.0.2.1/32", "address 2001:db8::1/128", "route 0.0.0.0/0", "route ::/0"),
            *(LOCAL4, FULL4, LOCAL6, FULL6),
        ],
    ),
    (
        "other addresses after a reconnect",
        wish("192.0.2.99/32 2001:db8::99/128", DEFAULTS),
        [
            SILENT,
            *("address 192.0.2.99/32", "address 2001:db8::99/128", "route 0.0.0.0/0", "route ::/0"),
            *(LOCAL4, FULL4, LOCAL6, FULL6),
        ],
    ),
    (
        "the smallest MTU with IPv6",
        wish(BOTH, DEFAULTS, mtu=1280),
        [
            "link up mtu 1280 ipv6 on, silent",
            *("address 192.0.2.1/32", "address 2001:db8::1/128", "route 0.0.0.0/0", "route ::/0"),
            *(LOCAL4, FULL4, LOCAL6, FULL6),
        ],
    ),
    (
        "one byte less: no IPv6",
        wish(BOTH, DEFAULTS, mtu=1279),
        ["link up mtu 1279 ipv6 off", "address 192.0.2.1/32", "route 0.0.0.0/0", LOCAL4, FULL4],
    ),
    (
        "and IPv6 comes back with the MTU",
        wish(BOTH, DEFAULTS),
        [
            SILENT,
            *("address 192.0.2.1/32", "address 2001:db8::1/128", "route 0.0.0.0/0", "route ::/0"),
            *(LOCAL4, FULL4, LOCAL6, FULL6),
        ],
    ),
    (
        "no IPv6 from the proxy, none past it",
        replace(wish("192.0.2.1/32", DEFAULTS), block_ipv6=True),
        [NO_IPV6, "address 192.0.2.1/32", "route 0.0.0.0/0", "route unreachable ::/0", LOCAL4, FULL4, LOCAL6, FULL6],
    ),
    (
        "IPv4 withdrawn: the last address goes, and with it the routes",
        wish("2001:db8::1/128", DEFAULTS),
        [SILENT, "address 2001:db8::1/128", "route ::/0", LOCAL6, FULL6],
    ),
    (
        "a default route in halves",
        wish(BOTH, "0.0.0.0/1 128.0.0.0/1 2000::/3"),
        [
            SILENT,
            *("address 192.0.2.1/32", "address 2001:db8::1/128"),
            *("route 0.0.0.0/1", "route 128.0.0.0/1", "route 2000::/3"),
            *(LOCAL4, FULL4, LOCAL6, FULL6),
        ],
    ),
    (
        "some destinations in the tunnel, the rest blocked",
        replace(wish("192.0.2.1/32", "10.0.0.0/8"), block_ipv4=True),
        [NO_IPV6, "address 192.0.2.1/32", "route 10.0.0.0/8", "route unreachable 0.0.0.0/0", LOCAL4, FULL4],
    ),
    (
        "a hole in the tunnel through which nothing goes",
        replace(
            wish(BOTH, "10.0.0.0/9 10.192.0.0/10 2001:db8:1::/48"),
            unreachable=(ip_network("10.128.0.0/10"), ip_network("2001:db8:1:8000::/52")),
        ),
        [
            SILENT,
            *("address 192.0.2.1/32", "address 2001:db8::1/128"),
            *("route 10.0.0.0/9", "route 10.192.0.0/10", "route 2001:db8:1::/48"),
            *("route unreachable 10.128.0.0/10", "route unreachable 2001:db8:1:8000::/52"),
            *(SPLIT4, SPLIT6),
        ],
    ),
    (
        "the hole moves into the tunnel, and the tunnel into the hole",
        replace(
            wish(BOTH, "10.128.0.0/10 10.192.0.0/10 2001:db8:1::/48"),
            unreachable=(ip_network("10.0.0.0/9"),),
        ),
        [
            SILENT,
            *("address 192.0.2.1/32", "address 2001:db8::1/128"),
            *("route 10.128.0.0/10", "route 10.192.0.0/10", "route 2001:db8:1::/48", "route unreachable 10.0.0.0/9"),
            *(SPLIT4, SPLIT6),
        ],
    ),
    (
        "nothing but the tunnel's own family and a hole as large as a default route",
        replace(wish("192.0.2.1/32", "10.0.0.0/8"), unreachable=(ip_network("128.0.0.0/1"),)),
        [NO_IPV6, "address 192.0.2.1/32", "route 10.0.0.0/8", "route unreachable 128.0.0.0/1", LOCAL4, FULL4],
    ),
    (
        "the outer connection exempt by its ports, where the kernel filters reverse paths: IPv4",
        replace(wish("192.0.2.1/32", "0.0.0.0/0"), outer_flows=(FLOW, FLOW_OVER_IPV6)),
        [
            *(NO_IPV6, "address 192.0.2.1/32", "route 0.0.0.0/0"),
            "rule IPv4 25236: from 198.51.100.7 to 203.0.113.9 ipproto udp sport 50000 dport 443 goto 25239",
            *(LOCAL4, FULL4, "rule IPv4 25239: nop"),
        ],
    ),
    (
        "the outer connection moved, and over TCP",
        replace(wish("192.0.2.1/32", "0.0.0.0/0"), outer_flows=(OuterFlow("tcp", ("198.51.100.8", 1), FLOW.remote),)),
        [
            *(NO_IPV6, "address 192.0.2.1/32", "route 0.0.0.0/0"),
            "rule IPv4 25236: from 198.51.100.8 to 203.0.113.9 ipproto tcp sport 1 dport 443 goto 25239",
            *(LOCAL4, FULL4, "rule IPv4 25239: nop"),
        ],
    ),
    (
        "no outer connection yet: any to the proxy",
        replace(
            wish("192.0.2.1/32", "0.0.0.0/0"),
            outer_flows=(OuterFlow("udp", None, FLOW.remote), OuterFlow("tcp", None, FLOW.remote)),
        ),
        [
            *(NO_IPV6, "address 192.0.2.1/32", "route 0.0.0.0/0"),
            "rule IPv4 25236: to 203.0.113.9 ipproto tcp dport 443 goto 25239",
            "rule IPv4 25236: to 203.0.113.9 ipproto udp dport 443 goto 25239",
            *(LOCAL4, FULL4, "rule IPv4 25239: nop"),
        ],
    ),
    (
        "another mark",
        replace(wish("192.0.2.1/32", "10.0.0.0/8"), fwmark=0x77),
        [
            *(NO_IPV6, "address 192.0.2.1/32", "route 10.0.0.0/8"),
            "rule IPv4 20238: not fwmark 0x77 lookup 1297154107",
        ],
    ),
    (
        "everything withdrawn, everything blocked",
        replace(wish(), block_ipv4=True, block_ipv6=True),
        [NO_IPV6, "route unreachable 0.0.0.0/0", "route unreachable ::/0", LOCAL4, FULL4, LOCAL6, FULL6],
    ),
    ("nothing wished", wish(), [NO_IPV6]),
]


def test_every_step_is_exact_and_idempotent(machine: Machine) -> None:
    assert machine.lines() == FRESH
    for name, configuration, expected in STEPS:
        machine.network.apply(configuration)
        assert machine.lines() == sorted(expected), name
        assert machine.network.plan(configuration) == [], f"{name}: applied, and yet something is left to do"


@pytest.mark.parametrize(("name", "configuration", "expected"), STEPS, ids=[step[0] for step in STEPS])
def test_every_step_from_scratch_and_back(
    machine: Machine, name: str, configuration: HostConfiguration, expected: list[str]
) -> None:
    machine.network.apply(configuration)
    assert machine.lines() == sorted(expected)
    machine.network.restore()
    state = machine.network.observe(DEVICE)
    assert (state.addresses, state.routes, state.rules) == (frozenset(), frozenset(), frozenset())
    assert state.link is not None
    assert (state.link.mtu, state.link.up) == (1500, False)


def test_what_stays_is_not_touched(machine: Machine) -> None:
    machine.network.apply(wish("192.0.2.1/32", "10.0.0.0/8 172.16.0.0/12"))
    machine.kernel.performed.clear()
    machine.network.apply(wish("192.0.2.2/32", "10.0.0.0/8 192.168.0.0/16"))
    assert [str(change) for change in machine.kernel.performed] == [
        "add address 192.0.2.2/32",
        "add route 192.168.0.0/16",
        "remove route 172.16.0.0/12",
        "remove address 192.0.2.1/32",
    ]
    machine.kernel.performed.clear()
    machine.network.apply(wish("192.0.2.2/32", "10.0.0.0/8 192.168.0.0/16"))
    assert machine.kernel.performed == []


def test_a_plan_says_every_change_and_makes_none(machine: Machine) -> None:
    assert machine.network.plan(wish(BOTH, "0.0.0.0/0 2001:db8:1::/48")) == [
        "set the MTU to 1400",
        "set IPv6 on, silent",
        "set the link up",
        "add address 192.0.2.1/32",
        "add address 2001:db8::1/128",
        "add route 0.0.0.0/0",
        "add route 2001:db8:1::/48",
        f"add {SPLIT6}",
        f"add {LOCAL4}",
        f"add {FULL4}",
    ]
    assert machine.lines() == FRESH


def fail_at(position: int, code: int) -> tuple[list[str], object]:
    """A refusal of the change number `position`; the list receives its name."""
    seen: list[str] = []

    def refusal(change: Change) -> int | None:
        seen.append(str(change))
        return code if len(seen) == position + 1 else None

    return seen, refusal


@pytest.mark.parametrize("position", range(10))
def test_a_refused_change_undoes_those_before_it(machine: Machine, position: int) -> None:
    seen, machine.kernel.refusal = fail_at(position, errno.ENOMEM)  # type: ignore[assignment]
    with pytest.raises(HostError, match=r"could not .* on masque0: refused by the test") as caught:
        machine.network.apply(wish(BOTH, "0.0.0.0/0 2001:db8:1::/48"))
    assert seen[position] in str(caught.value)
    state = machine.network.observe(DEVICE)
    assert (state.addresses, state.routes, state.rules) == (frozenset(), frozenset(), frozenset())
    assert state.link is not None
    assert (state.link.mtu, state.link.up) == (1500, False)
    assert machine.restart().clean_up() == []


@pytest.mark.parametrize("position", range(6))
def test_a_refused_later_wish_leaves_the_earlier_one_in_force(machine: Machine, position: int) -> None:
    before = wish(BOTH, DEFAULTS)
    machine.network.apply(before)
    lines = machine.lines()
    _, machine.kernel.refusal = fail_at(position, errno.ENOMEM)  # type: ignore[assignment]
    with pytest.raises(HostError):
        machine.network.apply(wish("192.0.2.2/32 2001:db8::2/128", "10.0.0.0/8 ::/0", mtu=1300))
    assert machine.lines() == lines
    machine.network.restore()
    assert not machine.network.observe(DEVICE).rules


def test_a_failed_undo_is_not_hidden(machine: Machine) -> None:
    def refusal(change: Change) -> int | None:
        return errno.ENOMEM if isinstance(change, Entry) and isinstance(change.item, Rule) else None

    machine.network.apply(wish("192.0.2.1/32", "10.0.0.0/8"))
    machine.kernel.refusal = refusal
    with pytest.raises(HostError, match="could not remove rule"):
        machine.network.restore()
    machine.kernel.refusal = lambda change: (
        errno.ENOMEM if str(change) in ("remove address 192.0.2.1/32", "remove address 192.0.2.2/32") else None
    )
    with pytest.raises(HostError, match=r"could not remove address 192\.0\.2\.1/32.*undoing the rest failed too"):
        machine.network.apply(wish("192.0.2.2/32", "10.0.0.0/8"))


def test_missing_privilege_is_its_own_error(machine: Machine) -> None:
    machine.kernel.refusal = lambda change: errno.EPERM
    with pytest.raises(PrivilegeError, match="could not set the MTU to 1400 on masque0") as caught:
        machine.network.apply(wish("192.0.2.1/32"))
    assert "CAP_NET_ADMIN" in caught.value.hint


def test_read_only_sysctls_are_no_obstacle(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.kernel.refusal = lambda change: errno.EROFS if isinstance(change, SetIpv6) else None
    machine.network.apply(wish("192.0.2.1/32", "10.0.0.0/8"))
    machine.network.apply(wish("192.0.2.1/32", "10.0.0.0/8 172.16.0.0/12"))
    assert "route 172.16.0.0/12" in machine.lines()
    assert len(caplog.records) == 1
    assert "going on without" in caplog.text


def test_a_missing_device_is_said_plainly(machine: Machine) -> None:
    with pytest.raises(HostError, match="no network device masque7"):
        machine.network.apply(replace(wish(), device="masque7"))


def test_restore_before_apply_and_twice(machine: Machine) -> None:
    machine.network.restore()
    machine.network.apply(wish(BOTH, DEFAULTS))
    machine.network.restore()
    machine.network.restore()
    assert machine.restart().clean_up() == []


def test_restore_after_the_device_is_gone(machine: Machine) -> None:
    machine.network.apply(replace(wish("192.0.2.1/32", "0.0.0.0/0"), block_ipv6=True))
    machine.delete_device()
    machine.network.restore()
    assert machine.lines() == []


def test_rules_survive_a_dead_run_and_the_next_one_cleans_up(machine: Machine) -> None:
    machine.network.apply(replace(wish("192.0.2.1/32", "0.0.0.0/0"), block_ipv6=True))
    next_run = machine.restart()
    assert next_run.clean_up() == [], "the tunnel is alive"

    machine.delete_device()
    assert machine.lines() == sorted(["route unreachable ::/0", LOCAL4, FULL4, LOCAL6, FULL6])
    assert next_run.clean_up() == [
        f"remove {FULL6}",
        f"remove {FULL4}",
        f"remove {LOCAL6}",
        f"remove {LOCAL4}",
        "remove route unreachable ::/0",
    ]
    assert machine.lines() == []
    assert next_run.clean_up() == []


def test_leftovers_under_the_same_name_are_replaced_and_never_restored(machine: Machine) -> None:
    machine.network.apply(wish("192.0.2.1/32", "10.0.0.0/8"))
    machine.network.observe(DEVICE)
    successor = machine.restart()
    successor.apply(replace(wish("192.0.2.1/32", "172.16.0.0/12"), fwmark=0x77))
    assert "route 10.0.0.0/8" not in machine.lines()
    successor.restore()
    state = machine.network.observe(DEVICE)
    assert (state.routes, state.rules) == (frozenset(), frozenset())


def test_rules_are_told_apart_by_kind(machine: Machine) -> None:
    machine.network.apply(replace(wish(BOTH, DEFAULTS), outer_flows=(FLOW,)))
    kinds = sorted(rule.kind for rule in machine.network.observe(DEVICE).rules)
    assert kinds == sorted([*[RuleKind.KEEP_LOCAL, RuleKind.TUNNEL] * 2, RuleKind.EXEMPT_FLOW, RuleKind.AFTER])
