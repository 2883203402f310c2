"""What the user's word leaves of a document (PROXY-CONFIG §4.2, §5, §6). Nothing here ever adds a possibility.

    LocalScope         destinations to proxy at all, hosts that may be proxies, proxies that the user pinned
    NetworkPvdTrust    whether a document learned from a router advertisement may say anything about proxies
    may_receive_credentials    credentials stay with the host they were given for

That proxy host, `identifier` and certificate name agree is checked where a document comes in: `fetch` and `model`.
Pure: no clock, no resolver, no network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from masque_client.pvd.match import Flow
from masque_client.pvd.model import PvdDocument
from masque_client.pvd.proxies import PvdProxy
from masque_client.pvd.rules import DomainPattern, IpNetwork
from masque_client.pvd.source import PvdSource
from masque_client.pvd.values import Ignored


@dataclass(frozen=True, slots=True)
class LocalScope:
    """A `match.LocalPolicy` from what a user configured.

    Attributes:
        destinations: names and networks to be proxied; None means all. A document that names others adds nothing.
        proxy_hosts: names that proxies may have; None means any. Proxies on IP literals need `pinned`.
        pinned: proxies the user chose. Where there are any, no others are used, whatever a document prefers.
    """

    destinations: tuple[DomainPattern | IpNetwork, ...] | None = None
    proxy_hosts: tuple[DomainPattern, ...] | None = None
    pinned: tuple[PvdProxy, ...] = ()

    def wants_proxy(self, flow: Flow) -> bool:
        """Whether this destination is to be proxied at all."""
        return self.destinations is None or any(_covers(scope, flow) for scope in self.destinations)

    def allows(self, proxy: PvdProxy, flow: Flow) -> bool:
        """Whether this proxy may be used."""
        if self.pinned:
            return any(proxy.protocol is pin.protocol and proxy.proxy == pin.proxy for pin in self.pinned)
        return self.proxy_hosts is None or any(covers_name(hosts, proxy.authority.host) for hosts in self.proxy_hosts)


@dataclass(frozen=True, slots=True)
class NetworkPvdTrust:
    """Which networks may choose among the user's own proxies (PROXY-CONFIG §5). The default trusts none.

    Attributes:
        is_enabled: the feature's switch.
        allowed_pvd_ids: canonical names of networks whose documents count.
        allowed_proxy_hosts: hosts (canonical names) of proxies that the user's profile names.
    """

    is_enabled: bool = False
    allowed_pvd_ids: frozenset[str] = frozenset()
    allowed_proxy_hosts: frozenset[str] = frozenset()

    def narrow(self, document: PvdDocument) -> PvdDocument:
        """The document of a router advertisement, without the proxies that must not be used.

        Its rules stay where any proxy does: they choose among the rest, or exclude, and both only narrow. What goes is
        added to `ignored`, so that a person can be told. Zones and `noInternet` are for people in any case.
        """
        if refusal := self._refusal(document):
            ignored = (Ignored("/proxies", refusal), Ignored("/proxy-match", refusal))
            return replace(
                document,
                proxies=(),
                rules=(),
                is_proxy_configuration_ignored=True,
                ignored=(*document.ignored, *ignored),
            )
        kept = tuple(proxy for proxy in document.proxies if proxy.authority.host in self.allowed_proxy_hosts)
        dropped = tuple(
            Ignored(proxy.pointer, f"no profile names the proxy host {proxy.authority.host}")
            for proxy in document.proxies
            if proxy not in kept
        )
        return replace(document, proxies=kept, ignored=(*document.ignored, *dropped))

    def _refusal(self, document: PvdDocument) -> str:
        if not self.is_enabled:
            return "proxies of networks are not used unless a profile allows it"
        if document.identifier not in self.allowed_pvd_ids:
            return f"no profile trusts the network {document.identifier}"
        return ""


def may_receive_credentials(proxy: PvdProxy, source: PvdSource) -> bool:
    """Whether what the user gave for `source` (tokens, client certificate) may be shown to this proxy.

    Only to the very host the user named: a document may name any host, and must not thereby collect secrets.
    """
    return not proxy.protocol.is_cleartext and proxy.authority.host == source.expected_identifier


def covers_name(pattern: DomainPattern, name: str) -> bool:
    """Whether a canonical name is the pattern's, or below it where the pattern says so."""
    return name == pattern.name or (pattern.is_wildcard and name.endswith(f".{pattern.name}"))


def _covers(scope: DomainPattern | IpNetwork, flow: Flow) -> bool:
    if isinstance(scope, DomainPattern):
        return flow.host is not None and covers_name(scope, flow.host)
    return any(ip.version == scope.version and ip in scope for ip in flow.ips)
