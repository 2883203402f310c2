"""Field sections of HTTP/3, as we write them: QPACK with neither of its tables (RFC 9204 §4.5).

The libraries' encoders index whatever repeats, credentials included, and cannot be told otherwise. Ours are a few
short requests per connection: literals cost them some hundred bytes, and nothing to get wrong.
"""

from __future__ import annotations

from masque_client.protocol.headers import Headers, may_be_secret

_NO_TABLE = b"\x00\x00"
"""Required Insert Count 0, Base 0 (RFC 9204 §4.5.1)."""
_LITERAL_NAME, _NEVER_INDEXED = 0x20, 0x10


def encode_field_section(headers: Headers) -> bytes:
    """Literal field lines with literal names (RFC 9204 §4.5.6), without Huffman coding.

    What may be secret has the N bit set, so that no intermediary indexes it further on, where guesses of its value
    could be told from the size of what is sent (RFC 9204 §7.1.3).
    """
    section = bytearray(_NO_TABLE)
    for name, value in headers:
        kind = _LITERAL_NAME | (_NEVER_INDEXED if may_be_secret(name) else 0)
        section += _integer(kind, 3, len(name)) + name + _integer(0, 7, len(value)) + value
    return bytes(section)


def _integer(first: int, bits: int, value: int) -> bytes:
    """A prefixed integer (RFC 9204 §4.1.1): in the low `bits` of `first`, or from there on in groups of seven."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([first | value])
    encoded, rest = bytearray([first | limit]), value - limit
    while rest >= 0x80:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)
