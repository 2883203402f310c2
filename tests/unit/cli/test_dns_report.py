"""What `up` says about names."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Network

from masque_client.host.dns import DnsClaim, DnsConfiguration, DnsTransport, Resolver, UnclaimedNames
from masque_connect.dns_report import describe_dns, dns_lines

PLAIN = Resolver(1, (DnsTransport.PLAIN,), (IPv4Address("10.0.0.53"),))
DOH = Resolver(2, (DnsTransport.HTTPS_3,), name="proxy.example", doh_path="/q{?dns}", is_proxy=True)


def test_everything() -> None:
    dns = DnsConfiguration(
        (DnsClaim("corp.example", (PLAIN,)), DnsClaim("", (DOH,)), DnsClaim("lab.example")),
        UnclaimedNames.BLOCK,
        ("corp.example",),
        (IPv6Network("64:ff9b::/96"),),
        ("something was left out",),
    )
    assert dns_lines(dns) == [
        "dns       corp.example: 10.0.0.53 (dns) (not applied)",
        "dns       every name: the proxy (h3) (not applied)",
        "dns       lab.example: nobody (not applied)",
        "dns       other names: nobody (not applied)",
        "search    corp.example (not applied)",
        "nat64     64:ff9b::/96 (not applied)",
        "remark    something was left out",
    ]
    assert json.loads(json.dumps(describe_dns(dns, applied=False))) == {
        "applied": False,
        "claims": [
            {
                "domain": "corp.example",
                "resolvers": [
                    {
                        "priority": 1,
                        "transports": ["dns"],
                        "addresses": ["10.0.0.53"],
                        "port": None,
                        "name": None,
                        "doh_path": None,
                        "is_proxy": False,
                    }
                ],
            },
            {
                "domain": ".",
                "resolvers": [
                    {
                        "priority": 2,
                        "transports": ["h3"],
                        "addresses": [],
                        "port": None,
                        "name": "proxy.example",
                        "doh_path": "/q{?dns}",
                        "is_proxy": True,
                    }
                ],
            },
            {"domain": "lab.example", "resolvers": []},
        ],
        "unclaimed": "block",
        "search_domains": ["corp.example"],
        "nat64_prefixes": ["64:ff9b::/96"],
        "remarks": ["something was left out"],
    }


def test_nothing() -> None:
    assert dns_lines(DnsConfiguration()) == []
    assert describe_dns(DnsConfiguration(), applied=False)["claims"] == []
