import ipaddress

import pytest

from masque_client.errors import ConfigurationError
from masque_client.protocol.scope import IpScope, UdpTarget, parse_host


@pytest.mark.parametrize(
    ("host", "parsed"),
    [
        ("192.0.2.6", "192.0.2.6"),
        ("2001:db8::42", "2001:db8::42"),
        ("2001:DB8:0::42", "2001:db8::42"),
        ("target.example", "target.example"),
        ("_dns.Example.COM", "_dns.Example.COM"),
        ("bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_hosts(host, parsed):
    assert parse_host(host) == parsed


@pytest.mark.parametrize(
    "host",
    ["", "[2001:db8::42]", "fe80::1%eth0", "a%2Fb", "a b", "a/b", "a,b", "*", "host:53", "x" * 254, "..\u0301", "a\n"],
)
def test_no_hosts(host):
    with pytest.raises(ConfigurationError):
        parse_host(host)


def test_udp_target():
    assert UdpTarget.parse("2001:db8::42", "443") == UdpTarget("2001:db8::42", 443)
    assert UdpTarget.parse("a.example", 65535).port == 65535


@pytest.mark.parametrize("port", [0, 65536, -1, "", "53x", "+53", "५", "9" * 5000])
def test_no_ports(port):
    with pytest.raises(ConfigurationError, match="target port"):
        UdpTarget.parse("a.example", port)


@pytest.mark.parametrize(
    ("target", "ipproto", "scope"),
    [
        ("*", "*", IpScope(None, None)),
        (None, None, IpScope(None, None)),
        ("192.0.2.0/24", "17", IpScope(ipaddress.ip_network("192.0.2.0/24"), 17)),
        ("2001:db8::/32", 58, IpScope(ipaddress.ip_network("2001:db8::/32"), 58)),
        ("192.0.2.1", 0, IpScope(ipaddress.ip_network("192.0.2.1/32"), 0)),
        ("2001:db8::1", 255, IpScope(ipaddress.ip_network("2001:db8::1/128"), 255)),
        ("target.example.com", 132, IpScope("target.example.com", 132)),
    ],
)
def test_ip_scopes(target, ipproto, scope):
    assert IpScope.parse(target, ipproto) == scope


@pytest.mark.parametrize(
    ("target", "ipproto"),
    [
        ("", "*"),
        ("*", ""),
        ("192.0.2.1/24", "*"),  # host bits set (RFC 9484 §4.6)
        ("2001:db8::1/32", "*"),
        ("192.0.2.0/33", "*"),
        ("2001:db8::/129", "*"),
        ("192.0.2.0/255.255.255.0", "*"),
        ("192.0.2.0/", "*"),
        ("fe80::/10%eth0", "*"),
        ("name.example/24", "*"),
        ("*.example", "*"),
        ("*", "256"),
        ("*", "udp"),
        ("*", -1),
    ],
)
def test_no_ip_scopes(target, ipproto):
    with pytest.raises(ConfigurationError):
        IpScope.parse(target, ipproto)
