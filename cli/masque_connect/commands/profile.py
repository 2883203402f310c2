"""masque-connect profile check FILE|URL: every problem of a PvD document, for the person who serves it."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from datetime import UTC, datetime
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

from rich.text import Text

from masque_client.engine.interface import TlsConfiguration
from masque_client.errors import ConfigurationError
from masque_client.pvd.fetch import FetchOptions
from masque_client.pvd.json_strict import MAX_BODY_BYTES
from masque_client.pvd.lint import lint
from masque_client.pvd.lint_http import inspect
from masque_client.pvd.names import canonical_name
from masque_client.pvd.problems import Problem, Severity
from masque_client.pvd.source import PvdSource
from masque_connect import options as shared
from masque_connect.exit_codes import ExitCode
from masque_connect.render import SCHEMA_VERSION, print_json, printable, remark, results
from masque_connect.running import run_until_signal

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `profile` to the command line."""
    profile = commands.add_parser("profile", help="check a PvD document before it is served")
    verbs = profile.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = verbs.add_parser(
        "check",
        help="every problem of a PvD document, with its line",
        description="Check a PvD document as strictly as clients read it (RFC 8801, proxy configuration), and say what "
        "is legal but surely not meant. Exit status 0: clients use all of it; 65: they ignore some or all of it.",
    )
    check.add_argument("target", metavar="FILE|URL|HOST", help="a file, - for stdin, or where the document is served")
    check.add_argument("--identifier", metavar="HOST", help="the host a file will be served for")
    check.add_argument(
        "--network-prefix",
        action="append",
        metavar="PREFIX",
        help="the document belongs to a network that advertises this IPv6 prefix (repeatable)",
    )
    check.add_argument("--json", action="store_true", help="one JSON object on stdout")
    shared.add_trust(check, client_certificate=False)
    shared.add_verbose(check)
    check.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Check one document."""
    identifier = _identifier(options.identifier)
    prefixes = _prefixes(options.network_prefix)
    now = datetime.now(UTC)
    path = Path(options.target)
    if options.target == "-" or ("://" not in options.target and (path.exists() or path.suffix == ".json")):
        body = _read(options.target)
        problems = list(lint(body, now=now, expected_identifier=identifier, ra_prefixes=prefixes))
    else:
        source = PvdSource.parse(options.target, expected_identifier=identifier)
        problems = _check_served(source, shared.tls_configuration(options), now, prefixes)
    count = Counter(problem.severity for problem in problems)
    if options.json:
        print_json(describe(options.target, problems))
    else:
        for problem in problems:
            _show(options.target, problem)
        remark(f"{count[Severity.ERROR]} errors, {count[Severity.WARNING]} warnings, {count[Severity.NOTE]} notes")
    return ExitCode.BAD_CONFIGURATION if count[Severity.ERROR] else ExitCode.OK


def describe(target: str, problems: list[Problem]) -> dict[str, Any]:
    """The JSON form. Fields are only ever added."""
    count = Counter(problem.severity for problem in problems)
    return {
        "schema_version": SCHEMA_VERSION,
        "target": target,
        "usable": not count[Severity.ERROR],
        "counts": {str(severity): count[severity] for severity in Severity},
        "problems": [
            {
                "severity": str(problem.severity),
                "pointer": problem.pointer,
                "line": problem.line,
                "column": problem.column,
                "message": problem.message,
            }
            for problem in problems
        ],
    }


def _check_served(
    source: PvdSource, tls: TlsConfiguration, now: datetime, prefixes: tuple[IPv6Network, ...] | None
) -> list[Problem]:
    inspection = run_until_signal(inspect(source, tls=tls, options=FetchOptions()))
    found = list(inspection.problems)
    if inspection.body is not None:
        expected = source.expected_identifier
        found += lint(inspection.body, now=now, expected_identifier=expected, ra_prefixes=prefixes)
    return found


def _show(target: str, problem: Problem) -> None:
    place = target if problem.line is None else f"{target}:{problem.line}:{problem.column}"
    where = f" [{problem.pointer}]" if problem.pointer else ""
    line = Text(printable(f"{place}: "))
    line.append(str(problem.severity), style=_STYLES[problem.severity])
    results.print(line + Text(printable(f": {problem.message}{where}")))


def _read(target: str) -> bytes:
    try:
        if target == "-":
            return sys.stdin.buffer.read(MAX_BODY_BYTES + 1)
        with Path(target).open("rb") as file:
            return file.read(MAX_BODY_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {target}: {error.strerror}", hint="give a file, a URL or a host"
        ) from error


def _identifier(text: str | None) -> str | None:
    try:
        return None if text is None else canonical_name(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"--identifier {text!r} {error}", hint="give the host name of the proxy") from error


def _prefixes(texts: list[str] | None) -> tuple[IPv6Network, ...] | None:
    try:
        return None if texts is None else tuple(IPv6Network(text) for text in texts)
    except ValueError as error:
        raise ConfigurationError(f"--network-prefix: {error}", hint="write it like 2001:db8:1::/64") from error
