"""Who is trusted, and what a user reads when somebody is not (RFC 9001 §4, RFC 9114 §3.1, RFC 7469)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from masque_client.engine import create_client_engine, create_server_engine
from masque_client.engine.interface import (
    ConnectionClosed,
    EngineConfiguration,
    EngineName,
    HandshakeCompleted,
    SettingsReceived,
    TlsConfiguration,
)
from masque_client.errors import (
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    LocalProtocolError,
    ProxyRefused,
    TlsError,
)
from masque_client.testing.certificates import CertificateAuthority, Credentials, spki_pin
from tests.sim.link import Conditions, Pair
from tests.unit.engine import raw
from tests.unit.engine.conftest import CONNECT_IP, PROXY, MakePair, settle

ALERT = 0x100


@pytest.fixture(autouse=True)
def quiet_libraries() -> Iterator[None]:
    """Both libraries log the refusals that these tests provoke."""
    logging.getLogger("quic").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("quic").setLevel(logging.NOTSET)


def server_with(credentials: Credentials) -> TlsConfiguration:
    return TlsConfiguration(certificate=credentials.certificate, key=credentials.key)


def refused(pair: Pair) -> ConnectionClosed:
    """Connect; the client must refuse the server, say so once, and never be able to send a request."""
    pair.connect()
    assert pair.run(lambda: bool(pair.client.of_type(ConnectionClosed)), for_s=5)
    pair.run(for_s=0.2)
    (closed,) = pair.client.of_type(ConnectionClosed)
    assert isinstance(closed.error, TlsError)
    assert not closed.is_application
    assert not pair.client.of_type(HandshakeCompleted)
    with pytest.raises(LocalProtocolError):
        pair.client.engine.open_request(CONNECT_IP)
    (heard,) = pair.server.of_type(ConnectionClosed)
    assert heard.error_code == closed.error_code, "the server is told"
    return closed


def test_unknown_ca(make_pair: MakePair, tmp_path: Path) -> None:
    other = CertificateAuthority.create(tmp_path)
    closed = refused(make_pair(client={"tls": TlsConfiguration(ca_file=other.ca_file)}))
    assert "unknown CA" in str(closed.error)
    assert isinstance(closed.error, TlsError)
    assert "--ca" in closed.error.hint


def test_system_cas_do_not_know_ours(make_pair: MakePair) -> None:
    assert "unknown CA" in str(refused(make_pair(client={"tls": TlsConfiguration()})).error)


def test_expired(make_pair: MakePair, authority: CertificateAuthority) -> None:
    expired = authority.issue([PROXY], not_after=datetime.now(UTC) - timedelta(days=1))
    closed = refused(make_pair(server={"tls": server_with(expired)}))
    assert f"certificate of {PROXY} expired on" in str(closed.error)


def test_not_yet_valid(make_pair: MakePair, authority: CertificateAuthority) -> None:
    early = authority.issue([PROXY], not_before=datetime.now(UTC) + timedelta(days=1))
    closed = refused(make_pair(server={"tls": server_with(early)}))
    assert "is not valid before" in str(closed.error)


@pytest.mark.parametrize("name", ["other.example", "a.b.wild.example", "wild.example", "198.51.100.3", "2001:db8::3"])
def test_wrong_name(make_pair: MakePair, name: str) -> None:
    closed = refused(make_pair(client={"server_name": name}))
    assert str(closed.error).startswith(f"the certificate is not for {name}, but for {PROXY}")


@pytest.mark.parametrize("name", [PROXY, "a.wild.example", "198.51.100.2", "2001:db8::2"])
def test_right_name(make_pair: MakePair, name: str) -> None:
    settle(make_pair(client={"server_name": name}))


def test_the_right_pin(make_pair: MakePair, authority: CertificateAuthority, leaf: Credentials) -> None:
    settle(make_pair(client={"tls": TlsConfiguration(ca_file=authority.ca_file, pin=spki_pin(leaf.certificate))}))


def test_the_wrong_pin(make_pair: MakePair, authority: CertificateAuthority, leaf: Credentials) -> None:
    closed = refused(make_pair(client={"tls": TlsConfiguration(ca_file=authority.ca_file, pin=bytes(32))}))
    assert "does not match the pin" in str(closed.error)
    assert spki_pin(leaf.certificate).hex() in str(closed.error)


def test_no_http3_server(make_pair: MakePair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = make_pair()
    module = f"masque_client.engine.{pair._server_configuration[0]}_engine"
    accept = pair._accept

    def accept_another_protocol(first: bytes) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(f"{module}.ALPN", "doq")
            accept(first)

    pair._accept = accept_another_protocol  # type: ignore[method-assign]
    pair.connect()
    assert pair.run(lambda: bool(pair.client.of_type(ConnectionClosed)))
    error = pair.client.of_type(ConnectionClosed)[0].error
    assert isinstance(error, ProxyRefused)
    assert str(error) == f"{PROXY} is not an HTTP/3 server"


def mutual(pair: MakePair, authority: CertificateAuthority, leaf: Credentials, client: Credentials | None) -> Pair:
    certificate, key = (client.certificate, client.key) if client is not None else (None, None)
    return pair(
        client={"tls": TlsConfiguration(ca_file=authority.ca_file, certificate=certificate, key=key)},
        server={"tls": replace(server_with(leaf), ca_file=authority.ca_file)},
    )


@pytest.mark.parametrize("server_engine", [EngineName.AIOQUIC])
class TestMutualTls:
    def test_a_good_certificate(self, make_pair: MakePair, authority: CertificateAuthority, leaf: Credentials) -> None:
        ours = authority.issue(["client"], client=True)
        pair = settle(mutual(make_pair, authority, leaf, ours))
        assert pair.server.of_type(HandshakeCompleted)[0].peer_certificate is not None

    def test_none(self, make_pair: MakePair, authority: CertificateAuthority, leaf: Credentials) -> None:
        self.check_refusal(mutual(make_pair, authority, leaf, None), "demands a client certificate", ALERT + 116)

    def test_of_another_ca(
        self, make_pair: MakePair, authority: CertificateAuthority, leaf: Credentials, tmp_path: Path
    ) -> None:
        theirs = CertificateAuthority.create(tmp_path).issue(["client"], client=True)
        self.check_refusal(
            mutual(make_pair, authority, leaf, theirs), "does not accept our client certificate", ALERT + 42
        )

    def test_expired(self, make_pair: MakePair, authority: CertificateAuthority, leaf: Credentials) -> None:
        old = authority.issue(["client"], client=True, not_after=datetime.now(UTC) - timedelta(days=1))
        self.check_refusal(
            mutual(make_pair, authority, leaf, old), "does not accept our client certificate", ALERT + 45
        )

    def check_refusal(self, pair: Pair, message: str, code: int) -> None:
        pair.connect()
        assert pair.run(lambda: bool(pair.client.of_type(ConnectionClosed)))
        (closed,) = pair.client.of_type(ConnectionClosed)
        assert isinstance(closed.error, TlsError)
        assert message in str(closed.error)
        assert "--cert" in closed.error.hint
        assert closed.error_code == code
        assert not pair.server.of_type(HandshakeCompleted)
        assert isinstance(pair.server.of_type(ConnectionClosed)[0].error, TlsError)


def test_an_unasked_client_certificate_is_harmless(
    make_pair: MakePair, authority: CertificateAuthority, leaf: Credentials
) -> None:
    ours = authority.issue(["client"], client=True)
    tls = TlsConfiguration(ca_file=authority.ca_file, certificate=ours.certificate, key=ours.key)
    settle(make_pair(client={"tls": tls}))


def test_qh3_says_that_it_cannot_demand_certificates(
    server_configuration: EngineConfiguration, authority: CertificateAuthority
) -> None:
    pytest.importorskip("qh3")
    configuration = replace(server_configuration, tls=replace(server_configuration.tls, ca_file=authority.ca_file))
    with pytest.raises(ConfigurationError, match="cannot verify client certificates"):
        create_server_engine(EngineName.QH3, configuration, original_destination_connection_id=bytes(8))


def test_unusable_files(
    client_engine: EngineName,
    client_configuration: EngineConfiguration,
    server_configuration: EngineConfiguration,
    leaf: Credentials,
    authority: CertificateAuthority,
    tmp_path: Path,
) -> None:
    other = authority.issue([PROXY]).key
    text = tmp_path / "text"
    text.write_text("not a certificate")
    for tls, message in (
        (TlsConfiguration(ca_file=tmp_path / "none"), "cannot be read"),
        (TlsConfiguration(ca_file=text), "holds no PEM certificate"),
        (TlsConfiguration(certificate=leaf.certificate), "needs its key"),
        (TlsConfiguration(key=leaf.key), "a key its certificate"),
        (TlsConfiguration(certificate=leaf.certificate, key=tmp_path / "none"), "cannot be read"),
        (TlsConfiguration(certificate=leaf.certificate, key=text), "cannot be used"),
        (TlsConfiguration(certificate=leaf.certificate, key=other), "does not belong"),
        (TlsConfiguration(certificate=text, key=leaf.key), "holds no PEM certificate"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            create_client_engine(client_engine, replace(client_configuration, tls=tls))
    with pytest.raises(ConfigurationError, match="a server needs"):
        create_server_engine(
            client_engine,
            replace(server_configuration, tls=TlsConfiguration()),
            original_destination_connection_id=bytes(8),
        )


def test_nobody_answers(make_pair: MakePair) -> None:
    pair = make_pair(client={"idle_timeout_s": 5.0}, conditions=Conditions(loss=1.0))
    pair.connect()
    assert pair.run(lambda: bool(pair.client.of_type(ConnectionClosed)), for_s=20)
    (closed,) = pair.client.of_type(ConnectionClosed)
    assert type(closed.error) is ConnectError
    assert str(closed.error) == f"{PROXY} does not answer over UDP"
    assert len(pair.client.sent) > 2, "the Initial was repeated"


def test_the_server_falls_silent(make_pair: MakePair) -> None:
    pair = settle(make_pair(both={"idle_timeout_s": 5.0}))
    pair.conditions.loss = 1.0
    assert pair.run(lambda: all(end.of_type(ConnectionClosed) for end in pair.ends), for_s=20)
    for end in pair.ends:
        assert isinstance(end.of_type(ConnectionClosed)[0].error, ConnectionLost)


def test_pings_keep_the_connection(make_pair: MakePair) -> None:
    pair = settle(make_pair(both={"idle_timeout_s": 5.0}))
    for _ in range(10):
        pair.client.engine.ping()
        pair.run(for_s=2)
    assert not any(end.of_type(ConnectionClosed) for end in pair.ends)


@pytest.mark.parametrize(
    ("code", "reason", "message"),
    [
        (0x107, "go away", "proxy.example closed the connection: H3_EXCESSIVE_LOAD (0x107) (go away)"),
        (0x1234, "", "proxy.example closed the connection: 0x1234"),
    ],
)
def test_the_server_closes(make_pair: MakePair, code: int, reason: str, message: str) -> None:
    pair = settle(make_pair())
    pair.server.engine.close(code, reason)
    assert pair.run(lambda: bool(pair.client.of_type(ConnectionClosed)))
    (closed,) = pair.client.of_type(ConnectionClosed)
    assert (closed.error_code, closed.reason, closed.is_application) == (code, reason, True)
    assert isinstance(closed.error, ConnectionLost)
    assert str(closed.error) == message


def test_the_servers_transport_error(make_pair: MakePair) -> None:
    pair = settle(make_pair())
    raw.quic(pair.server).close(0x0A, 0x30, "bad frame")
    assert pair.run(lambda: bool(pair.client.of_type(ConnectionClosed)))
    (closed,) = pair.client.of_type(ConnectionClosed)
    assert not closed.is_application
    assert str(closed.error) == "proxy.example closed the connection: PROTOCOL_VIOLATION (bad frame)"


def test_after_the_end_everything_is_harmless(make_pair: MakePair) -> None:
    pair = settle(make_pair())
    engine = pair.client.engine
    stream_id = engine.open_request(CONNECT_IP)
    engine.close()
    engine.close(0x107)
    assert engine.send_datagrams(stream_id, [b"x"], pair.now) == 1
    engine.send_data(stream_id, b"x", end_stream=True)
    engine.reset_stream(stream_id, 0x10C)
    engine.ping()
    with pytest.raises(LocalProtocolError):
        engine.open_request(CONNECT_IP)
    pair.run(for_s=60)
    assert len(pair.client.of_type(ConnectionClosed)) == 1
    assert isinstance(pair.client.events[-1], ConnectionClosed)
    assert engine.next_timeout() is None
    assert engine.datagrams_to_send(pair.now) == []


def test_the_secrets_log_is_for_dissectors(make_pair: MakePair, tmp_path: Path) -> None:
    with (tmp_path / "keys").open("w") as log:
        settle(make_pair(client={"secrets_log": log}))
    assert "CLIENT_TRAFFIC_SECRET_0" in (tmp_path / "keys").read_text()


def test_settings_are_told_once(make_pair: MakePair) -> None:
    pair = settle(make_pair())
    pair.run(for_s=1)
    assert len(pair.client.of_type(SettingsReceived)) == 1
