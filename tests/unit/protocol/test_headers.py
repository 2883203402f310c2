import pytest

from masque_client.errors import RemoteProtocolError
from masque_client.protocol.headers import field_values, has_capsule_protocol, printable, split_pseudo_headers

ALLOWED = frozenset({b":status"})


def test_split():
    headers = [(b":status", b"200"), (b"server", b"x"), (b"te", b"trailers")]
    assert split_pseudo_headers(headers, ALLOWED) == ({b":status": b"200"}, (headers[1], headers[2]))


@pytest.mark.parametrize(
    "headers",
    [
        [(b":status", b"200"), (b"Server", b"x")],
        [(b":status", b"200"), (b"", b"x")],
        [(b"server", b"x"), (b":status", b"200")],
        [(b":status", b"200"), (b":status", b"200")],
        [(b":path", b"/")],
        [(b":status", b"200"), (b"connection", b"close")],
        [(b":status", b"200"), (b"upgrade", b"connect-ip")],
        [(b":status", b"200"), (b"te", b"gzip")],
    ],
)
def test_malformed(headers):
    with pytest.raises(RemoteProtocolError) as caught:
        split_pseudo_headers(headers, ALLOWED)
    assert caught.value.code == 0x10E
    assert not caught.value.connection_error


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([b"?1"], True),
        ([b"?1;a=b"], True),
        ([b" ?1 "], True),
        ([], False),
        ([b"?0"], False),
        ([b"1"], False),
        ([b"true"], False),
        ([b"?1, ?1"], False),
        ([b"?1", b"?1"], False),
        ([b"(?1)"], False),
        ([b"\xff"], False),
    ],
)
def test_capsule_protocol_is_one_boolean_or_absent(values, expected):
    assert has_capsule_protocol([(b"capsule-protocol", value) for value in values]) is expected


def test_field_values_keep_their_order():
    assert list(field_values([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")], b"a")) == [b"1", b"3"]


def test_printable_disarms_terminals():
    assert printable(b"\x1b[31mred\x07\r\n\xe9") == "[31mred"
    assert printable(b"x" * 600, 10) == "x" * 10 + "…"
