"""What this machine is to do about names while a tunnel is up: a value, not yet anybody's act.

`tunnel.dns` computes a `DnsConfiguration` from what the proxy assigned; an adapter of this room makes it so. Nothing
applies it so far: this file is the agreement between the two.

Whoever implements it must:

- Answer `claim_for(name)` for every name asked on this machine, by the longest claimed suffix, label by label.
  Claimed: ask that claim's resolvers, lowest priority first and in random order among equals, and no other, whatever
  fails. A claim without resolvers, or one whose resolvers all fail, is SERVFAIL: never another server, since the name
  alone may be a secret.
- Unclaimed names go to the resolver that the machine had before with `UnclaimedNames.SYSTEM`, and nowhere with
  `UnclaimedNames.BLOCK` (SERVFAIL, and no packet to port 53 or 853 outside the tunnel).
- Use a resolver only by its `transports`, the first one that it can speak. Encrypted: verify the certificate for
  `name`; when that fails the resolver is down, and its plain port is no fallback. Plain (`DnsTransport.PLAIN`): the
  query must leave through the tunnel's device even where another route is more specific, as in attached networks.
- Reach `is_proxy` resolvers by requests of their own on the proxy's HTTPS connection (draft §3.5), as POST with DNS
  message id 0 (RFC 8484 §4.1), and other resolvers without `addresses` by resolving `name` once, before applying, with
  the resolver the machine had.
- Leave alone the names that are not asked of a server: localhost (RFC 6761), .local (RFC 6762).
- Complete only those short names with `search_domains` that the stub resolver would complete anyway.
- Apply a changed configuration as a whole, do nothing for an equal one, and revert on `restore`, on leaving and after
  a crash (`clean_up`), like every other part of `HostNetwork`.
- Refuse with a `HostError` what it cannot do, rather than do half of it: without a resolver that knows routing
  domains (systemd-resolved: `~corp.example`, and `~.` for the root) only a claim on the root can be written to
  resolv.conf.
- Synthesize with the first of `nat64_prefixes` only, recognise all of them, and stop at once when they are gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final


class DnsTransport(StrEnum):
    """How a resolver is asked. The values of encrypted ones are their ALPN ids (RFC 9461 §4)."""

    PLAIN = "dns"
    """UDP and TCP (RFC 1035)."""
    TLS = "dot"
    """RFC 7858."""
    QUIC = "doq"
    """RFC 9250."""
    HTTPS_2 = "h2"
    """RFC 8484 over HTTP/2."""
    HTTPS_3 = "h3"
    """RFC 8484 over HTTP/3."""

    @property
    def default_port(self) -> int:
        """The port unless the resolver says another."""
        return _DEFAULT_PORTS[self]


_DEFAULT_PORTS: Final = {
    DnsTransport.PLAIN: 53,
    DnsTransport.TLS: 853,
    DnsTransport.QUIC: 853,
    DnsTransport.HTTPS_2: 443,
    DnsTransport.HTTPS_3: 443,
}


class UnclaimedNames(StrEnum):
    """Where names go that no claim covers."""

    SYSTEM = "system"
    """To whoever resolved them before: a split tunnel."""
    BLOCK = "block"
    """Nowhere: a full tunnel, where asking outside would leak."""


@dataclass(frozen=True, slots=True)
class Resolver:
    """One server that may be asked.

    Attributes:
        priority: lower ones first.
        transports: never empty, best first. Either all encrypted, or `PLAIN` alone.
        addresses: where it is. Of a plain resolver only those that the tunnel's routes cover.
        port: None for each transport's default.
        name: what its certificate must show; empty for a plain one.
        doh_path: URI template of DoH requests, relative to `https://name[:port]`; set when a transport is DoH.
        is_proxy: it is the proxy itself, on the very connection that carries the tunnel.
    """

    priority: int
    transports: tuple[DnsTransport, ...]
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()
    port: int | None = None
    name: str = ""
    doh_path: str | None = None
    is_proxy: bool = False

    def port_for(self, transport: DnsTransport) -> int:
        """The port to ask at."""
        return self.port or transport.default_port


@dataclass(frozen=True, slots=True)
class DnsClaim:
    """`domain` (canonical; empty is the root) and everything below it belong to `resolvers`, by ascending priority."""

    domain: str
    resolvers: tuple[Resolver, ...] = ()


@dataclass(frozen=True, slots=True)
class DnsConfiguration:
    """All that a tunnel wants of this machine's name resolution; see the module for what that means.

    Attributes:
        claims: each domain once.
        unclaimed: what becomes of other names.
        search_domains: to complete short names with, in order.
        nat64_prefixes: usable ones (RFC 6052), the first for synthesis.
        remarks: what the proxy said that is not in here, and why; for people.
    """

    claims: tuple[DnsClaim, ...] = ()
    unclaimed: UnclaimedNames = UnclaimedNames.SYSTEM
    search_domains: tuple[str, ...] = ()
    nat64_prefixes: tuple[IPv6Network, ...] = ()
    remarks: tuple[str, ...] = ()

    def claim_for(self, name: str) -> DnsClaim | None:
        """The claim that decides about `name`, in any case and with or without a trailing dot; None if unclaimed."""
        by_domain = {claim.domain: claim for claim in self.claims}
        suffix = name.lower().removesuffix(".")
        while suffix and suffix not in by_domain:
            suffix = suffix.partition(".")[2]
        return by_domain.get(suffix)
