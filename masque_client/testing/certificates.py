"""A certificate authority for one test or one demo: a private CA and the leaf certificates it signs.

CA and leaf are always two certificates: BoringSSL-style verifiers, and qh3 among them, refuse one self-signed
certificate that plays both parts. Keys are EC P-256, written with mode 0600. Nothing here is for production: the CA
key lies unencrypted beside the certificates it signed.
"""

from __future__ import annotations

import hashlib
import ipaddress
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFETIME = timedelta(days=30)
LEAF_LIFETIME = timedelta(days=7)
CLOCK_SKEW = timedelta(hours=1)
"""Certificates are valid from this long ago, so that two machines of a lab need not agree to the second."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A certificate and its private key, both PEM files. They fit `engine.TlsConfiguration` as they are."""

    certificate: Path
    key: Path


class CertificateAuthority:
    """A CA that lives in one directory. Make one with `create`; give `ca_file` to clients and `issue` to servers."""

    def __init__(self, directory: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.directory = directory
        self.ca_file = directory / "ca.pem"
        self._certificate = certificate
        self._key = key
        self._issued = 0

    @classmethod
    def create(cls, directory: Path | None = None, *, name: str = "masque-connect test CA") -> CertificateAuthority:
        """Generate a key and a self-signed CA certificate and write them to `ca.pem` and `ca.key`.

        Args:
            directory: where files go, created if missing; a new temporary directory, the caller's to delete, if None.
            name: the common name of the CA.
        """
        directory = directory or Path(tempfile.mkdtemp(prefix="masque-ca-"))
        directory.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + CA_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(for_ca=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        authority = cls(directory, certificate, key)
        authority.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        _write_key(directory / "ca.key", key)
        return authority

    def issue(
        self,
        names: Sequence[str],
        *,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        client: bool = False,
    ) -> Credentials:
        """Sign a leaf certificate.

        Args:
            names: DNS names and IP literals for the subjectAltName; the first is the common name as well.
            not_before, not_after: validity, aware datetimes; dates in the past make an expired certificate.
            client: for a client certificate (mutual TLS) instead of a server's.
        """
        if not names:
            raise ValueError("a leaf certificate needs at least one name")
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        certificate = (
            x509.CertificateBuilder(
                self._certificate.subject,
                x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]),
                key.public_key(),
                x509.random_serial_number(),
            )
            .not_valid_before(not_before or min(now - CLOCK_SKEW, not_after or now))
            .not_valid_after(not_after or now + LEAF_LIFETIME)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(for_ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self._issued += 1
        stem = f"{'client' if client else 'server'}-{self._issued}"
        credentials = Credentials(self.directory / f"{stem}.pem", self.directory / f"{stem}.key")
        credentials.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        _write_key(credentials.key, key)
        return credentials


def spki_pin(certificate: Path) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo of a PEM certificate: what `TlsConfiguration.pin` holds (RFC 7469 §2.4)."""
    public_key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    spki = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).digest()


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, for_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not for_ca,
        key_cert_sign=for_ca,
        crl_sign=for_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)  # also when the file was there before, with another mode
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
