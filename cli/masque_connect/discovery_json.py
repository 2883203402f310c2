"""The JSON of `discover`, as masque_client/schemas/discover.schema.json publishes it. Fields are only ever added."""

from __future__ import annotations

from typing import Any

from masque_client.pvd.discover import Discovery
from masque_client.pvd.match import Flow, FlowKind, Selection, Step, carries
from masque_client.pvd.model import PvdDocument
from masque_client.pvd.network import NetworkDiscovery
from masque_client.pvd.proxies import PvdProxy
from masque_client.pvd.rules import ProxyRule
from masque_client.pvd.svcb import Hint
from masque_connect.render import SCHEMA_VERSION

Decision = tuple[Flow, Selection, tuple[Step, ...]]


def describe(
    found: Discovery | None,
    *,
    network: NetworkDiscovery | None = None,
    hint: Hint | None = None,
    decision: Decision | None = None,
) -> dict[str, Any]:
    """All of it; what does not apply is null, so that every field is always there."""
    return {
        "schema_version": SCHEMA_VERSION,
        **(_describe_document(found) if found else _NO_DOCUMENT),
        "dns_hint": hint and str(hint),
        "network": network and _describe_network(network),
        "decision": decision and _describe_decision(*decision),
    }


def _describe_document(found: Discovery) -> dict[str, Any]:
    document = found.document
    return {
        "source": found.source.url,
        "identifier": document.identifier,
        "expires": document.expires.isoformat(),
        "usable_until": document.usable_until.isoformat(),
        "received_at": found.download and found.download.received_at.isoformat(),
        "from_cache": found.is_from_cache,
        "proxies": [_describe_proxy(proxy, document) for proxy in document.proxies],
        "rules": [_describe_rule(rule) for rule in document.rules],
        "proxy_configuration_ignored": document.is_proxy_configuration_ignored,
        "dns_zones": list(document.dns_zones),
        "prefixes": [str(prefix) for prefix in document.prefixes],
        "no_internet": document.no_internet,
        "split_dns_claims": [
            {"resolver": claim.resolver, "parent": claim.parent, "subdomains": list(claim.subdomains)}
            for claim in document.split_dns_claims
        ],
        "ignored": [{"pointer": ignored.pointer, "reason": ignored.reason} for ignored in document.ignored],
        "warnings": list(document.warnings),
    }


_NO_DOCUMENT: dict[str, Any] = {
    **dict.fromkeys(("source", "identifier", "expires", "usable_until", "received_at", "no_internet")),
    **dict.fromkeys(("from_cache", "proxy_configuration_ignored"), False),
    **{key: [] for key in ("proxies", "rules", "dns_zones", "prefixes", "split_dns_claims", "ignored", "warnings")},
}


def _describe_proxy(proxy: PvdProxy, document: PvdDocument) -> dict[str, Any]:
    return {
        "protocol": str(proxy.protocol),
        "proxy": proxy.text,
        "host": proxy.authority.host,
        "port": proxy.authority.port,
        "alpn": list(proxy.alpn),
        "identifier": proxy.identifier,
        "carries": [str(kind) for kind in FlowKind if carries(proxy, kind)],
        "named_by": [rule.pointer for rule in document.rules if proxy.identifier in rule.proxies],
        "pointer": proxy.pointer,
    }


def _describe_rule(rule: ProxyRule) -> dict[str, Any]:
    return {
        "domains": [str(domain) for domain in rule.domains or ()],
        "subnets": [str(subnet) for subnet in rule.subnets or ()],
        "ports": [str(ports) for ports in rule.ports or ()],
        "proxies": list(rule.proxies),
        "pointer": rule.pointer,
    }


def _describe_decision(flow: Flow, selection: Selection, steps: tuple[Step, ...]) -> dict[str, Any]:
    return {
        "destination": str(flow),
        "verdict": str(selection.verdict),
        "rule": selection.rule and selection.rule.pointer,
        "proxies": [[proxy.text for proxy in group] for group in selection.groups],
        "trace": [{"rule": step.rule and step.rule.pointer, "reason": step.reason} for step in steps],
    }


def _describe_network(network: NetworkDiscovery) -> dict[str, Any]:
    advertisement, option = network.advertisement, network.advertisement.pvd
    return {
        "interface": network.interface,
        "router": str(advertisement.router),
        "pvd_id": option and option.pvd_id,
        "has_document": bool(option and option.has_document),
        "sequence_number": option and option.sequence_number,
        "delay": option and option.delay,
        "prefixes": [str(prefix) for prefix in advertisement.prefixes],
        "resolvers": [str(resolver) for resolver in advertisement.resolvers],
    }
