"""The test CA: chains verify with OpenSSL, wrong names and dates do not, keys are private, pins match."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from masque_client.testing.certificates import CertificateAuthority, Credentials, spki_pin


def handshake(
    authority: CertificateAuthority, server: Credentials, name: str, client: Credentials | None = None
) -> bool:
    """One TLS handshake over a socket pair; True when both ends finished it, raises what the client raised."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(server.certificate, server.key)
    client_context = ssl.create_default_context(cafile=str(authority.ca_file))
    if client is not None:
        server_context.load_verify_locations(authority.ca_file)
        server_context.verify_mode = ssl.CERT_REQUIRED
        client_context.load_cert_chain(client.certificate, client.key)
    ours, theirs = socket.socketpair()
    served: list[bytes] = []

    def serve() -> None:
        with theirs:
            try:
                with server_context.wrap_socket(theirs, server_side=True) as tls:
                    served.append(tls.recv(1))
            except (ssl.SSLError, OSError):
                return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with ours, client_context.wrap_socket(ours, server_hostname=name) as tls:
            tls.send(b"x")
    except ssl.SSLCertVerificationError:
        raise
    except OSError:
        pass  # the server hung up on us; with TLS 1.3 we learn of it late, or never
    finally:
        ours.close()
        thread.join()
    return served == [b"x"]


def test_leaf_verifies_for_each_of_its_names(authority: CertificateAuthority) -> None:
    leaf = authority.issue(["proxy.masque.test", "127.0.0.1", "::1"])
    for name in ("proxy.masque.test", "127.0.0.1", "::1"):
        assert handshake(authority, leaf, name)


def test_wrong_name_is_refused(authority: CertificateAuthority) -> None:
    leaf = authority.issue(["proxy.masque.test"])
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(authority, leaf, "other.masque.test")


def test_expired_and_unborn_certificates_are_refused(authority: CertificateAuthority) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(authority, authority.issue(["p.test"], not_after=yesterday), "p.test")
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    with pytest.raises(ssl.SSLCertVerificationError, match="not yet valid"):
        handshake(authority, authority.issue(["p.test"], not_before=tomorrow), "p.test")


def test_another_ca_does_not_vouch(authority: CertificateAuthority, tmp_path: Path) -> None:
    stranger = CertificateAuthority.create(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(authority, stranger.issue(["p.test"]), "p.test")


def test_client_certificate_authenticates_and_a_server_one_does_not(authority: CertificateAuthority) -> None:
    server = authority.issue(["p.test"])
    assert handshake(authority, server, "p.test", client=authority.issue(["alice"], client=True))
    assert not handshake(authority, server, "p.test", client=server)  # extendedKeyUsage says server only


def test_ca_and_leaf_are_separate_certificates(authority: CertificateAuthority) -> None:
    ca = x509.load_pem_x509_certificate(authority.ca_file.read_bytes())
    leaf = x509.load_pem_x509_certificate(authority.issue(["p.test"]).certificate.read_bytes())
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.issuer == ca.subject
    leaf.verify_directly_issued_by(ca)


def test_keys_are_readable_by_the_owner_only(authority: CertificateAuthority) -> None:
    leaf = authority.issue(["p.test"])
    for key in (leaf.key, authority.directory / "ca.key"):
        assert key.stat().st_mode & 0o777 == 0o600


def test_certificates_are_numbered_not_overwritten(authority: CertificateAuthority) -> None:
    assert authority.issue(["a.test"]).certificate != authority.issue(["b.test"]).certificate


def test_spki_pin_is_the_digest_of_the_public_key(authority: CertificateAuthority) -> None:
    leaf = authority.issue(["p.test"])
    certificate = x509.load_pem_x509_certificate(leaf.certificate.read_bytes())
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert spki_pin(leaf.certificate) == hashlib.sha256(spki).digest()


def test_no_name_is_our_mistake(authority: CertificateAuthority) -> None:
    with pytest.raises(ValueError, match="name"):
        authority.issue([])


def test_temporary_directory_when_none_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    authority = CertificateAuthority.create(name="somewhere")
    assert authority.directory.parent == tmp_path
    assert authority.ca_file.is_file()
