import pytest

from masque_client.errors import ConfigurationError, TemplateError
from masque_client.protocol.uri_template import (
    IpTemplate,
    RequestTarget,
    UdpTemplate,
    default_ip_template,
    default_udp_template,
)

WELL_KNOWN_UDP = "https://example.org/.well-known/masque/udp/{target_host}/{target_port}/"
WELL_KNOWN_IP = "https://example.org/.well-known/masque/ip/{target}/{ipproto}/"
V6 = "2001:db8::42"


@pytest.mark.parametrize(
    ("template", "host", "port", "path"),
    [
        (WELL_KNOWN_UDP, "192.0.2.6", 443, "/.well-known/masque/udp/192.0.2.6/443/"),
        (WELL_KNOWN_UDP, V6, 443, "/.well-known/masque/udp/2001%3Adb8%3A%3A42/443/"),
        (
            "https://proxy.example.org:4443/masque?h={target_host}&p={target_port}",
            V6, 443, "/masque?h=2001%3Adb8%3A%3A42&p=443",
        ),
        (
            "https://proxy.example.org:4443/masque{?target_host,target_port}",
            V6, 443, "/masque?target_host=2001%3Adb8%3A%3A42&target_port=443",
        ),
        (
            "https://proxy.example.org/m?k=1{&target_host,target_port}",
            "192.0.2.6", 443, "/m?k=1&target_host=192.0.2.6&target_port=443",
        ),
        ("https://e.org/p/{target_host,target_port}", "a.example", 443, "/p/a.example,443"),
        ("https://e.org/%7Ea'/{target_host}/{target_port}", "a.example", 53, "/%7Ea'/a.example/53"),
        ("https://e.org/{target_host}/{target_port}{?token}", "a.example", 53, "/a.example/53"),
    ],
)  # fmt: skip
def test_udp_expansion_and_match(template, host, port, path):
    parsed = UdpTemplate.parse(template)
    assert parsed.expand(host, port).path == path
    assert parsed.match(path) == {"target_host": host, "target_port": str(port)}


@pytest.mark.parametrize(
    ("template", "scope", "path", "strict"),
    [
        (WELL_KNOWN_IP, ("*", "*"), "/.well-known/masque/ip/*/*/", "/.well-known/masque/ip/%2A/%2A/"),
        (
            WELL_KNOWN_IP,
            ("2001:db8::/32", 17), "/.well-known/masque/ip/2001%3Adb8%3A%3A%2F32/17/", None,
        ),
        (
            "https://proxy.example.org:4443/masque/ip?t={target}&i={ipproto}",
            ("192.0.2.0/24", "*"), "/masque/ip?t=192.0.2.0%2F24&i=*", "/masque/ip?t=192.0.2.0%2F24&i=%2A",
        ),
        (
            "https://proxy.example.org:4443/masque/ip{?target,ipproto}",
            ("target.example.com", 132), "/masque/ip?target=target.example.com&ipproto=132", None,
        ),
        ("https://proxy.example.org:4443/masque/ip{?target,ipproto}", (None, 17), "/masque/ip?ipproto=17", None),
        ("https://proxy.example.org:4443/masque/ip{?target,ipproto}", (None, None), "/masque/ip", None),
        ("https://masque.example.org/?user=bob", ("*", "*"), "/?user=bob", None),
        ("https://proxy.example/vpn", ("*", "*"), "/vpn", None),
        ("https://p.example/%2A/{target}", ("*", "*"), "/%2A/*", "/%2A/%2A"),
    ],
)  # fmt: skip
def test_ip_expansion_and_match(template, scope, path, strict):
    parsed = IpTemplate.parse(template)
    target, ipproto = scope
    assert parsed.expand(target, ipproto).path == path
    assert parsed.expand(target, ipproto, escape_wildcard=True).path == (strict or path)
    values = {"target": target, "ipproto": ipproto}
    expected = {name: str(value) for name, value in values.items() if value is not None and name in template}
    assert parsed.match(path) == parsed.match(strict or path) == expected


def test_request_target_keeps_the_authority_byte_for_byte():
    assert UdpTemplate.parse("HTTPS://Proxy.Example:443/{target_host}/{target_port}").expand("a", 1) == RequestTarget(
        "https", "Proxy.Example:443", "/a/1"
    )


@pytest.mark.parametrize(
    ("authority", "host", "port"),
    [
        ("proxy.example", "proxy.example", 443),
        ("proxy.example:4443", "proxy.example", 4443),
        ("192.0.2.1:443", "192.0.2.1", 443),
        ("[2001:db8::1]", "2001:db8::1", 443),
        ("[2001:db8::1]:8443", "2001:db8::1", 8443),
    ],
)
def test_default_templates_know_where_to_connect(authority, host, port):
    udp, ip = default_udp_template(authority), default_ip_template(authority)
    assert (udp.authority, udp.host, udp.port) == (ip.authority, ip.host, ip.port) == (authority, host, port)
    assert udp.expand("192.0.2.6", 443).path == "/.well-known/masque/udp/192.0.2.6/443/"
    assert ip.expand().path == "/.well-known/masque/ip/*/*/"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("https://e.org/{+target_host}/{target_port}", "operator"),
        ("https://e.org{/target_host}/{target_port}", "outside path and query"),
        ("https://e.org/x{/target_host}/{target_port}", "operator"),
        ("https://e.org/{;target_host}/{target_port}", "operator"),
        ("https://e.org/{.target_host}/{target_port}", "operator"),
        ("https://e.org/{=target_host}/{target_port}", "operator"),
        ("https://e.org/{target_host:3}/{target_port}", "level 4"),
        ("https://e.org/{target_host*}/{target_port}", "level 4"),
        ("https://{target_host}/{target_port}/", "outside path and query"),
        ("https://p.example{?target_host,target_port}", "outside path and query"),
        ("https://p.example?h={target_host}&p={target_port}", "no path"),
        ("https://p.example", "no path"),
        ("https:///{target_host}/{target_port}", "no authority"),
        ("/{target_host}/{target_port}", "absolute"),
        ("http://p.example/{target_host}/{target_port}", "TLS"),
        ("https://u:p@p.example/{target_host}/{target_port}", "user information"),
        ("https://p.example/{target_host}/{target_port}#x", "fragment"),
        ("https://p.example/{#target_host}/{target_port}", "operator"),
        ("https://p.example/{target_host}/", "target_port"),
        ("https://p.example/{Target_Host}/{target_port}", "target_host"),
        ("https://p.example/é/{target_host}/{target_port}", "ASCII"),
        ("https://p.example/ /{target_host}/{target_port}", "ASCII"),
        ("https://p.example/{}/{target_host}/{target_port}", "variable name"),
        ("https://p.example/{a..b}/{target_host}/{target_port}", "variable name"),
        ("https://p.example/{??a}{target_host}/{target_port}", "variable name"),
        ("https://p.example/{target_host}/{target_port", "braces"),
        ("https://p.example/{target_host}/{target_port}}", "braces"),
        ("https://p.example/%zz/{target_host}/{target_port}", "illegal character"),
        ("https://p.example/<{target_host}/{target_port}", "illegal character"),
        ("https://p.example:0/{target_host}/{target_port}", "port"),
        ("https://p.example:65536/{target_host}/{target_port}", "port"),
        ("https://p.example:/{target_host}/{target_port}", "host"),
        ("https://[::1/{target_host}/{target_port}", "host"),
        ("https://[192.0.2.1]/{target_host}/{target_port}", "brackets"),
        ("https://[fe80::1%25eth0]/{target_host}/{target_port}", "brackets|zone"),
    ],
)
def test_bad_templates_are_refused_before_any_request(template, reason):
    with pytest.raises(TemplateError, match=reason):
        UdpTemplate.parse(template)


def test_ip_template_needs_no_variables():
    assert IpTemplate.parse("https://p.example/vpn").path == "/vpn"


@pytest.mark.parametrize(("host", "port"), [("", 443), ("[::1]", 443), ("fe80::1%eth0", 443), ("a", 0), ("a/../b", 1)])
def test_bad_targets_are_refused_before_any_request(host, port):
    with pytest.raises(ConfigurationError):
        UdpTemplate.parse(WELL_KNOWN_UDP).expand(host, port)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/.well-known/masque/udp/192.0.2.6/443",
        "/.well-known/masque/udp/192.0.2.6/443/x",
        "/.well-known/masque/udp/a/b/443/",
        "/.well-known/masque/udp/%ff/443/",
    ],
)
def test_foreign_paths_do_not_match(path):
    assert UdpTemplate.parse(WELL_KNOWN_UDP).match(path) is None


def test_match_decodes_once():
    assert UdpTemplate.parse(WELL_KNOWN_UDP).match("/.well-known/masque/udp/a%252Fb/443/") == {
        "target_host": "a%2Fb",
        "target_port": "443",
    }
