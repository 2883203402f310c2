"""Authentication of requests (RFC 9110 §11): credentials for one origin, and the answer to its challenges.

Credentials are sent unasked, because a MASQUE proxy is an origin server that would only ask for them (RFC 9484 §11),
and to the one origin that they are for: a proxy that a document names elsewhere does not get them (digest A-6).
A 401 or 407 is answered once, on a new stream of the same connection, when there is something new to say (A-5).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from masque_client.engine.interface import Address, Headers
from masque_client.errors import AuthenticationRefused, ConfigurationError
from masque_client.http.credentials import Credentials
from masque_client.protocol.challenges import CREDENTIALS_FIELDS

logger = logging.getLogger(__name__)

_SECRET_FIELDS = frozenset({*CREDENTIALS_FIELDS.values(), b"cookie"})
"""Fields of the user's own that are for one origin only."""

T = TypeVar("T")


class Authenticator:
    """Gives requests the user's fields and credentials. One for all connections; it learns what a proxy wants.

    Args:
        credentials: None for none.
        origin: host (lower case) and port that `credentials` and secret `fields` are for; no other origin sees them.
        fields: of the user's, sent with each request.
    """

    def __init__(
        self, credentials: Credentials | None = None, *, origin: Address | None = None, fields: Headers = ()
    ) -> None:
        self._credentials = credentials
        self.origin = origin
        self._fields = tuple(fields)
        self._names = {CREDENTIALS_FIELDS[401]}
        if credentials is not None and any(name in CREDENTIALS_FIELDS.values() for name, _ in self._fields):
            raise ConfigurationError("credentials are given twice, once as a header field", hint="give them one way")

    async def request(self, origin: Address, send: Callable[[Headers], Awaitable[T]]) -> T:
        """Call `send` with the fields for a request to `origin`; again, on a new stream, when a challenge asks for it.

        Raises:
            AuthenticationRefused: there is no answer to the challenge, or the answer was refused, too.
            ConfigurationError: the source of the credentials has none.
            MasqueError: whatever `send` raises.
        """
        is_ours = self._is_ours(origin)
        fields = [field for field in self._fields if is_ours or field[0] not in _SECRET_FIELDS]
        credentials: dict[bytes, bytes] = {}
        if is_ours and self._credentials is not None:
            credentials = dict.fromkeys(sorted(self._names), await self._credentials.value())
        answered: set[int] = set()
        while True:
            try:
                return await send((*fields, *credentials.items()))
            except AuthenticationRefused as error:
                if not await self._answer(error, is_ours, credentials, answered):
                    raise
                logger.info("%s; trying once more", error)

    def _is_ours(self, origin: Address) -> bool:
        return self.origin is not None and (origin[0].lower(), origin[1]) == self.origin

    async def _answer(
        self, error: AuthenticationRefused, is_ours: bool, credentials: dict[bytes, bytes], answered: set[int]
    ) -> bool:
        """Add to `credentials` what the challenge wants; False, and a better hint, when there is nothing new to say."""
        if self._credentials is None:
            return False
        if not is_ours:
            error.hint = f"your credentials are for {_show(self.origin)} alone; see --auth-origin"
            return False
        if self._credentials.scheme not in error.schemes:
            if error.schemes:
                error.hint = f"your credentials are of the scheme {self._credentials.scheme}, which it does not take"
            return False
        name = CREDENTIALS_FIELDS[error.status]
        refused = credentials.get(name)
        if error.status in answered or (value := await self._credentials.value(refused)) == refused:
            error.hint = "the proxy does not accept your credentials; check them"
            return False
        answered.add(error.status)
        self._names.add(name)
        credentials[name] = value
        return True


def _show(origin: Address | None) -> str:
    return "no origin" if origin is None else f"{origin[0]}:{origin[1]}"
