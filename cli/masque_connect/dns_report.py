"""What a proxy says about names, for people and for programs."""

from __future__ import annotations

from typing import Any

from masque_client.host.dns import DnsClaim, DnsConfiguration, Resolver, UnclaimedNames


def describe_dns(dns: DnsConfiguration, *, applied: bool) -> dict[str, Any]:
    """The JSON form. `applied` tells whether this machine acts on it, or was only told."""
    return {
        "applied": applied,
        "claims": [
            {"domain": claim.domain or ".", "resolvers": [_describe_resolver(one) for one in claim.resolvers]}
            for claim in dns.claims
        ],
        "unclaimed": dns.unclaimed,
        "search_domains": dns.search_domains,
        "nat64_prefixes": tuple(map(str, dns.nat64_prefixes)),
        "remarks": dns.remarks,
    }


def dns_lines(dns: DnsConfiguration) -> list[str]:
    """Lines for a table of two columns; none when there is nothing to say."""
    lines = [f"dns       {_show_claim(claim)} (not applied)" for claim in dns.claims]
    if dns.unclaimed is UnclaimedNames.BLOCK:
        lines.append("dns       other names: nobody (not applied)")
    if dns.search_domains:
        lines.append(f"search    {', '.join(dns.search_domains)} (not applied)")
    if dns.nat64_prefixes:
        lines.append(f"nat64     {', '.join(map(str, dns.nat64_prefixes))} (not applied)")
    return [*lines, *(f"remark    {remark}" for remark in dns.remarks)]


def _describe_resolver(resolver: Resolver) -> dict[str, Any]:
    return {
        "priority": resolver.priority,
        "transports": resolver.transports,
        "addresses": tuple(map(str, resolver.addresses)),
        "port": resolver.port,
        "name": resolver.name or None,
        "doh_path": resolver.doh_path,
        "is_proxy": resolver.is_proxy,
    }


def _show_claim(claim: DnsClaim) -> str:
    domain = claim.domain or "every name"
    return f"{domain}: {'; '.join(map(_show_resolver, claim.resolvers)) or 'nobody'}"


def _show_resolver(resolver: Resolver) -> str:
    where = "the proxy" if resolver.is_proxy else resolver.name or ", ".join(map(str, resolver.addresses))
    return f"{where} ({', '.join(resolver.transports)})"
