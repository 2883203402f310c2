"""Independent eyes: a capture of a session as tshark reads it, and from that, what each end sent.

tshark decrypts QUIC and TLS with the secrets that the proxy logs, takes them apart, and HTTP/2 with HPACK too. Version
4.0 knows neither QPACK nor HTTP Datagrams nor capsules: these are read from the bytes it shows, by ls-qpack and `wire`.
Nothing here comes from `masque_client.protocol` or its engines.
"""

from __future__ import annotations

import selectors
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from pylsqpack import Decoder

from masque_client.testing.netns import Namespace
from tests.interop.wire import type_length_values, variable_length_integer

TIMEOUT_S = 60.0
_ABOVE_TRANSPORT = {"quic", "tls", "http3", "http2"}
_DATA, _HEADERS = 0x00, 0x01
_QPACK_ENCODER_STREAM = 0x02
_QPACK_MAX_TABLE_CAPACITY, _QPACK_BLOCKED_STREAMS = 0x01, 0x07

Headers = list[tuple[bytes, bytes]]


def missing_tools() -> str | None:
    """What has to be installed, or None."""
    missing = [name for name in ("tshark", "dumpcap") if shutil.which(name) is None]
    return " and ".join(missing) or None


class Capture:
    """All packets of a device, from the end of the constructor to that of `stop_after`."""

    def __init__(self, where: Namespace, device: str) -> None:
        command = ("dumpcap", "-q", "-P", "-i", device, "-w", "-")
        self._process = where.spawn(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._bytes = self._read()  # the file's header is written when the device is open

    def stop_after(self, mark: bytes) -> bytes:
        """The capture up to the packet that contains `mark`, as a pcap file."""
        while mark not in self._bytes:
            self._bytes += self._read()
        self._process.terminate()
        rest, _ = self._process.communicate(timeout=TIMEOUT_S)
        return self._bytes + rest

    def _read(self) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            assert selector.select(TIMEOUT_S), f"nothing was captured for {TIMEOUT_S:g} s"
        data: bytes = stdout.read1()  # type: ignore[attr-defined]  # Popen's pipes are buffered readers
        assert data, f"dumpcap ended with {self._process.wait()}"
        return data


@dataclass
class End:
    """What one end of a connection sent.

    Attributes:
        versions: QUIC versions of long headers.
        alpn: protocols that TLS offered, or the one it chose.
        parameters: QUIC transport parameters, id to value.
        frame_types: of QUIC frames.
        datagrams: what QUIC DATAGRAM frames carried, in order.
        settings: of HTTP, id to value.
        headers: header section of each request stream.
        content: of the DATA frames of each request stream.
    """

    versions: set[int] = field(default_factory=set)
    alpn: set[str] = field(default_factory=set)
    parameters: dict[int, bytes] = field(default_factory=dict)
    frame_types: set[int] = field(default_factory=set)
    datagrams: list[bytes] = field(default_factory=list)
    settings: dict[int, int] = field(default_factory=dict)
    headers: dict[int, Headers] = field(default_factory=dict)
    content: defaultdict[int, bytes] = field(default_factory=lambda: defaultdict(bytes))
    pieces: defaultdict[int, dict[int, bytes]] = field(default_factory=lambda: defaultdict(dict))


@dataclass
class Dissection:
    """Both ends by their IP addresses, and what tshark found wrong, by its own words."""

    ends: dict[str, End]
    complaints: list[str]


def dissect(capture: Path, secrets: Path) -> Dissection:
    """Let tshark read a capture. Everything must have been decrypted, or it is among the complaints."""
    command = ("tshark", "-r", str(capture), "-o", f"tls.keylog_file:{secrets}", "-T", "pdml")
    done = subprocess.run(command, capture_output=True, check=True, timeout=TIMEOUT_S)
    packets = ElementTree.fromstring(done.stdout)
    ends: defaultdict[str, End] = defaultdict(End)
    for packet in packets:
        source = packet.find("proto[@name='ip']/field[@name='ip.src']")
        if source is not None:
            _read_packet(packet, ends[_shown(source)])
    if len(ends) == 2:
        one, other = ends.values()
        _read_http3(one, other)
        _read_http3(other, one)
    return Dissection(dict(ends), list(_complaints(packets)))


def _complaints(packets: Element) -> Iterator[str]:
    """Malformed packets, and warnings and errors about what runs above TCP and UDP.

    Not notes: both QUIC libraries fill UDP datagrams with zeros behind the last packet instead of PADDING frames in it,
    and tshark notes that. Receivers discard them (RFC 9000 §12.2).
    """
    for packet in packets:
        number = _shown(next(_fields(packet, "frame.number")))
        for proto in packet.iterfind("proto"):
            name = proto.get("name", "")
            if name == "_ws.malformed" or proto.find(".//proto[@name='_ws.malformed']") is not None:
                yield f"packet {number}: malformed"
            if name in _ABOVE_TRANSPORT:
                for remark in _fields(proto, "_ws.expert"):
                    text = remark.get("showname", "")
                    if not text.startswith(("Expert Info (Note/", "Expert Info (Chat/")):
                        yield f"packet {number}: {text}"


def _read_packet(packet: Element, end: End) -> None:
    end.versions |= {int(_shown(version), 16) for version in _fields(packet, "quic.version")}
    end.alpn |= {_shown(name) for name in _fields(packet, "tls.handshake.extensions_alpn_str")}
    end.frame_types |= {int(_shown(kind)) for kind in _fields(packet, "quic.frame_type")}
    end.datagrams += [_bytes(payload) for payload in _fields(packet, "quic.dg")]
    for parameter in packet.iterfind(".//field[@name='tls.quic.parameter.type']/.."):
        value = next(_fields(parameter, "tls.quic.parameter.value"), None)
        end.parameters[_number(parameter, "tls.quic.parameter.type")] = b"" if value is None else _bytes(value)
    for protocol in ("http2", "http3"):
        for setting in _fields(packet, f"{protocol}.settings"):
            identifier, value, *_ = setting
            end.settings[int(_shown(identifier), 0)] = int(_shown(value), 0)
    for frame in packet.iterfind(".//field[@name='quic.stream.stream_id']/.."):
        data = next(_fields(frame, "quic.stream_data"), None)
        if data is not None:
            offset = _number(frame, "quic.stream.offset", 0)
            end.pieces[_number(frame, "quic.stream.stream_id")][offset] = _bytes(data)
    for frame in _fields(packet, "http2.stream"):
        _read_http2_frame(frame, end)


def _read_http2_frame(frame: Element, end: End) -> None:
    if (stream := _number(frame, "http2.streamid", 0)) == 0:
        return
    if _number(frame, "http2.type") == _HEADERS:
        end.headers.setdefault(stream, []).extend(
            (_bytes(next(_fields(line, "http2.header.name"))), _bytes(next(_fields(line, "http2.header.value"))))
            for line in _fields(frame, "http2.header")
        )
    for data in _fields(frame, "http2.data.data"):
        end.content[stream] += _bytes(data)


def _read_http3(end: End, peer: End) -> None:
    """Fill in `headers` and `content` from the QUIC streams, which `peer` bounded the QPACK table of."""
    streams = {stream: _joined(pieces) for stream, pieces in end.pieces.items()}
    settings = peer.settings
    qpack = Decoder(settings.get(_QPACK_MAX_TABLE_CAPACITY, 0), settings.get(_QPACK_BLOCKED_STREAMS, 0))
    for stream, data in streams.items():
        if stream & 2:  # unidirectional
            kind, at = variable_length_integer(data)
            if kind == _QPACK_ENCODER_STREAM and data[at:]:
                qpack.feed_encoder(data[at:])
    for stream, data in streams.items():
        if not stream & 2:
            for kind, payload in type_length_values(data):
                if kind == _HEADERS:
                    end.headers.setdefault(stream, []).extend(qpack.feed_header(stream, payload)[1])
                elif kind == _DATA:
                    end.content[stream] += payload


def _joined(pieces: dict[int, bytes]) -> bytes:
    """A QUIC stream from its STREAM frames; a repeated one brings nothing new."""
    joined = b""
    for offset, data in sorted(pieces.items()):
        assert offset <= len(joined), "a part of the stream was not captured"
        joined += data[len(joined) - offset :]
    return joined


def _fields(element: Element, name: str) -> Iterator[Element]:
    return element.iterfind(f".//field[@name='{name}']")


def _shown(element: Element) -> str:
    return element.get("show", "")


def _number(element: Element, name: str, default: int | None = None) -> int:
    found = next(_fields(element, name), None)
    if found is None and default is not None:
        return default
    assert found is not None, name
    return int(_shown(found), 0)


def _bytes(element: Element) -> bytes:
    return bytes.fromhex(element.get("value", ""))
