"""Our field sections, as both libraries' decoders read them, and byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pylsqpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque_client.protocol.headers import Headers
from masque_client.protocol.qpack import encode_field_section

Read = Callable[[bytes], Any]
READERS: list[Read] = [lambda section: pylsqpack.Decoder(0, 0).feed_header(0, section)[1]]
try:
    from qh3._hazmat import QpackDecoder
except ImportError:
    pass
else:
    READERS.append(lambda section: QpackDecoder(0, 0).feed_header(0, section)[1])


@pytest.mark.parametrize(
    ("header", "line"),
    [
        pytest.param((b":path", b"/"), "25 3a70617468 01 2f", id="one byte each"),
        pytest.param((b":method", b"CONNECT"), "27 00 3a6d6574686f64 07 434f4e4e454354", id="a name of seven"),
        pytest.param((b":path", b"/" * 300), "25 3a70617468 7f ad01" + "2f" * 300, id="a long value"),
        pytest.param((b"capsule-protocol", b"?1"), "27 09 63617073756c652d70726f746f636f6c 02 3f31", id="no secret"),
        pytest.param((b"authorization", b"x"), "37 06 617574686f72697a6174696f6e 01 78", id="never indexed"),
        pytest.param((b"x-token", b"x"), "37 00 782d746f6b656e 01 78", id="never indexed, whatever its name"),
    ],
)
def test_one_field(header: tuple[bytes, bytes], line: str) -> None:
    """RFC 9204 §4.5.6: 001, the N bit, no Huffman coding, three bits of length."""
    section = encode_field_section([header])
    assert section.hex() == "0000" + line.replace(" ", "")
    assert [read(section) for read in READERS] == [[header]] * len(READERS)


NAMES = st.from_regex(rb":?[a-z][a-z0-9-]{0,200}", fullmatch=True)
VALUES = st.text(st.characters(codec="ascii"), max_size=400).map(str.encode)
"""qh3 takes a value that is not UTF-8 for one that cannot be decoded."""


@given(st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=20))
def test_every_section_is_read_as_it_was_written(headers: Headers) -> None:
    section = encode_field_section(headers)
    assert [read(section) for read in READERS] == [headers] * len(READERS)
