import pytest

from masque_client.errors import (
    AuthenticationRefused,
    ConfigurationError,
    LocalProtocolError,
    ProxyRefused,
    RemoteProtocolError,
)
from masque_client.protocol.connect import (
    Accepted,
    ConnectRequest,
    Informational,
    accept_headers,
    ip_request_headers,
    judge_response,
    parse_connect_request,
    refuse_headers,
    udp_request_headers,
)
from masque_client.protocol.uri_template import default_ip_template, default_udp_template

UDP_REQUEST = (
    (b":method", b"CONNECT"),
    (b":protocol", b"connect-udp"),
    (b":scheme", b"https"),
    (b":path", b"/.well-known/masque/udp/192.0.2.6/443/"),
    (b":authority", b"example.org"),
    (b"capsule-protocol", b"?1"),
)


def judge(status, *fields, **options):
    return judge_response([(b":status", str(status).encode()), *fields], protocol="connect-udp", **options)


# --- requests ---


def test_udp_request():
    assert udp_request_headers(default_udp_template("example.org").expand("192.0.2.6", 443)) == UDP_REQUEST


def test_ip_request_with_credentials():
    target = default_ip_template("example.org:4443").expand()
    headers = dict(ip_request_headers(target, [(b"Authorization", b"Bearer x ")]))
    assert headers[b":protocol"] == b"connect-ip"
    assert headers[b":path"] == b"/.well-known/masque/ip/*/*/"
    assert headers[b":authority"] == b"example.org:4443"
    assert headers[b"authorization"] == b"Bearer x"


@pytest.mark.parametrize(
    "field",
    [
        (b":path", b"/"),
        (b"", b"x"),
        (b"a b", b"x"),
        (b"Host", b"x"),
        (b"Content-Length", b"0"),
        (b"content-type", b"x"),
        (b"transfer-encoding", b"x"),
        (b"connection", b"x"),
        (b"capsule-protocol", b"?0"),
        (b"authorization", b"x\r\nevil: 1"),
    ],
)
def test_user_fields_cannot_break_the_request(field):
    with pytest.raises(ConfigurationError):
        udp_request_headers(default_udp_template("example.org").expand("192.0.2.6", 443), [field])


# --- responses ---


@pytest.mark.parametrize("status", [200, 201, 203, 207, 299])
def test_success(status):
    verdict = judge(status, (b"capsule-protocol", b"?1"), (b"proxy-status", b'p;next-hop="192.0.2.6"'))
    assert isinstance(verdict, Accepted)
    assert (verdict.status, verdict.capsule_protocol) == (status, True)
    assert verdict.proxy_status is not None
    assert verdict.proxy_status.entries[0].next_hop == "192.0.2.6"


def test_success_without_capsule_protocol_is_success():
    verdict = judge(200)
    assert isinstance(verdict, Accepted)
    assert not verdict.capsule_protocol


@pytest.mark.parametrize("status", [100, 103])
def test_informational(status):
    assert judge(status) == Informational(status)


@pytest.mark.parametrize("status", [101, 204, 205, 206, "", "20", "2000", "abc", "099", "600", "٢٠٠"])
def test_statuses_that_cannot_be(status):
    with pytest.raises(RemoteProtocolError) as caught:
        judge(status)
    assert caught.value.code == 0x10E


@pytest.mark.parametrize("name", [b"content-length", b"content-type", b"transfer-encoding"])
def test_success_with_content_is_malformed(name):
    with pytest.raises(RemoteProtocolError, match=name.decode()):
        judge(200, (name, b"0"))


def test_refusal_may_have_content():
    with pytest.raises(ProxyRefused):
        judge(404, (b"content-length", b"0"))


def test_missing_status_is_malformed():
    with pytest.raises(RemoteProtocolError, match=":status"):
        judge_response([(b"server", b"x")], protocol="connect-ip")


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (300, "redirects are not followed"),
        (400, "template"),
        (403, "operator"),
        (404, "path is wrong"),
        (405, "URL"),
        (410, "new URL"),
        (418, "URL"),
        (429, "later"),
        (500, "later"),
        (501, "tunnel type"),
        (502, "destination"),
        (503, "later"),
        (599, "destination"),
    ],
)
def test_refusals_name_the_status_and_what_to_do(status, hint):
    with pytest.raises(ProxyRefused, match=rf"answered {status}( [A-Z][\w' -]*)? to connect-udp") as caught:
        judge(status)
    assert caught.value.status == status
    assert hint in caught.value.hint


def test_redirect_shows_where_to_without_going_there():
    with pytest.raises(ProxyRefused, match=r"redirect to https://evil\.example/\[0m") as caught:
        judge(308, (b"location", b"https://evil.example/\x1b[0m"))
    assert caught.value.status == 308


@pytest.mark.parametrize(("status", "field"), [(401, b"www-authenticate"), (407, b"proxy-authenticate")])
def test_authentication(status, field):
    with pytest.raises(AuthenticationRefused, match="wants Basic") as caught:
        judge(status, (field, b'Basic realm="\x1b[31m"'))
    assert caught.value.status == status
    with pytest.raises(AuthenticationRefused, match="without saying how"):
        judge(status)


def test_proxy_status_is_told():
    with pytest.raises(ProxyRefused, match="502 Bad Gateway to connect-udp: dns_error: no such host") as caught:
        judge(502, (b"proxy-status", b'p.example;error=dns_error;details="no such host"'))
    assert caught.value.proxy_status == 'p.example;error=dns_error;details="no such host"'


@pytest.mark.parametrize(
    ("value", "now_wall", "seconds"),
    [
        (b"120", None, 120.0),
        (b"Sun, 06 Nov 1994 08:49:37 GMT", 784111770.0, 7.0),
        (b"Sun, 06 Nov 1994 08:49:37 GMT", 784111799.0, 0.0),
        (b"Sun, 06 Nov 1994 08:49:37 GMT", None, None),
        (b"soon", 0.0, None),
        (b"-1", 0.0, None),
        (b"Sun, 06 Nov 99999 08:49:37 GMT", 0.0, None),
        (b"9" * 400, 0.0, None),
    ],
)
def test_retry_after(value, now_wall, seconds):
    with pytest.raises(ProxyRefused) as caught:
        judge(503, (b"retry-after", value), now_wall=now_wall)
    assert caught.value.retry_after_s == seconds


# --- proxy side ---


def test_parse_what_the_client_sends():
    assert parse_connect_request(UDP_REQUEST) == ConnectRequest(
        "connect-udp", "example.org", "https", "/.well-known/masque/udp/192.0.2.6/443/", UDP_REQUEST[5:]
    )


def test_foreign_clients_fields_are_no_problem():
    fields = ((b"user-agent", b"x"), (b"accept-encoding", b"gzip"))
    assert parse_connect_request((*UDP_REQUEST[:5], *fields)).fields == fields


@pytest.mark.parametrize(
    "headers",
    [
        [(b":method", b"GET"), *UDP_REQUEST[1:]],
        [UDP_REQUEST[0], *UDP_REQUEST[2:]],
        [*UDP_REQUEST[:2], *UDP_REQUEST[3:]],
        [*UDP_REQUEST[:3], *UDP_REQUEST[4:]],
        [*UDP_REQUEST[:4], *UDP_REQUEST[5:]],
        [*UDP_REQUEST[:4], (b":authority", b""), *UDP_REQUEST[5:]],
        [*UDP_REQUEST[:3], (b":path", b"/\xff"), *UDP_REQUEST[4:]],
        [*UDP_REQUEST, (b"content-length", b"0")],
        [*UDP_REQUEST, (b"connection", b"upgrade")],
        [*UDP_REQUEST, (b":late", b"x")],
        [],
    ],
)
def test_malformed_requests(headers):
    with pytest.raises(RemoteProtocolError) as caught:
        parse_connect_request(headers)
    assert caught.value.code == 0x10E


def test_answers():
    assert accept_headers([(b"a", b"b")]) == ((b":status", b"200"), (b"capsule-protocol", b"?1"), (b"a", b"b"))
    assert refuse_headers(502, [(b"proxy-status", b"p")]) == ((b":status", b"502"), (b"proxy-status", b"p"))
    with pytest.raises(LocalProtocolError):
        refuse_headers(200)


def test_how_long_to_wait_is_part_of_the_hint():
    with pytest.raises(ProxyRefused) as caught:
        judge(503, (b"retry-after", b"120"))
    assert caught.value.hint.endswith("it asks to wait 120 s")
