"""What must hold for any input: parsing undoes encoding, and nothing but the declared errors ever comes out.

Derandomised: the same examples on every run, so a failure is a change of ours.
"""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque_client.errors import (
    AuthenticationRefused,
    ConfigurationError,
    MasqueError,
    ProxyRefused,
    RemoteProtocolError,
)
from masque_client.protocol import icmp
from masque_client.protocol.capsule import Capsule, CapsuleReader, encode_capsule
from masque_client.protocol.connect import judge_response, parse_connect_request
from masque_client.protocol.h3_datagram import MAX_QUARTER_STREAM_ID, encode_quarter_stream_id, parse_h3_datagram
from masque_client.protocol.ip_capsules import (
    AssignedAddress,
    IpAddressRange,
    RequestedAddress,
    encode_address_assign,
    encode_address_request,
    encode_route_advertisement,
    find_route_problem,
    parse_address_assign,
    parse_address_request,
    parse_route_advertisement,
)
from masque_client.protocol.ip_packet import checksum, decrement_ttl, parse_ip_header
from masque_client.protocol.ip_ranges import AddressSet
from masque_client.protocol.ip_session import ConnectIpSession
from masque_client.protocol.proxy_status import ProxyStatus
from masque_client.protocol.quic_invariants import encode_version_negotiation, parse_long_header
from masque_client.protocol.session import Role
from masque_client.protocol.udp_session import ConnectUdpSession
from masque_client.protocol.uri_template import IpTemplate, UdpTemplate, default_udp_template
from masque_client.protocol.varint import MAX_VARINT, encode_varint, parse_varint
from tests.vectors import masque

quick = settings(derandomize=True, deadline=None, max_examples=100, database=None)

varints = st.integers(0, MAX_VARINT)


@st.composite
def prefixes(draw):
    address = draw(st.ip_addresses())
    length = draw(st.integers(0, address.max_prefixlen))
    return ipaddress.ip_network(f"{address}/{length}", strict=False)


@st.composite
def valid_routes(draw):
    """Any list that RFC 9484 §4.7.3 allows: per version, ranges for all protocols and others in the gaps between."""
    ranges = []
    for version in (4, 6):
        make = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
        limit = (1 << (32 if version == 4 else 128)) - 1
        bounds = sorted(draw(st.sets(st.integers(0, limit), max_size=8)))
        for start, end in zip(bounds[::2], bounds[1::2], strict=False):
            if draw(st.booleans()):
                ranges.append(IpAddressRange(version, make(start), make(end), 0))
            else:
                protocols = draw(st.sets(st.integers(1, 255), min_size=1, max_size=3))
                ranges += [IpAddressRange(version, make(start), make(end), protocol) for protocol in protocols]
    return tuple(sorted(ranges, key=lambda entry: entry.sort_key))


@st.composite
def ip_packets(draw):
    """Bytes that look like a packet at least at the start, with lengths that are often right."""
    body = draw(st.binary(max_size=80))
    if draw(st.booleans()):
        total = draw(st.sampled_from([20 + len(body), 20, 0xFFFF]))
        head = bytes((draw(st.sampled_from([0x45, 0x46, 0x4F, 0x44])), 0)) + total.to_bytes(2)
        return head + draw(st.binary(min_size=16, max_size=16)) + body
    length = draw(st.sampled_from([len(body), 0, 0xFFFF]))
    next_header = draw(st.sampled_from([0, 6, 17, 43, 44, 51, 58, 59, 60, 135]))
    return (
        b"\x60\0\0\0" + length.to_bytes(2) + bytes((next_header, 64)) + draw(st.binary(min_size=32, max_size=32)) + body
    )


# --- parsing undoes encoding ---


@quick
@given(varints, st.binary(max_size=4), st.binary(max_size=4))
def test_varint(value, before, after):
    encoded = encode_varint(value)
    assert parse_varint(before + encoded + after, len(before)) == (value, len(before) + len(encoded))
    assert all(parse_varint(encoded[:cut]) is None for cut in range(len(encoded)))


@quick
@given(st.integers(0, MAX_QUARTER_STREAM_ID), st.binary(max_size=20))
def test_quarter_stream_id(quarter, payload):
    data = encode_quarter_stream_id(quarter * 4) + payload
    stream_id, offset = parse_h3_datagram(data)
    assert (stream_id, data[offset:]) == (quarter * 4, payload)


@quick
@given(st.lists(st.tuples(varints, st.binary(max_size=60))), st.data())
def test_capsules_however_they_are_cut(capsules, data):
    known = {1: 100, 2: 100, 3: 100}
    stream = b"".join(encode_capsule(type, value) for type, value in capsules)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    reader = CapsuleReader(known)
    arrived = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        arrived += reader.receive_data(stream[start:end])
    reader.receive_end()
    assert arrived == [Capsule(type, value) for type, value in capsules if type in known]


@quick
@given(st.lists(st.tuples(varints, prefixes())))
def test_address_assign(entries):
    assigned = tuple(AssignedAddress(*entry) for entry in entries)
    assert parse_address_assign(value_of(encode_address_assign(assigned))) == assigned


@quick
@given(st.lists(st.tuples(st.integers(1, MAX_VARINT), prefixes()), min_size=1, unique_by=lambda entry: entry[0]))
def test_address_request(entries):
    requests = tuple(RequestedAddress(*entry) for entry in entries)
    assert parse_address_request(value_of(encode_address_request(requests))) == requests


@quick
@given(valid_routes())
def test_route_advertisement(routes):
    assert parse_route_advertisement(value_of(encode_route_advertisement(routes))) == routes


@quick
@given(valid_routes(), st.data())
def test_routes_have_only_one_order(routes, data):
    shuffled = tuple(data.draw(st.permutations(routes)))
    if shuffled == routes:
        assert find_route_problem(shuffled) is None
    else:
        with pytest.raises(RemoteProtocolError, match=r"RFC 9484 §4\.7\.3"):
            parse_route_advertisement(value_of(encode_route_advertisement(shuffled)))


@quick
@given(valid_routes(), st.data())
def test_a_range_twice_is_an_overlap(routes, data):
    if routes:
        twice = data.draw(st.sampled_from(routes))
        assert find_route_problem(tuple(sorted([*routes, twice], key=lambda entry: entry.sort_key)))


@quick
@given(st.binary(max_size=20), st.binary(max_size=20), st.lists(st.integers(0, 0xFFFF_FFFF)))
def test_version_negotiation(source_cid, destination_cid, versions):
    header = parse_long_header(encode_version_negotiation(source_cid, destination_cid, versions))
    assert header is not None
    assert (header.version, header.source_cid, header.destination_cid) == (0, source_cid, destination_cid)


@quick
@given(st.ip_addresses().map(str) | st.from_regex(r"[a-z0-9-]{1,20}(\.[a-z0-9-]{1,20}){0,3}", fullmatch=True),
       st.integers(1, 65535))  # fmt: skip
def test_proxy_matches_what_the_client_expands(host, port):
    template = default_udp_template("proxy.example")
    assert template.match(template.expand(host, port).path) == {"target_host": host, "target_port": str(port)}


# --- any bytes, whole or byte by byte, parse or raise RemoteProtocolError and nothing else ---


def value_of(capsule: bytes) -> bytes:
    type, length = parse_varint(capsule), None
    assert type is not None
    length = parse_varint(capsule, type[1])
    assert length is not None
    return capsule[length[1] :]


def outcome(session, chunks):
    """What a session makes of a stream: payloads and events, and the error, if any, as text."""
    seen = []
    try:
        for chunk in chunks:
            seen += session.receive_data(chunk, end_stream=False)
        session.receive_data(b"", end_stream=True)
    except RemoteProtocolError as error:
        seen.append(str(error))
    while (event := session.next_event()) is not None:
        seen.append(event)
    return seen


capsule_soup = st.lists(
    st.binary(max_size=12)
    | st.builds(encode_capsule, st.integers(0, 5), st.binary(max_size=40))
    | st.builds(encode_capsule, st.just(0), st.binary(max_size=40).map(lambda payload: b"\0" + payload))
    | st.sampled_from(list(masque.INVALID_IP_CAPSULES.values())).map(bytes.fromhex)
    | st.sampled_from([masque.ASSIGN_V4_ID_1, masque.REQUEST_ANY_V4, masque.ROUTES_SPLIT]).map(bytes.fromhex),
    max_size=5,
).map(b"".join)


@quick
@given(capsule_soup, st.sampled_from([ConnectUdpSession, ConnectIpSession]))
def test_sessions_survive_any_stream_and_cuts_do_not_matter(stream, kind):
    whole, piecewise = kind(Role.PROXY), kind(Role.PROXY)
    whole.accept()
    piecewise.accept()
    first = outcome(whole, [stream])
    second = outcome(piecewise, [stream[index : index + 1] for index in range(len(stream))])
    if any(isinstance(item, str) for item in first + second):
        # What came before an error may have been returned already, or not: only the error itself is certain.
        assert [item for item in first if isinstance(item, str)] == [item for item in second if isinstance(item, str)]
    else:
        assert sorted(map(repr, first)) == sorted(map(repr, second))


@quick
@given(
    st.sampled_from([parse_address_assign, parse_address_request, parse_route_advertisement]), st.binary(max_size=80)
)
def test_capsule_values(parse, value):
    try:
        parse(value)
    except RemoteProtocolError as error:
        assert "RFC 9484 §4.7" in str(error)


@quick
@given(st.lists(ip_packets() | st.binary(max_size=60), max_size=4))
def test_packets_never_raise(packets):
    session = ConnectIpSession(Role.CLIENT)
    session.receive_headers([(b":status", b"200")], end_stream=False)
    session.receive_data(bytes.fromhex(masque.ASSIGN_ANY_V4_SOURCE + masque.ROUTES_ALL), end_stream=False)
    result = session.encapsulate(packets)
    delivered = session.receive_datagrams([b"\0" + packet for packet in packets] + packets)
    assert all(parse_ip_header(packet) for packet in (*result.send, *delivered, *result.replies))
    assert all(packet in packets for packet in result.send)


@quick
@given(st.binary(max_size=40))
def test_datagram_and_quic_headers(data):
    parse_long_header(data)
    try:
        parse_h3_datagram(data)
    except RemoteProtocolError as error:
        assert error.code == 0x33


names = st.sampled_from(
    [b":status", b"proxy-status", b"retry-after", b"location", b"capsule-protocol", b"Server", b"a"]
)


@quick
@given(
    st.lists(
        st.tuples(names | st.binary(max_size=5), st.sampled_from([b"200", b"404", b"503"]) | st.binary(max_size=30))
    )
)
def test_responses(headers):
    try:
        judge_response(headers, protocol="connect-ip", now_wall=0.0)
    except (RemoteProtocolError, ProxyRefused, AuthenticationRefused) as error:
        assert str(error).isprintable()
        assert error.hint.isprintable()


request_names = st.sampled_from([b":method", b":protocol", b":scheme", b":path", b":authority", b"te"])


@quick
@given(st.lists(st.tuples(request_names, st.just(b"CONNECT") | st.binary(max_size=10)), max_size=8))
def test_requests(headers):
    try:
        request = parse_connect_request(headers)
    except RemoteProtocolError:
        return
    assert request.path.isprintable()


@quick
@given(st.binary(max_size=60))
def test_proxy_status(value):
    status = ProxyStatus.parse([(b"proxy-status", value)])
    assert status is not None
    assert status.describe().isprintable()


@quick
@given(st.text(max_size=30) | st.from_regex(r"https://[a-z.]{1,5}(:[0-9]{1,3})?/[{}a-z?&,/%]{0,20}", fullmatch=True))
def test_templates(text):
    for kind in (UdpTemplate, IpTemplate):
        try:
            template = kind.parse(text)
        except ConfigurationError:
            continue
        template.match(text)


@quick
@given(st.text(max_size=12), st.text(max_size=4), st.integers())
def test_targets(target, ipproto, port):
    for expand in (
        lambda: default_udp_template("p.example").expand(target, port),
        lambda: IpTemplate.parse("https://p.example/{target}/{ipproto}").expand(target, ipproto),
    ):
        try:
            path = expand().path
        except MasqueError as error:
            assert isinstance(error, ConfigurationError)
            continue
        assert all("\x21" <= character <= "\x7e" for character in path)


# --- IP ---


@quick
@given(ip_packets(), st.sampled_from(icmp.Problem), st.integers(0, 0xFFFF))
def test_icmp_never_answers_icmp_errors_and_its_answers_are_sound(packet, problem, mtu):
    error = icmp.compose_error(packet, problem, mtu=mtu)
    if error is None:
        return
    header = parse_ip_header(error)
    assert header is not None
    assert header.total_length == len(error) <= (576 if header.version == 4 else 1280)
    if header.version == 4:
        assert checksum(error[:20]) == checksum(error[20:]) == 0
    for other in icmp.Problem:
        assert (
            icmp.compose_error(error, other, source=b"\x0a\0\0\x01" if header.version == 4 else None, mtu=mtu) is None
        )


@quick
@given(ip_packets())
def test_decrement_changes_ttl_and_checksum_only(packet):
    header = parse_ip_header(packet)
    if header is None or (changed := decrement_ttl(packet)) is None:
        return
    ttl = 8 if header.version == 4 else 7
    assert changed[ttl] == packet[ttl] - 1
    untouched = {ttl, 10, 11} if header.version == 4 else {ttl}
    assert all(changed[index] == packet[index] for index in range(len(packet)) if index not in untouched)


@quick
@given(st.lists(prefixes(), max_size=12), st.ip_addresses())
def test_address_set_agrees_with_a_plain_search(members, address):
    addresses = AddressSet(members)
    probes = [address, *(prefix.network_address for prefix in members), *(prefix[-1] for prefix in members)]
    for probe in probes:
        assert addresses.covers(probe.packed, 6) is any(probe in prefix for prefix in members)
