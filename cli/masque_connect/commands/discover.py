"""masque-connect discover HOST|URL|--interface IF: fetch and explain a provisioning domain document."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta

from rich.table import Table
from rich.text import Text

from masque_client.engine.interface import TlsConfiguration
from masque_client.errors import ConfigurationError
from masque_client.pvd.cache import PvdCache
from masque_client.pvd.discover import Discovery, discover
from masque_client.pvd.match import Flow, FlowKind, Matcher, Selection, Step, Verdict
from masque_client.pvd.model import PvdDocument
from masque_client.pvd.network import NetworkDiscovery, discover_network
from masque_client.pvd.source import PvdSource
from masque_client.pvd.svcb import Hint, look_up_hint
from masque_client.pvd.trust import NetworkPvdTrust
from masque_connect import options as shared
from masque_connect.discovery_json import describe
from masque_connect.render import print_json, printable, results
from masque_connect.running import run_until_signal

_MEANINGS = {
    Verdict.PROXY: "goes through a proxy",
    Verdict.EXCLUDED: "is excluded: no proxy of this document may be used",
    Verdict.NO_MATCH: "is not covered: no proxy of this document takes it",
    Verdict.LOCAL_DENY: "is not to be proxied on this machine",
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `discover` to the command line."""
    parser = commands.add_parser(
        "discover",
        help="what proxies a host offers",
        description="Fetch https://HOST/.well-known/pvd (RFC 8801) and show the proxies and rules in it. A document "
        "that was fetched before and may still be used is shown without fetching it again.",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("source", nargs="?", metavar="HOST|URL", help="a host, a proxy's URL, or a PvD document's URL")
    where.add_argument("--interface", metavar="IF", help="ask this network for its PvD instead; needs CAP_NET_RAW")
    parser.add_argument(
        "--for",
        dest="destination",
        metavar="[udp:|tcp:]DEST[:PORT]",
        help="which proxy a destination would use, and why",
    )
    parser.add_argument(
        "--explain", action="store_true", help="also say what the DNS hints, and where everything stands"
    )
    parser.add_argument("--refresh", action="store_true", help="fetch, even if a document is kept")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    shared.add_trust(parser, client_certificate=False)
    shared.add_verbose(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Discover once, print, end."""
    flow = parse_flow(options.destination) if options.destination else None
    tls = shared.tls_configuration(options)
    found, network, hint = run_until_signal(_discover(options, tls))
    decision = None
    if flow is not None and found is not None:
        usable = NetworkPvdTrust().narrow(found.document) if network else found.document
        decision = (flow, *Matcher(usable.proxies, usable.rules).explain(flow))
    if options.json:
        print_json(describe(found, network=network, hint=hint, decision=decision))
        return 0
    if network is not None:
        _show_network(network)
    if found is not None:
        _show(found, is_explained=options.explain)
    if hint is not None:
        results.print(Text(f"the HTTPS record's hint of a document is {hint}"))
    if decision is not None:
        _show_decision(*decision)
    return 0


async def _discover(
    options: argparse.Namespace, tls: TlsConfiguration
) -> tuple[Discovery | None, NetworkDiscovery | None, Hint | None]:
    if options.interface is not None:
        network = await discover_network(options.interface, tls=tls)
        return network.found, network, None
    source = PvdSource.parse(options.source)
    # What was believed because of --ca must not be believed by a later run without it.
    cache = PvdCache(PvdCache.user_directory() if tls.ca_file is None else None)
    found = await discover(source, tls=tls, cache=cache, refresh=options.refresh)
    hint = await look_up_hint(source.expected_identifier) if options.explain else None
    return found, None, hint


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


# --- for people -------------------------------------------------------------------------------------------------------


def _show(found: Discovery, *, is_explained: bool) -> None:
    document = found.document
    results.print(_line(f"{document.identifier}, {_validity(document)}"))
    if found.download is not None:
        how = "kept since" if found.is_from_cache else "fetched at"
        results.print(_line(f"{how} {found.download.received_at:%Y-%m-%d %H:%M} UTC from {found.source.url}"))
    _show_proxies(document, is_explained=is_explained)
    if document.rules:
        _show_rules(document)
    for name, values in (("DNS zones", document.dns_zones), ("network prefixes", document.prefixes)):
        if values:
            results.print(_line(f"{name}: {', '.join(map(str, values))}"))
    if document.no_internet:
        results.print(_line("the network says that it leads to no Internet"))
    for ignored in document.ignored:
        results.print(_line(f"ignored {ignored}"))
    for warning in document.warnings:
        results.print(_line(f"warning: {warning}"))


def _validity(document: PvdDocument) -> str:
    left = max(timedelta(), document.usable_until - datetime.now(UTC))
    hours, minutes = divmod(int(left.total_seconds()) // 60, 60)
    span = f"{hours // 24} days" if hours >= 48 else f"{hours} h {minutes} min"
    return f"valid until {document.expires:%Y-%m-%d %H:%M} UTC (usable for {span})"


def _show_proxies(document: PvdDocument, *, is_explained: bool) -> None:
    if not document.proxies:
        results.print(_line("it offers no proxy that can be used"))
        return
    table = Table("protocol", "proxy", "HTTP", "for", *(["at"] if is_explained else []))
    for proxy in document.proxies:
        rules = [str(number) for number, rule in enumerate(document.rules, 1) if proxy.identifier in rule.proxies]
        use = "anything" if proxy.identifier is None else f"rule {', '.join(rules)}" if rules else "nothing: no rule"
        name = f" ({proxy.identifier})" if proxy.identifier is not None else ""
        cells = [str(proxy.protocol), proxy.text, ", ".join(proxy.alpn) or "any", use + name]
        table.add_row(*map(_line, [*cells, proxy.pointer] if is_explained else cells))
    results.print(table)


def _show_rules(document: PvdDocument) -> None:
    table = Table("rule", "destinations", "proxies")
    for number, rule in enumerate(document.rules, 1):
        ports = [f"port {ports}" for ports in rule.ports or ()]
        conditions = [*map(str, rule.domains or ()), *map(str, rule.subnets or ()), *ports]
        proxies = "\n".join(rule.proxies) or "none of these proxies"
        table.add_row(str(number), Text("\n".join(conditions) or "all"), _line(proxies))
    results.print(table)


def _show_network(network: NetworkDiscovery) -> None:
    advertisement, option = network.advertisement, network.advertisement.pvd
    assert option is not None
    results.print(_line(f"the router {advertisement.router} at {network.interface} names the network {option.pvd_id}"))
    if network.found is None:
        results.print(_line("it has no document"))
    else:
        results.print(_line("what follows is for your information: a network's proxies are not used by themselves"))


def _show_decision(flow: Flow, selection: Selection, steps: tuple[Step, ...]) -> None:
    results.print(_line(f"{flow} {_MEANINGS[selection.verdict]}"))
    for number, group in enumerate(selection.groups, 1):
        results.print(_line(f"  {'first' if number == 1 else 'then'}: {' or '.join(proxy.text for proxy in group)}"))
    for number, step in enumerate(steps, 1):
        results.print(_line(f"  {f'rule {number}' if step.rule else 'otherwise'}: {step.reason}"))


def _line(text: str) -> Text:
    return Text(printable(text))
