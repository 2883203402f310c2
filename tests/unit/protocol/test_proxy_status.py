import pytest

from masque_client.protocol.proxy_status import ProxyStatus, ProxyStatusEntry


def parse(*values):
    return ProxyStatus.parse([(b"proxy-status", value) for value in values])


def test_absent():
    assert ProxyStatus.parse([(b"server", b"x")]) is None


@pytest.mark.parametrize("error", [b"dns_error", b'"dns_error"'])
def test_error_as_token_or_string(error):
    status = parse(b"proxy.example; error=" + error + b'; details="no such host"; rcode="NXDOMAIN"')
    assert status.entries == (ProxyStatusEntry("proxy.example", "dns_error", "no such host"),)
    assert status.describe() == "dns_error: no such host"


def test_next_hop_on_success():
    status = parse(b'"proxy.example:443";next-hop="192.0.2.6:443"')
    assert status.entries == (ProxyStatusEntry("proxy.example:443", next_hop="192.0.2.6:443"),)
    assert status.entries[0].describe() == "proxy.example:443"
    assert status.describe_success() == "proxy.example:443 → 192.0.2.6:443"


def test_several_hops_the_first_error_is_the_reason():
    status = parse(b"origin.example, inner;error=connection_refused;received-status=502", b"outer;error=http_loop")
    assert [entry.proxy for entry in status.entries] == ["origin.example", "inner", "outer"]
    assert status.entries[1].received_status == "502"
    assert status.describe() == "connection_refused"


@pytest.mark.parametrize("value", [b"", b"a b c", b'x;error="\x1b[0m"', b"\xff\xfe", b"(a b);error=c", b"a;error=@"])
def test_garbage_never_raises_and_is_disarmed(value):
    status = parse(value)
    assert status.entries == ()
    assert status.text.isprintable()
    assert status.describe() == status.text
