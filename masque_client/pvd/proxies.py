"""The array `proxies`: which proxies exist and how to reach them (PROXY-CONFIG §3)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from masque_client.errors import ConfigurationError
from masque_client.protocol.uri_template import IpTemplate, UdpTemplate
from masque_client.pvd.names import HostPort, unmapped
from masque_client.pvd.policy import ParsePolicy
from masque_client.pvd.values import BadValue, Ignored, JsonObject, at, child, quoted, string_list, type_name

MAX_PROXIES = 64

UNDERSTOOD_KEYS = frozenset({"protocol", "proxy", "mandatory", "alpn", "identifier"})
# Drafts -01 to -04 restricted an entry with these; to skip them as unknown would make it accept any destination.
_OUTDATED_RESTRICTION = re.compile(r"(?:match|excluded?)(?:[A-Z].*)?", re.DOTALL)


class ProxyProtocol(StrEnum):
    """How a proxy is spoken to: the IANA registry "Proxy Protocol PvD Values" (PROXY-CONFIG Table 2)."""

    SOCKS5 = "socks5"
    HTTP_CONNECT = "http-connect"
    HTTPS_CONNECT = "https-connect"
    CONNECT_TCP = "connect-tcp"
    CONNECT_UDP = "connect-udp"
    CONNECT_IP = "connect-ip"

    @property
    def is_cleartext(self) -> bool:
        """Nothing protects the connection to the proxy itself."""
        return self in (ProxyProtocol.SOCKS5, ProxyProtocol.HTTP_CONNECT)

    @property
    def has_template(self) -> bool:
        """The proxy is named by a URI template instead of host:port."""
        return self in (ProxyProtocol.CONNECT_TCP, ProxyProtocol.CONNECT_UDP, ProxyProtocol.CONNECT_IP)


ProxyLocation = UdpTemplate | IpTemplate | HostPort
"""`UdpTemplate` also stands for connect-tcp, whose variables and restrictions are the same."""


@dataclass(frozen=True, slots=True)
class PvdProxy:
    """One usable entry of `proxies`.

    Attributes:
        protocol: how to speak to it.
        proxy: where it is, validated: a template for connect-tcp, connect-udp and connect-ip, else host:port.
        text: the same as it was written.
        authority: host and port to connect to.
        alpn: the HTTP versions the proxy says it speaks, as a hint; empty when it does not say.
        identifier: with one, the proxy may only be used where a rule names it; without, for any destination.
        pointer: where the entry stands in the document, for messages.
    """

    protocol: ProxyProtocol
    proxy: ProxyLocation
    text: str
    authority: HostPort
    alpn: tuple[str, ...] = ()
    identifier: str | None = None
    pointer: str = ""


def parse_proxies(value: object, policy: ParsePolicy) -> tuple[tuple[PvdProxy, ...], tuple[Ignored, ...]]:
    """The usable entries in order, and everything that was left out.

    Raises:
        BadValue: not an array, or more than MAX_PROXIES entries: there is no proxy configuration then.
    """
    if not isinstance(value, list):
        raise BadValue("/proxies", f"must be an array, not {type_name(value)}")
    if len(value) > MAX_PROXIES:
        raise BadValue("/proxies", f"has {len(value)} entries, more than {MAX_PROXIES}")
    proxies: list[PvdProxy] = []
    ignored: list[Ignored] = []
    for index, entry in enumerate(value):
        pointer = child("/proxies", index)
        try:
            proxies.append(_parse_entry(entry, pointer, policy, ignored))
        except BadValue as error:
            ignored.append(error.as_ignored(pointer))
    return tuple(proxies), tuple(ignored)


def parse_proxy(protocol: ProxyProtocol, text: str, *, pointer: str = "") -> PvdProxy:
    """A proxy from its protocol and its location alone, as a user would configure it.

    Raises:
        ConfigurationError: the text does not name such a proxy (`TemplateError` for templates).
    """
    location: ProxyLocation
    if protocol.has_template:
        authority = HostPort.of_https_url(text)
        location = IpTemplate.parse(text) if protocol is ProxyProtocol.CONNECT_IP else UdpTemplate.parse(text)
    else:
        location = authority = HostPort.parse(text)
    return PvdProxy(protocol, location, text, authority, pointer=pointer)


def _parse_entry(entry: object, pointer: str, policy: ParsePolicy, ignored: list[Ignored]) -> PvdProxy:
    if not isinstance(entry, dict):
        raise BadValue(pointer, f"must be an object, not {type_name(entry)}")
    _refuse_outdated(entry, pointer)
    mandatory = _parse_mandatory(entry, pointer)
    protocol = _parse_protocol(entry, pointer)
    text = _required_string(entry, "proxy", pointer)
    with at(child(pointer, "proxy")):
        proxy = parse_proxy(protocol, text)
        _check_authority(proxy, policy)
    identifier = _parse_identifier(entry, pointer)
    alpn, dropped = _parse_alpn(entry, pointer, is_mandatory="alpn" in mandatory)
    unknown = [Ignored(child(pointer, key), _unknown_key_reason(key)) for key in entry if key not in UNDERSTOOD_KEYS]
    ignored.extend([*dropped, *unknown])
    return PvdProxy(protocol, proxy.proxy, text, proxy.authority, alpn, identifier, pointer)


def _refuse_outdated(entry: JsonObject, pointer: str) -> None:
    for key in entry:
        if _OUTDATED_RESTRICTION.fullmatch(key):
            raise BadValue(child(pointer, key), "restricts the proxy in a way that only outdated drafts define")


def _parse_mandatory(entry: JsonObject, pointer: str) -> frozenset[str]:
    keys = string_list(entry.get("mandatory", []), child(pointer, "mandatory"))
    for index, key in enumerate(keys):
        place = child(child(pointer, "mandatory"), index)
        if key not in entry:
            raise BadValue(place, f"the mandatory key {quoted(key)} is missing")
        if key not in UNDERSTOOD_KEYS:
            raise BadValue(place, f"the mandatory key {quoted(key)} is not understood")
    return frozenset(keys)


def _parse_protocol(entry: JsonObject, pointer: str) -> ProxyProtocol:
    value = _required_string(entry, "protocol", pointer)
    try:
        return ProxyProtocol(value)
    except ValueError as error:
        raise BadValue(child(pointer, "protocol"), f"the protocol {quoted(value)} is not known") from error


def _required_string(entry: JsonObject, key: str, pointer: str) -> str:
    if key not in entry:
        raise BadValue(pointer, f"the key {key} is missing")
    value = entry[key]
    if not isinstance(value, str):
        raise BadValue(child(pointer, key), f"must be a string, not {type_name(value)}")
    return value


def _check_authority(proxy: PvdProxy, policy: ParsePolicy) -> None:
    authority = str(proxy.authority)
    if proxy.protocol.is_cleartext and policy.reached_over_tls and authority not in policy.allowed_cleartext:
        raise ConfigurationError("is a cleartext proxy, a downgrade from the TLS connection it was learned over")
    if is_unreachable_literal(proxy.authority) and proxy.authority.host not in policy.allowed_literals:
        raise ConfigurationError("is an address that only this machine or link can reach")


def is_unreachable_literal(authority: HostPort) -> bool:
    """Loopback, link-local, multicast and unspecified addresses: a document must not point us at ourselves."""
    if authority.address is None:
        return False
    address = unmapped(authority.address)
    return address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified


def _parse_identifier(entry: JsonObject, pointer: str) -> str | None:
    """A bad identifier drops the entry: to treat it as absent would let the proxy accept any destination."""
    if "identifier" not in entry:
        return None
    identifier = _required_string(entry, "identifier", pointer)
    if not identifier:
        raise BadValue(child(pointer, "identifier"), "must not be empty")
    return identifier


def _parse_alpn(entry: JsonObject, pointer: str, *, is_mandatory: bool) -> tuple[tuple[str, ...], list[Ignored]]:
    """A hint, so a bad value is skipped, unless `mandatory` says that it must be understood."""
    place = child(pointer, "alpn")
    try:
        names = string_list(entry.get("alpn", []), place)
        if "" in names:
            raise BadValue(place, "must not contain an empty name")
    except BadValue as error:
        if is_mandatory:
            raise
        return (), [error.as_ignored(place)]
    return tuple(names), []


def _unknown_key_reason(key: str) -> str:
    vendor, _, name = key.rpartition("_")
    return f"proprietary to {quoted(vendor)}" if vendor and name else "not a known key"
