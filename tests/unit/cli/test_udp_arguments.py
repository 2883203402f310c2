"""LOCAL=TARGET, the argument of `udp`."""

from __future__ import annotations

import pytest

from masque_client.errors import ConfigurationError
from masque_client.sockets.port_forwarder import Forward
from masque_connect.commands.udp import parse_forward


@pytest.mark.parametrize(
    ("text", "forward"),
    [
        ("127.0.0.1:5353=9.9.9.9:53", Forward(("127.0.0.1", 5353), "9.9.9.9", 53)),
        ("5353=dns.example:53", Forward(("127.0.0.1", 5353), "dns.example", 53)),
        ("[::1]:0=[2001:db8::1]:443", Forward(("::1", 0), "2001:db8::1", 443)),
        ("127.8.8.8:1=h:65535", Forward(("127.8.8.8", 1), "h", 65535)),
    ],
)
def test_good_ones(text: str, forward: Forward) -> None:
    assert parse_forward(text, allow_any=False) == forward


@pytest.mark.parametrize(
    "text",
    [
        "5353",
        "5353=",
        "5353=host",
        "5353=host:0",
        "5353=host:65536",
        "5353=host:٣",
        "5353=2001:db8::1:443",
        "host:1=h:1",
        "=h:1",
        "127.0.0.1:-1=h:1",
        "127.0.0.1:1=:53",
        "[127.0.0.1]:1=h:1",
    ],
)
def test_bad_ones_say_how_to_write_it(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_forward(text, allow_any=False)
    assert "127.0.0.1:5353=9.9.9.9:53" in caught.value.hint


def test_a_port_open_to_the_network_must_be_asked_for() -> None:
    with pytest.raises(ConfigurationError, match="open proxy") as caught:
        parse_forward("0.0.0.0:5353=h:53", allow_any=False)
    assert "--listen-anywhere" in caught.value.hint
    assert parse_forward("0.0.0.0:5353=h:53", allow_any=True).local == ("0.0.0.0", 5353)
