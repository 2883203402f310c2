"""TLS over TCP: what we demand of it, and its failures in our own words.

The counterpart of `engine.trust`, which does this for QUIC: there the library shows us the certificate it refused, here
the ssl module tells only OpenSSL's verification code.
"""

from __future__ import annotations

import os
import ssl

from masque_client.engine.interface import TlsConfiguration
from masque_client.engine.trust import ca_bundle, check_key_pair
from masque_client.errors import ConfigurationError, ConnectError, ConnectionLost, MasqueError, ProxyRefused, TlsError

ALPN_H2 = "h2"
_TLS12_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2, the suites that HTTP/2 allows (RFC 9113 §9.2.2); those of TLS 1.3 are all allowed."""

# OpenSSL's verification codes (x509_vfy.h) for which a person can be told more than "certificate verify failed".
_X509_NOT_YET_VALID = 9
_X509_EXPIRED = 10
_X509_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})
_X509_WRONG_NAME = frozenset({62, 64})


def client_context(tls: TlsConfiguration) -> ssl.SSLContext:
    """TLS 1.2 or newer for HTTP/2, chain and name verified, with our certificate if there is one.

    Raises:
        ConfigurationError: a file cannot be read, or holds nothing of use.
    """
    check_key_pair(tls)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    context.set_ciphers(_TLS12_CIPHERS)
    context.set_alpn_protocols([ALPN_H2])
    try:
        context.load_verify_locations(ca_bundle(tls))
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"a certificate file cannot be used: {_reason(error)}") from error
    return context


def explain_tls(error: BaseException, server_name: str, *, is_established: bool = False) -> MasqueError:
    """The error to raise for what the ssl module or the kernel said about a connection with `server_name`."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error, server_name)
    if isinstance(error, ssl.SSLError):
        return _explain_alert(error, server_name)
    if is_established:
        return ConnectionLost(f"the connection to {server_name} broke: {_reason(error)}")
    return ConnectError(f"{server_name} broke off the TLS handshake over TCP: {_reason(error)}")


def _explain_certificate(error: ssl.SSLCertVerificationError, server_name: str) -> TlsError:
    code = error.verify_code
    if code in _X509_WRONG_NAME:
        return TlsError(
            f"the certificate is not for {server_name}",
            hint="use a name the certificate is for, or check that this is the right proxy",
        )
    if code == _X509_EXPIRED:
        return TlsError(
            f"the certificate of {server_name} has expired",
            hint="check this machine's clock; if it is right, the operator must renew the certificate",
        )
    if code == _X509_NOT_YET_VALID:
        return TlsError(f"the certificate of {server_name} is not valid yet", hint="check this machine's clock")
    if code in _X509_UNKNOWN_ISSUER:
        return TlsError(
            f"the certificate of {server_name} is signed by an unknown CA ({error.verify_message})",
            hint="give the CA's certificate with --ca if the proxy uses a private CA",
        )
    return TlsError(f"the certificate of {server_name} did not verify: {error.verify_message}")


def _explain_alert(error: ssl.SSLError, server_name: str) -> MasqueError:
    """An alert of the peer's, or nonsense from it. OpenSSL names alerts `TLSV13_ALERT_CERTIFICATE_REQUIRED`."""
    reason = (error.reason or "").upper()
    if "NO_APPLICATION_PROTOCOL" in reason:
        return ProxyRefused(
            f"{server_name} does not speak HTTP/2",
            hint="check the port; over TCP the proxy must speak HTTP/2 (ALPN h2)",
        )
    if "CERTIFICATE_REQUIRED" in reason:
        return TlsError(f"{server_name} demands a client certificate", hint="give one with --cert and --key")
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason or "ACCESS_DENIED" in reason):
        return TlsError(
            f"{server_name} does not accept our client certificate ({_reason(error)})",
            hint="give a certificate that the proxy's operator issued to you, with --cert and --key",
        )
    return TlsError(f"the TLS handshake with {server_name} failed: {_reason(error)}")


def _reason(error: BaseException) -> str:
    """An OS or OpenSSL error in few words."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
