"""Who may use the test proxy: HTTP authentication (RFC 9110 §11) with fixed credentials."""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass
from typing import Literal

from masque_client.protocol.headers import Header, Headers, field_values


@dataclass(frozen=True, slots=True)
class Authentication:
    """What a request must carry. Mutual TLS (`mtls`) is judged by the engine before any request.

    Attributes:
        scheme: "none", "basic", "bearer" or "mtls".
        secret: `user:password` for basic, the token for bearer.
        status: 401 as an origin server (RFC 9484 §11), or 407 as an HTTP proxy in front would.
    """

    scheme: Literal["none", "basic", "bearer", "mtls"] = "none"
    secret: str = ""
    status: Literal[401, 407] = 401

    @classmethod
    def parse(cls, text: str, status: Literal[401, 407] = 401) -> Authentication:
        """`none`, `mtls`, `basic:USER:PASSWORD` or `bearer:TOKEN`.

        Raises:
            ValueError: it is none of these.
        """
        scheme, _, secret = text.partition(":")
        if scheme in ("none", "mtls") and not secret:
            return cls(scheme, "", status)  # type: ignore[arg-type]
        if (scheme == "basic" and ":" in secret) or (scheme == "bearer" and secret):
            return cls(scheme, secret, status)  # type: ignore[arg-type]
        raise ValueError(f"{text!r} is not none, mtls, basic:USER:PASSWORD or bearer:TOKEN")

    def accepts(self, fields: Headers) -> bool:
        """Whether a request with these fields may pass. Only the field that belongs to `status` counts."""
        if self.scheme in ("none", "mtls"):
            return True
        expected = self.secret.encode()
        if self.scheme == "basic":
            expected = base64.b64encode(expected)
        name = b"authorization" if self.status == 401 else b"proxy-authorization"
        for value in field_values(fields, name):
            scheme, _, credentials = value.partition(b" ")
            if scheme.lower() == self.scheme.encode():
                return hmac.compare_digest(credentials.strip(), expected)
        return False

    def challenge(self) -> Header:
        """The field that a refusal carries (RFC 9110 §11.6.1, §11.7.1)."""
        name = b"www-authenticate" if self.status == 401 else b"proxy-authenticate"
        charset = ', charset="UTF-8"' if self.scheme == "basic" else ""
        return name, f'{self.scheme.capitalize()} realm="masque test proxy"{charset}'.encode()
