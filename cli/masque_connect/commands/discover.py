"""masque-connect discover HOST|URL: fetch and explain a provisioning domain document. Needs no privilege."""

from __future__ import annotations

import argparse
from typing import Any

from rich.table import Table
from rich.text import Text

from masque_client.errors import ConfigurationError
from masque_client.pvd.discover import Discovery, discover
from masque_client.pvd.match import Flow, FlowKind, Selection, Step
from masque_client.pvd.proxies import PvdProxy
from masque_client.pvd.rules import ProxyRule
from masque_connect import options as shared
from masque_connect.render import SCHEMA_VERSION, print_json, printable, results
from masque_connect.running import run_until_signal


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `discover` to the command line."""
    parser = commands.add_parser(
        "discover",
        help="what proxies a host offers",
        description="Fetch https://HOST/.well-known/pvd (RFC 8801) and show the proxies and rules in it.",
    )
    parser.add_argument("source", metavar="HOST|URL", help="a host name, or the URL of a PvD document")
    parser.add_argument(
        "--for",
        dest="destination",
        metavar="[udp:|tcp:]DEST[:PORT]",
        help="which proxy a destination would use, and why",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    shared.add_trust(parser, client_certificate=False)
    shared.add_verbose(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Fetch once, print, end."""
    flow = parse_flow(options.destination) if options.destination else None
    found = run_until_signal(discover(options.source, tls=shared.tls_configuration(options)))
    decision = found.matcher().explain(flow) if flow else None
    if options.json:
        print_json(describe(found, flow, decision))
    else:
        _show(found, flow, decision)
    return 0


def parse_flow(text: str) -> Flow:
    """`[udp:|tcp:]DEST[:PORT]` → a flow; TCP unless it says otherwise.

    Raises:
        ConfigurationError: it is no destination.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind in ("udp", "tcp"):
        text = rest
    else:
        kind = "tcp"
    if text.count(":") > 1 and not text.startswith("["):
        return Flow(FlowKind(kind), text)  # a bare IPv6 address
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return Flow(FlowKind(kind), text)
    if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535):
        raise ConfigurationError(f"{port!r} is no port", hint="write DEST:PORT, such as db.example:5432")
    return Flow(FlowKind(kind), host, port=int(port))


def describe(
    found: Discovery, flow: Flow | None, decision: tuple[Selection, tuple[Step, ...]] | None
) -> dict[str, Any]:
    """The JSON form. Fields are only ever added."""
    document = found.document
    value: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "source": found.source.url,
        "identifier": document.identifier,
        "expires": document.expires.isoformat(),
        "proxies": [_describe_proxy(proxy) for proxy in document.proxies],
        "rules": [_describe_rule(rule) for rule in document.rules],
        "dns_zones": list(document.dns_zones),
        "ignored": [{"pointer": ignored.pointer, "reason": ignored.reason} for ignored in document.ignored],
        "warnings": list(document.warnings),
    }
    if flow is not None and decision is not None:
        selection, steps = decision
        value["decision"] = {
            "destination": str(flow),
            "verdict": str(selection.verdict),
            "proxies": [[proxy.text for proxy in group] for group in selection.groups],
            "trace": [{"rule": step.rule and step.rule.pointer, "reason": step.reason} for step in steps],
        }
    return value


def _describe_proxy(proxy: PvdProxy) -> dict[str, Any]:
    return {
        "protocol": str(proxy.protocol),
        "proxy": proxy.text,
        "alpn": list(proxy.alpn),
        "identifier": proxy.identifier,
    }


def _describe_rule(rule: ProxyRule) -> dict[str, Any]:
    return {
        "domains": [str(domain) for domain in rule.domains or ()],
        "subnets": [str(subnet) for subnet in rule.subnets or ()],
        "ports": [str(ports) for ports in rule.ports or ()],
        "proxies": list(rule.proxies),
    }


def _show(found: Discovery, flow: Flow | None, decision: tuple[Selection, tuple[Step, ...]] | None) -> None:
    document = found.document
    results.print(Text(f"{document.identifier}, valid until {document.expires:%Y-%m-%d %H:%M} UTC"))
    proxies = Table("protocol", "proxy", "HTTP", "only where rules name it")
    for proxy in document.proxies:
        cells = (str(proxy.protocol), proxy.text, ", ".join(proxy.alpn) or "any", proxy.identifier or "-")
        proxies.add_row(*(Text(printable(cell)) for cell in cells))
    results.print(proxies if document.proxies else Text("it offers no proxy that can be used"))
    if document.rules:
        rules = Table("rule", "destinations", "proxies")
        for number, rule in enumerate(document.rules, 1):
            proxies_text = "\n".join(rule.proxies) or "none of these proxies"
            rules.add_row(str(number), "\n".join(_conditions(rule)) or "all", Text(printable(proxies_text)))
        results.print(rules)
    for line in [f"ignored {ignored}" for ignored in document.ignored] + list(document.warnings):
        results.print(Text(printable(line)))
    if flow is not None and decision is not None:
        _show_decision(flow, *decision)


def _conditions(rule: ProxyRule) -> list[str]:
    """What a destination must be for the rule to match; parsed values, safe to print."""
    ports = [f"port {ports}" for ports in rule.ports or ()]
    return [*map(str, rule.domains or ()), *map(str, rule.subnets or ()), *ports]


def _show_decision(flow: Flow, selection: Selection, steps: tuple[Step, ...]) -> None:
    chosen = " or ".join(proxy.text for group in selection.groups for proxy in group)
    results.print(Text(printable(f"{flow}: {selection.verdict} {chosen}")))
    for number, step in enumerate(steps, 1):
        results.print(Text(f"  {f'rule {number}' if step.rule else 'otherwise'}: {step.reason}"))
