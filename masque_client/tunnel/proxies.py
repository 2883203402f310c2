"""Which proxies to try: from what a person typed to URI templates, in order of preference.

HOST[:PORT]                     discovered: the PvD document of HOST names the proxies
https://HOST/.well-known/pvd    discovered: that very document
https://HOST[:PORT]             the default templates of RFC 9298 §2 and RFC 9484 §3 on that authority
https://HOST[:PORT]/path…       a URI template; nothing is fetched
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from masque_client.engine.interface import TlsConfiguration
from masque_client.errors import ConfigurationError, ConnectError, PvdError
from masque_client.http.connector import ConnectOptions, ProxyConnection, connect
from masque_client.netio.clock import Clock
from masque_client.protocol.uri_template import (
    IpTemplate,
    UdpTemplate,
    default_ip_template,
    default_udp_template,
)
from masque_client.pvd.discover import discover
from masque_client.pvd.proxies import ProxyProtocol

Template = TypeVar("Template", UdpTemplate, IpTemplate)


async def udp_proxies(text: str, tls: TlsConfiguration) -> list[UdpTemplate]:
    """CONNECT-UDP templates to try for `text`, best first; never empty.

    Raises:
        ConfigurationError, TemplateError, PvdError: `text` or the document it leads to names none.
        ConnectError, TlsError: the document could not be fetched.
    """
    return await _proxies(text, tls, ProxyProtocol.CONNECT_UDP, UdpTemplate.parse, default_udp_template)


async def ip_proxies(text: str, tls: TlsConfiguration) -> list[IpTemplate]:
    """CONNECT-IP templates to try for `text`; as `udp_proxies`."""
    return await _proxies(text, tls, ProxyProtocol.CONNECT_IP, IpTemplate.parse, default_ip_template)


async def connect_first(
    templates: list[Template], options: ConnectOptions, clock: Clock
) -> tuple[Template, ProxyConnection]:
    """Connect to the first proxy that can be reached; the error of the last one when none can.

    Only unreachability moves on to the next: a proxy that refuses us, or that we must not trust, has answered.
    """
    failure: ConnectError | None = None
    for template in templates:
        try:
            return template, await connect(template.host, template.port, options, clock)
        except ConnectError as error:
            failure = error
    assert failure is not None, "connect_first needs at least one template"
    raise failure


async def _proxies(
    text: str,
    tls: TlsConfiguration,
    protocol: ProxyProtocol,
    parse: Callable[[str], Template],
    default: Callable[[str], Template],
) -> list[Template]:
    if "://" in text:
        url = urlsplit(text)
        if url.scheme != "https":
            raise ConfigurationError(f"{text}: only https is safe to tunnel through", hint="write https://…")
        if url.path in ("", "/") and not url.query:
            return [default(url.netloc)]
        if url.path != "/.well-known/pvd":
            return [parse(text)]
    found = await discover(text, tls=tls)
    templates = [proxy.proxy for proxy in found.candidates(protocol)]
    if not templates:
        raise PvdError(
            f"{found.document.identifier} offers no {protocol} proxy for all traffic",
            hint=f"see what it offers: masque-connect discover {text}",
        )
    return [template for template in templates if isinstance(template, type(default("proxy.invalid")))]
