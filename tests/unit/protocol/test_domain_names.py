import pytest

from masque_client.protocol.domain_names import ROOT, is_within, parse_domain


@pytest.mark.parametrize(
    ("octets", "name"),
    [
        (b"", ROOT),
        (b".", ROOT),
        (b"corp.example", "corp.example"),
        (b"Corp.EXAMPLE.", "corp.example"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b"_dns.corp.example", "_dns.corp.example"),
        (b"a" * 63 + b".example", "a" * 63 + ".example"),
        (b".".join([b"a" * 49] * 5) + b".abc", ".".join(["a" * 49] * 5) + ".abc"),  # 253
        (b".".join([b"a" * 49] * 5) + b".abcd", None),
        (b"a" * 64, None),
        (b"..", None),
        (b"a..b", None),
        (b".a", None),
        (b"-a.example", None),
        (b"a-.example", None),
        (b"*.example", None),
        (b"a b", None),
        (b"a\n", None),
        (b"b\xc3\xbccher.example", None),
        (b"a.example\0", None),
    ],
)
def test_names(octets, name):
    assert parse_domain(octets) == name


@pytest.mark.parametrize(
    ("name", "zone", "expected"),
    [
        ("corp.example", "corp.example", True),
        ("a.corp.example", "corp.example", True),
        ("notcorp.example", "corp.example", False),
        ("example", "corp.example", False),
        ("anything", ROOT, True),
        (ROOT, ROOT, True),
        (ROOT, "example", False),
    ],
)
def test_is_within(name, zone, expected):
    assert is_within(name, zone) is expected
