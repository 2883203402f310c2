"""From what a user names to what is fetched, and the identifier that must come back.

Sources: RFC 8801 §4.1, PROXY-CONFIG §2.
"""

from __future__ import annotations

from dataclasses import dataclass

from masque_client.errors import ConfigurationError, PvdError
from masque_client.pvd.names import HTTPS_PORT, HostPort, canonical_name, parse_address
from masque_client.pvd.values import quoted

WELL_KNOWN_PATH = "/.well-known/pvd"
_HOST_HINT = "give a host name such as proxy.example, or the document's URL"


@dataclass(frozen=True, slots=True)
class PvdSource:
    """Where a PvD document is, and what it must call itself.

    Attributes:
        url: an https URL.
        expected_identifier: the host name, canonical, that the document's `identifier` must equal.
    """

    url: str
    expected_identifier: str

    @classmethod
    def parse(cls, text: str, *, expected_identifier: str | None = None) -> PvdSource:
        """Read `HOST`, `HOST:PORT`, a proxy's URI template, or the https URL of a document.

        The first three, and a URL without a path, mean the well-known URI of that host on port 443, whatever the
        proxy's own port is. A URL with a path is fetched as it stands.

        Args:
            text: what the user named.
            expected_identifier: the proxy's host name, where it differs from the URL's host.

        Raises:
            PvdError: an IP address has no PvD document: nothing could be compared with its identifier.
            ConfigurationError: the text is none of these.
        """
        try:
            authority = _authority(text)
            expected = canonical_name(expected_identifier) if expected_identifier is not None else None
        except ConfigurationError as error:
            raise ConfigurationError(f"{quoted(text)} {error}", hint=_HOST_HINT) from error
        if expected is None and authority.address is not None:
            raise PvdError(f"{authority.host} is an IP address; only host names have PvD documents", hint=_HOST_HINT)
        if _is_document_url(text):
            return cls(text, expected or authority.host)
        return cls.well_known(expected or authority.host)

    @classmethod
    def well_known(cls, host: str) -> PvdSource:
        """The document of a host whose name is canonical."""
        return cls(f"https://{host}{WELL_KNOWN_PATH}", host)


def _authority(text: str) -> HostPort:
    if "://" in text:
        return HostPort.of_https_url(text)
    if (address := parse_address(text)) is not None:  # IPv6 as people write it, without brackets
        return HostPort(str(address), HTTPS_PORT)
    try:
        return HostPort.parse(text, default_port=HTTPS_PORT)
    except ConfigurationError:
        return HostPort(canonical_name(text), HTTPS_PORT)  # names in Unicode


def _is_document_url(text: str) -> bool:
    """An https URL with a path is a document's, unless the braces of a template make it a proxy's."""
    _, scheme, rest = text.partition("://")
    return bool(scheme) and "{" not in text and rest.partition("/")[2] != ""
