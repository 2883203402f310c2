"""masque-connect demo: a whole tunnel on this machine; no account, no configuration, nothing left behind."""

from __future__ import annotations

import argparse
import os
import shutil
from typing import Any

from masque_client.errors import ConfigurationError, PrivilegeError
from masque_connect import options as shared
from masque_connect.demo.interrupts import Interrupts
from masque_connect.demo.scenarios import FIRST_TUNNEL, SCENARIOS
from masque_connect.demo.settings import Settings
from masque_connect.exit_codes import ExitCode
from masque_connect.render import print_json, remark, results, table


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `demo` to the command line."""
    parser = commands.add_parser(
        "demo",
        help="see it work: a whole tunnel on this machine",
        description="Build a client, a router, a MASQUE proxy and a target in network namespaces, run discovery, "
        "CONNECT-UDP and CONNECT-IP with real traffic between them, and take everything down again. "
        "Without root it shows discovery and CONNECT-UDP on loopback.",
    )
    parser.add_argument(
        "--scenario",
        choices=list(SCENARIOS),
        default=FIRST_TUNNEL,
        help="; ".join(f"{name}: {scenario.purpose}" for name, scenario in SCENARIOS.items()),
    )
    shared.add_engine(parser)
    parser.add_argument("--loss", type=_percent, default=0.0, metavar="PERCENT", help="lose packets, each way")
    parser.add_argument("--delay", type=_milliseconds, default=0.0, metavar="MS", help="delay packets, each way")
    parser.add_argument("--seed", type=int, default=1, help="of the losses (default: 1)")
    parser.add_argument(
        "--size", type=_mebibytes, metavar="MIB", help="transfer this much (default: 100; 8 with --loss)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    shared.add_verbose(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Exit status 0 exactly when everything worked and nothing was left behind."""
    settings = Settings(options.engine, options.loss, options.delay, options.seed, options.size)
    reason, scenario = _unprivileged_reason(), SCENARIOS[options.scenario]
    run_scenario = scenario.load(is_privileged=reason is None)
    if run_scenario is None:
        raise PrivilegeError(f"the scenario {options.scenario} needs network namespaces: {reason}")
    if reason is not None and scenario.unprivileged != scenario.privileged:
        remark(f"{reason}: CONNECT-IP, transfers and losses are left out; discovery and CONNECT-UDP follow")
    interrupts = Interrupts()
    with interrupts.active():
        result = run_scenario(settings, interrupts)
    if options.json:
        print_json(result)
    else:
        results.print(table(_rows(result)))
    return ExitCode.OK if result["ok"] and result["clean"] else ExitCode.GENERIC


def _unprivileged_reason() -> str | None:
    if os.geteuid() != 0:
        return "not root"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "no /dev/net/tun"
    if shutil.which("ip") is None:
        raise ConfigurationError("the `ip` command is missing", hint="install iproute2")
    return None


def _rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for key, value in result.items():
        if isinstance(value, dict):
            rows += [(f"{key}.{name}", str(part)) for name, part in value.items()]
        else:
            rows.append((key, str(value)))
    return rows


def _percent(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 30:
        raise argparse.ArgumentTypeError("0 to 30")
    return value


def _milliseconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1000:
        raise argparse.ArgumentTypeError("0 to 1000")
    return value


def _mebibytes(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1024:
        raise argparse.ArgumentTypeError("1 to 1024")
    return value
