"""RFC 6052 §2.4, and what the figure of §2.2 says about every prefix length."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest

from masque_client.protocol.nat64 import extract, is_translation_prefix, synthesize

ADDRESS = IPv4Address("192.0.2.33")
EXAMPLES = [
    ("2001:db8::/32", "2001:db8:c000:221::"),
    ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
    ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
    ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
    ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100:0"),
    ("2001:db8:122:344::/96", "2001:db8:122:344::c000:221"),
    ("64:ff9b::/96", "64:ff9b::c000:221"),
]


@pytest.mark.parametrize(("prefix", "address"), EXAMPLES)
def test_examples(prefix, address):
    assert synthesize(IPv6Network(prefix), ADDRESS) == IPv6Address(address)
    assert extract([IPv6Network(prefix)], IPv6Address(address)) == ADDRESS


def test_the_longest_prefix_decides():
    prefixes = [IPv6Network("2001:db8::/32"), IPv6Network("2001:db8:122:344::/96")]
    assert extract(prefixes, IPv6Address("2001:db8:122:344::c000:221")) == ADDRESS
    assert extract(prefixes, IPv6Address("2001:db8:c000:221::")) == ADDRESS


def test_what_embeds_nothing():
    assert extract([IPv6Network("64:ff9b::/96")], IPv6Address("2001:db8::1")) is None
    assert extract([], IPv6Address("64:ff9b::c000:221")) is None
    assert extract([IPv6Network("2001:db8::/32")], IPv6Address("2001:db8:c000:221:100::")) is None  # octet 8 is set


@pytest.mark.parametrize("prefix", ["2001:db8::/33", "::/0", "64:ff9b::/128", "64:ff9b::/80", "2001:db8:0:0:100::/96"])
def test_prefixes_that_translate_nothing(prefix):
    assert not is_translation_prefix(IPv6Network(prefix))
    with pytest.raises(ValueError, match="cannot embed"):
        synthesize(IPv6Network(prefix), ADDRESS)
    with pytest.raises(ValueError, match="cannot embed"):
        extract([IPv6Network(prefix)], IPv6Network(prefix)[0])
