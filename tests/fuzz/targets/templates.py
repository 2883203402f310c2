"""URI templates: parsing, expansion for any destination, and the proxy's matching of any path."""

from __future__ import annotations

from masque_client.errors import ConfigurationError
from masque_client.protocol.scope import IpScope, UdpTarget
from masque_client.protocol.uri_template import IpTemplate, UdpTemplate
from tests.fuzz.harness import FuzzOne

WORDS = (
    b"https://", b"{target_host}", b"{target_port}", b"{?target_host,target_port}", b"{target}", b"{&ipproto}",
    b"%2F", b"%2A", b"[2001:db8::1]", b"192.0.2.0/24", b":443", b"{?", b"{&", b"*",
)  # fmt: skip


def make() -> FuzzOne:
    """Input: lines: template, destination, port or protocol, path to match."""
    return fuzz_one


def fuzz_one(data: bytes) -> None:
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    text, target, number, path = (*lines, "", "", "", "")[:4]
    for kind in (UdpTemplate, IpTemplate):
        try:
            template = kind.parse(text)
            template.match(path)
            expanded = template.expand(target, number)  # type: ignore[arg-type]
        except ConfigurationError as error:
            assert str(error)
            continue
        assert all("\x21" <= character <= "\x7e" for character in expanded.path)
        assert expanded.path.startswith("/") and expanded.authority == template.authority
    for check in (UdpTarget.parse, IpScope.parse):
        try:
            check(target, number)
        except ConfigurationError:
            pass
