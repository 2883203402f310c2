"""Which proxies to try: from what a person typed to candidates, in order of preference, and the rules for their use.

HOST[:PORT]                     discovered: the PvD document of HOST names the proxies
https://HOST/.well-known/pvd    discovered: that very document
https://HOST[:PORT]             the default templates of RFC 9298 §2 and RFC 9484 §3 on that authority
https://HOST[:PORT]/path…       a URI template; nothing is fetched
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from masque_client.engine.interface import TlsConfiguration
from masque_client.errors import ConfigurationError, PvdError
from masque_client.netio.resolver import resolve_past_tunnels
from masque_client.protocol.uri_template import (
    IpTemplate,
    UdpTemplate,
    default_ip_template,
    default_udp_template,
)
from masque_client.pvd.discover import Discovery, discover
from masque_client.pvd.fetch import DEFAULT_OPTIONS, FetchOptions
from masque_client.pvd.match import LocalPolicy, Matcher
from masque_client.pvd.model import PvdDocument
from masque_client.pvd.names import HostPort
from masque_client.pvd.proxies import ProxyProtocol, PvdProxy
from masque_client.pvd.rules import ProxyRule
from masque_client.pvd.source import WELL_KNOWN_PATH, PvdSource

Template = TypeVar("Template", UdpTemplate, IpTemplate)


@dataclass(frozen=True, slots=True)
class ProxyChoice:
    """What the words lead to.

    Attributes:
        candidates: proxies of the wanted protocol, best first; never empty. Each still has rules to obey.
        proxies: all proxies that the rules may name, of whatever protocol, in the document's order.
        rules: in the document's order.
        document: where they come from; None for a URL of the user's, which has no rules.
    """

    candidates: tuple[PvdProxy, ...]
    proxies: tuple[PvdProxy, ...]
    rules: tuple[ProxyRule, ...] = ()
    document: PvdDocument | None = None

    def matcher(self, policy: LocalPolicy | None = None) -> Matcher:
        """The rules, compiled."""
        return Matcher(self.proxies, self.rules, policy=policy)


def document_source(text: str) -> PvdSource | None:
    """The document that `text` leads to; None when it names a proxy by itself."""
    if "://" in text and urlsplit(text).path != WELL_KNOWN_PATH:
        return None
    return PvdSource.parse(text)


async def udp_proxies(text: str, tls: TlsConfiguration) -> ProxyChoice:
    """CONNECT-UDP proxies for `text`: `candidates[n].proxy` is a `UdpTemplate`.

    Raises:
        ConfigurationError, TemplateError, PvdError: `text` or the document it leads to names none.
        ConnectError, TlsError: the document could not be fetched.
    """
    return await _proxies(text, tls, ProxyProtocol.CONNECT_UDP, UdpTemplate.parse, default_udp_template)


async def ip_proxies(text: str, tls: TlsConfiguration, options: FetchOptions = DEFAULT_OPTIONS) -> ProxyChoice:
    """CONNECT-IP proxies for `text`, whose `proxy` is an `IpTemplate`; as `udp_proxies`."""
    return await _proxies(text, tls, ProxyProtocol.CONNECT_IP, IpTemplate.parse, default_ip_template, options)


def past_tunnels(mark: int) -> FetchOptions:
    """For asking for a document while a tunnel, whose sockets carry `mark`, is in the way and down."""
    return FetchOptions(mark=mark, resolve=resolve_past_tunnels(mark))


async def _proxies(
    text: str,
    tls: TlsConfiguration,
    protocol: ProxyProtocol,
    parse: Callable[[str], Template],
    default: Callable[[str], Template],
    options: FetchOptions = DEFAULT_OPTIONS,
) -> ProxyChoice:
    url = urlsplit(text)
    if "://" in text and url.scheme != "https":
        raise ConfigurationError(f"{text}: only https is safe to tunnel through", hint="write https://…")
    if (source := document_source(text)) is not None:
        return choose(await discover(source, tls=tls, options=options), protocol)
    if url.path in ("", "/") and not url.query:
        return _of_template(protocol, default(url.netloc))
    return _of_template(protocol, parse(text))


def choose(found: Discovery, protocol: ProxyProtocol) -> ProxyChoice:
    """The proxies of one protocol in a document.

    Raises:
        PvdError: there is none.
    """
    candidates = found.candidates(protocol)
    if not candidates:
        raise PvdError(
            f"{found.document.identifier} offers no {protocol} proxy",
            hint=f"see what it offers: masque-connect discover {found.source.url}",
        )
    return ProxyChoice(tuple(candidates), found.document.proxies, found.document.rules, found.document)


def _of_template(protocol: ProxyProtocol, template: UdpTemplate | IpTemplate) -> ProxyChoice:
    proxy = PvdProxy(protocol, template, template.text, HostPort(template.host, template.port))
    return ProxyChoice((proxy,), (proxy,))
