"""Certificates, as far as both engines treat them alike: which CAs, the pin, and why one was not accepted.

The libraries verify chain and name; each words (and codes) its refusal differently, qh3 not even telling expiry from a
wrong name. So the sentence for the user comes from looking at the certificate again, here.
"""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
from datetime import UTC, datetime
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from masque_client.engine.interface import TlsConfiguration
from masque_client.errors import ConfigurationError, TlsError

_BUNDLES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Arch, Alpine
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora
    Path("/etc/ssl/ca-bundle.pem"),  # openSUSE
)
"""Where distributions keep their one-file bundles; OpenSSL only names a directory on some of them."""


def ca_bundle(tls: TlsConfiguration) -> Path:
    """The PEM file of trusted CAs: the user's, else the system's, else certifi's.

    Raises:
        ConfigurationError: the user's file cannot be read or holds no certificate.
    """
    if tls.ca_file is not None:
        _require_certificates(tls.ca_file)
        return tls.ca_file
    default = ssl.get_default_verify_paths().cafile
    candidates = (Path(default), *_BUNDLES) if default else _BUNDLES
    return next((path for path in candidates if path.is_file()), Path(certifi.where()))


def check_key_pair(tls: TlsConfiguration) -> None:
    """Check that certificate and key come together, can be read and belong together (qh3 panics over a bad key).

    Raises:
        ConfigurationError: they are not, in a sentence that says why.
    """
    if (tls.certificate is None) != (tls.key is None):
        raise ConfigurationError("a certificate needs its key, and a key its certificate")
    if tls.certificate is None or tls.key is None:
        return
    leaf = _require_certificates(tls.certificate)[0]
    try:
        key = load_pem_private_key(tls.key.read_bytes(), password=None)
    except OSError as error:
        raise ConfigurationError(f"the key {tls.key} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(
            f"the key {tls.key} cannot be used", hint="keys are PEM files without a password"
        ) from error
    if key.public_key() != leaf.public_key():
        raise ConfigurationError(f"the key {tls.key} does not belong to the certificate {tls.certificate}")


def _require_certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"the certificate file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} holds no PEM certificate") from error


def public_key_digest(certificate_der: bytes) -> bytes:
    """SHA-256 of the certificate's SubjectPublicKeyInfo (RFC 7469 §2.4)."""
    public_key = x509.load_der_x509_certificate(certificate_der).public_key()
    return hashlib.sha256(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def pin_mismatch(certificate_der: bytes, pin: bytes, server_name: str) -> TlsError | None:
    """The error to end the connection with when the leaf's public key is not the pinned one, else None."""
    digest = public_key_digest(certificate_der)
    if digest == pin:
        return None
    return TlsError(
        f"the public key of {server_name} does not match the pin: its SHA-256 is {digest.hex()}",
        hint="if the operator announced a new key, update the pin; otherwise somebody may be intercepting",
    )


def explain_refusal(certificate_der: bytes | None, server_name: str, reason: str) -> TlsError:
    """Say in a sentence why a certificate that the library refused is not good.

    Args:
        certificate_der: the leaf, or None when none arrived.
        server_name: the DNS name or IP literal it had to be for.
        reason: the library's own words, for the cases we do not know better.
    """
    if certificate_der is None:
        return TlsError(f"the TLS handshake with {server_name} failed: {reason}")
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        names = _names(certificate)
    except ValueError:
        return TlsError(f"the certificate of {server_name} cannot be parsed")
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        return TlsError(
            f"the certificate of {server_name} expired on {certificate.not_valid_after_utc:%Y-%m-%d}",
            hint="check this machine's clock; if it is right, the operator must renew the certificate",
        )
    if now < certificate.not_valid_before_utc:
        return TlsError(
            f"the certificate of {server_name} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}",
            hint="check this machine's clock",
        )
    if not any(_matches(server_name, name) for name in names):
        return TlsError(
            f"the certificate is not for {server_name}, but for {', '.join(names) or 'no name at all'}",
            hint="use a name the certificate is for, or check that this is the right proxy",
        )
    return TlsError(
        f"the certificate of {server_name} is signed by an unknown CA ({reason})",
        hint="give the CA's certificate with --ca if the proxy uses a private CA",
    )


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(address) for address in san.get_values_for_type(x509.IPAddress)]
    return [*san.get_values_for_type(x509.DNSName), *addresses]


def _matches(server_name: str, name: str) -> bool:
    """Does a certificate's name cover the server's? A wildcard stands for one whole leftmost label (RFC 9525 §6.3)."""
    try:
        return ipaddress.ip_address(server_name) == ipaddress.ip_address(name)
    except ValueError:
        pass
    wanted, offered = server_name.rstrip(".").lower(), name.rstrip(".").lower()
    if offered.startswith("*."):
        return wanted.partition(".")[2] == offered[2:]
    return wanted == offered
