"""Entries of `proxies`: one mistake drops one entry, and never makes it accept more."""

from __future__ import annotations

from typing import Any

import pytest

from masque_client.errors import ConfigurationError, TemplateError
from masque_client.protocol.uri_template import IpTemplate, UdpTemplate
from masque_client.pvd.names import HostPort
from masque_client.pvd.policy import ParsePolicy
from masque_client.pvd.proxies import ProxyProtocol, parse_proxies, parse_proxy
from masque_client.pvd.values import BadValue
from tests.unit.pvd.documents import LEFT_OUT, TLS_PROXY, UDP_PROXY

TRUSTING = ParsePolicy(reached_over_tls=False)


def changed(entry: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in (entry | changes).items() if value is not LEFT_OUT}


@pytest.mark.parametrize(
    ("protocol", "text", "kind", "authority"),
    [
        ("socks5", "proxy.example:1080", HostPort, "proxy.example:1080"),
        ("http-connect", "192.0.2.1:3128", HostPort, "192.0.2.1:3128"),
        ("https-connect", "[2001:db8:5::10]:8443", HostPort, "[2001:db8:5::10]:8443"),
        ("connect-tcp", "https://proxy.example/t{?target_host,target_port}", UdpTemplate, "proxy.example:443"),
        ("connect-udp", "https://proxy.example:4443/{target_host}/{target_port}/", UdpTemplate, "proxy.example:4443"),
        ("connect-udp", "https://p.example/u{?target_host,target_port,user}", UdpTemplate, "p.example:443"),
        ("connect-ip", "https://proxy.example/ip", IpTemplate, "proxy.example:443"),
        ("connect-ip", "https://proxy.example/ip{?target,ipproto}", IpTemplate, "proxy.example:443"),
    ],
)
def test_every_protocol_has_its_own_location(protocol: str, text: str, kind: type, authority: str) -> None:
    (proxy,), ignored = parse_proxies([{"protocol": protocol, "proxy": text}], TRUSTING)
    assert (proxy.protocol, str(proxy.authority), proxy.text) == (protocol, authority, text)
    assert isinstance(proxy.proxy, kind)
    assert (proxy.alpn, proxy.identifier, ignored) == ((), None, ())


@pytest.mark.parametrize(
    "entry",
    [
        "https://proxy.example/",
        None,
        {},
        changed(UDP_PROXY, protocol=LEFT_OUT),
        changed(UDP_PROXY, protocol="masque"),
        changed(UDP_PROXY, protocol="direct"),
        changed(UDP_PROXY, protocol="CONNECT-UDP"),
        changed(UDP_PROXY, protocol=["connect-udp"]),
        changed(UDP_PROXY, proxy=LEFT_OUT),
        changed(UDP_PROXY, proxy=7),
        changed(UDP_PROXY, proxy=""),
        changed(UDP_PROXY, proxy="proxy.example:443"),
        changed(UDP_PROXY, proxy="http://proxy.example/u{?target_host,target_port}"),
        changed(UDP_PROXY, proxy="https://proxy.example/u{?target_host}"),
        changed(UDP_PROXY, proxy="https://proxy.example/u{+target_host}/{target_port}"),
        changed(UDP_PROXY, proxy="https://proxy.example/u/{target_host:3}/{target_port}"),
        changed(UDP_PROXY, proxy="https://proxy.example/u/{target_host}/{target_port*}"),
        changed(UDP_PROXY, proxy="https://{target_host}/u/{target_port}"),
        changed(UDP_PROXY, proxy="https://proxy.example{?target_host,target_port}"),
        changed(UDP_PROXY, proxy="/u{?target_host,target_port}"),
        changed(UDP_PROXY, proxy="https://proxy.example/u{?target_host,target_port}#top"),
        changed(UDP_PROXY, proxy="https://me:secret@proxy.example/u{?target_host,target_port}"),
        changed(UDP_PROXY, proxy="https://proxy.example/ü{?target_host,target_port}"),
        changed(UDP_PROXY, proxy="https://127.0.0.1/u{?target_host,target_port}"),
        changed(TLS_PROXY, proxy="https://proxy.example:443"),
        changed(TLS_PROXY, proxy="proxy.example"),
        changed(TLS_PROXY, proxy="user@proxy.example:443"),
        changed(TLS_PROXY, proxy="proxy.example:443/path"),
        changed(TLS_PROXY, proxy=" proxy.example:443"),
        changed(TLS_PROXY, proxy="127.0.0.1:443"),
        changed(TLS_PROXY, proxy="[::1]:443"),
        changed(TLS_PROXY, proxy="[::ffff:127.0.0.1]:443"),
        changed(TLS_PROXY, proxy="169.254.169.254:443"),
        changed(TLS_PROXY, proxy="[fe80::1]:443"),
        changed(TLS_PROXY, proxy="224.0.0.1:443"),
        changed(TLS_PROXY, proxy="0.0.0.0:443"),
        changed(TLS_PROXY, mandatory="alpn"),
        changed(TLS_PROXY, mandatory=["alpn"]),
        changed(TLS_PROXY, mandatory=[1]),
        changed(TLS_PROXY, mandatory=["acme_x"], acme_x=1),
        changed(TLS_PROXY, mandatory=["alpn"], alpn=["h3", 2]),
        changed(TLS_PROXY, mandatory=["alpn"], alpn=["h3", ""]),
        changed(TLS_PROXY, identifier=""),
        changed(TLS_PROXY, identifier=None),
        changed(TLS_PROXY, identifier=5),
        changed(TLS_PROXY, match=[]),
        changed(TLS_PROXY, exclude=[]),
        changed(TLS_PROXY, matchDomains=["a.example"]),
        changed(TLS_PROXY, excludeDomains=["a.example"]),
        changed(TLS_PROXY, excludedDomains=["a.example"]),
        changed(TLS_PROXY, matchSubnets=[]),
        changed(TLS_PROXY, excludeSubnets=[]),
        changed(TLS_PROXY, matchPorts=[]),
        {"protocol": "socks5", "proxy": "proxy.example:1080"},
        {"protocol": "http-connect", "proxy": "proxy.example:3128"},
    ],
)
def test_a_bad_entry_is_dropped_alone(entry: object) -> None:
    proxies, ignored = parse_proxies([UDP_PROXY, entry, TLS_PROXY], ParsePolicy())
    assert [proxy.pointer for proxy in proxies] == ["/proxies/0", "/proxies/2"]
    assert [one.pointer for one in ignored] == ["/proxies/1"]


@pytest.mark.parametrize(
    ("changes", "alpn", "ignored_keys"),
    [
        ({"alpn": ["h3", "h2", "spdy/9"]}, ("h3", "h2", "spdy/9"), []),
        ({"alpn": []}, (), []),
        ({"alpn": "h3"}, (), ["alpn"]),
        ({"alpn": ["h3", ""]}, (), ["alpn"]),
        ({"mandatory": []}, (), []),
        ({"mandatory": ["protocol", "proxy", "alpn"], "alpn": ["h3"]}, ("h3",), []),
        ({"google_chrome": {"auth": 1}}, (), ["google_chrome"]),
        ({"_": 1, "color": "red"}, (), ["_", "color"]),
        ({"matching": 1}, (), ["matching"]),
    ],
)
def test_hints_and_unknown_keys_do_not_drop_an_entry(
    changes: dict[str, Any], alpn: tuple[str, ...], ignored_keys: list[str]
) -> None:
    (proxy,), ignored = parse_proxies([TLS_PROXY | changes], ParsePolicy())
    assert proxy.alpn == alpn
    assert [one.pointer for one in ignored] == [f"/proxies/0/{key}" for key in ignored_keys]


def test_identifiers_are_opaque_and_may_repeat() -> None:
    entries = [TLS_PROXY | {"identifier": name} for name in ("Main", "main", "main", "ü", "*")]
    proxies, _ = parse_proxies(entries, ParsePolicy())
    assert [proxy.identifier for proxy in proxies] == ["Main", "main", "main", "ü", "*"]


def test_a_cleartext_proxy_needs_the_users_word() -> None:
    entries = [{"protocol": "socks5", "proxy": "proxy.example:1080"}, {"protocol": "socks5", "proxy": "b.example:1080"}]
    allowed = ParsePolicy(allowed_cleartext=frozenset({"proxy.example:1080"}))
    proxies, ignored = parse_proxies(entries, allowed)
    assert [str(proxy.authority) for proxy in proxies] == ["proxy.example:1080"]
    assert "downgrade" in ignored[0].reason
    assert len(parse_proxies(entries, TRUSTING)[0]) == 2


def test_a_loopback_proxy_needs_the_users_word() -> None:
    policy = ParsePolicy(allowed_literals=frozenset({"127.0.0.1"}))
    assert len(parse_proxies([changed(TLS_PROXY, proxy="127.0.0.1:443")], policy)[0]) == 1


@pytest.mark.parametrize("value", [None, {}, "x", [UDP_PROXY] * 65])
def test_a_bad_list_is_the_callers_to_judge(value: object) -> None:
    with pytest.raises(BadValue):
        parse_proxies(value, ParsePolicy())


def test_a_user_may_configure_one_directly() -> None:
    assert parse_proxy(ProxyProtocol.CONNECT_IP, "https://proxy.example/ip").authority == HostPort("proxy.example", 443)
    with pytest.raises(TemplateError):
        parse_proxy(ProxyProtocol.CONNECT_UDP, "https://proxy.example/u")
    with pytest.raises(ConfigurationError):
        parse_proxy(ProxyProtocol.HTTPS_CONNECT, "proxy.example")
