import pytest

from masque_client.errors import RemoteProtocolError
from masque_client.protocol.service_parameters import NO_PARAMETERS, ServiceParameters

DOT = ServiceParameters.of(alpn=("dot",), no_default_alpn=True, port=853)


def pairs(*items):
    return ServiceParameters(tuple((key, bytes.fromhex(value)) for key, value in items))


def test_what_is_said_is_read():
    doh = ServiceParameters.of(alpn=("h2", "h3"), doh_path="/dns-query{?dns}")
    assert (doh.alpn, doh.no_default_alpn, doh.port, doh.doh_path) == (("h2", "h3"), False, None, "/dns-query{?dns}")
    assert (DOT.alpn, DOT.no_default_alpn, DOT.port, DOT.doh_path) == (("dot",), True, 853, None)
    assert (NO_PARAMETERS.alpn, NO_PARAMETERS.no_default_alpn, NO_PARAMETERS.port) == ((), False, None)
    for parameters in (doh, DOT, NO_PARAMETERS):
        assert ServiceParameters.parse(parameters.encode()) == parameters
        assert parameters.find_problem() is None


def test_unknown_keys_are_kept_and_ignored():
    encoded = bytes.fromhex("0001" + "0004" + "03646f74" + "0005" + "0002" + "abcd" + "fde8" + "0000")
    parameters = ServiceParameters.parse(encoded)
    assert parameters.find_problem() is None
    assert parameters.encode() == encoded


@pytest.mark.parametrize("encoded", ["00", "0001", "000100", "00010001", "000100050364", "000300020355" + "0001"])
def test_cut(encoded):
    with pytest.raises(RemoteProtocolError, match=r"cut .RFC 9460 §2\.2"):
        ServiceParameters.parse(bytes.fromhex(encoded))


@pytest.mark.parametrize("encoded", ["0003000203550001000100", "0002000000020000"])
def test_keys_ascend(encoded):
    with pytest.raises(RemoteProtocolError, match="comes after"):
        ServiceParameters.parse(bytes.fromhex(encoded))


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        (pairs((4, "c0000201")), "address hints"),
        (pairs((6, "00" * 16)), "address hints"),
        (pairs((1, "")), "malformed alpn"),
        (pairs((1, "00")), "malformed alpn"),
        (pairs((1, "03646f")), "malformed alpn"),
        (pairs((1, "03646f7400")), "malformed alpn"),
        (pairs((1, "03646f74"), (2, "00")), "no-default-alpn"),
        (pairs((2, "")), "no-default-alpn"),
        (pairs((3, "")), "no port"),
        (pairs((3, "35")), "no port"),
        (pairs((3, "0000")), "no port"),
        (pairs((3, "000035")), "no port"),
        (pairs((0, "")), "malformed mandatory"),
        (pairs((0, "00")), "malformed mandatory"),
        (pairs((0, "0000")), "malformed mandatory"),
        (pairs((0, "0003")), "malformed mandatory"),
        (pairs((0, "00030001"), (1, "03646f74"), (3, "0355")), "malformed mandatory"),
        (pairs((0, "00010001"), (1, "03646f74")), "malformed mandatory"),
        (pairs((0, "fde8"), (65000, "")), "requires service parameter 65000"),
    ],
)
def test_problems(parameters, problem):
    assert problem in (parameters.find_problem() or "")


def test_mandatory_that_is_understood():
    assert pairs((0, "00010003"), (1, "03646f74"), (3, "0355")).find_problem() is None


@pytest.mark.parametrize(
    ("path", "is_usable"),
    [
        ("/dns-query{?dns}", True),
        ("/{dns}", True),
        ("/q?a=b{&dns}", True),
        ("/q{?other,dns}", True),
        ("/q{?other}", False),
        ("/q", False),
        ("", False),
        ("dns-query{?dns}", False),
        ("//other.example/{?dns}", False),
        ("https://other.example/{?dns}", False),
        ("/q{?dns}#f", False),
        ("/q {?dns}", False),
        ("/q\r\n{?dns}", False),
        ("/q{?dns", False),
        ("/q{?dns}}", False),
        ("/x{y:dns}{?dns}", False),
        ("/ü{?dns}", False),
    ],
)
def test_doh_path(path, is_usable):
    parameters = ServiceParameters.of(alpn=("h2",), doh_path=path)
    assert parameters.doh_path == (path if is_usable else None)
    assert parameters.find_problem() is None  # the server may still be asked in another way


def test_doh_path_that_is_not_text():
    assert pairs((7, "2fff7b3f646e737d")).doh_path is None
