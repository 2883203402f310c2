from __future__ import annotations

import pytest

from masque_client.testing.addresses import format_address, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:443", ("127.0.0.1", 443)), ("[::1]:0", ("::1", 0)), ("[2001:db8::1]:65535", ("2001:db8::1", 65535))],
)
def test_parse_and_format_are_inverse(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address
    assert format_address(address) == text


@pytest.mark.parametrize(
    "text", ["", "127.0.0.1", "::1:443", "[127.0.0.1]:443", "host:443", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:4²"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_address(text)
