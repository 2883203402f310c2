"""Service parameters of a nameserver: how else than by plain DNS it can be asked (RFC 9460 §2.2, RFC 9461).

Parsing checks the structure, which a sender cannot get wrong by ignorance; `find_problem` checks what the parameters
say, and whoever fails it is a nameserver not to be used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Final, Self

from masque_client.errors import RemoteProtocolError


class SvcParamKey(IntEnum):
    """Registered keys that mean something here. Others are kept and ignored (RFC 9460 §8)."""

    MANDATORY = 0
    ALPN = 1
    NO_DEFAULT_ALPN = 2
    PORT = 3
    IPV4HINT = 4
    IPV6HINT = 6
    DOHPATH = 7


_UNDERSTOOD = frozenset({SvcParamKey.ALPN, SvcParamKey.NO_DEFAULT_ALPN, SvcParamKey.PORT, SvcParamKey.DOHPATH})
"""Keys that `mandatory` may list without making the nameserver unusable for us."""

_VARIABLES = re.compile(r"\{[?&/]?([A-Za-z0-9_,]+)\}")
_DOH_PATH = re.compile(rf"/(?!/)(?:[\x21-\x7e](?<![{{}}#\"<>\\^`|])|{_VARIABLES.pattern})+")
"""RFC 9461 §5: a path, so that the server's name stays the origin (two slashes would name another host); ASCII, for
what goes into `:path` must be."""


@dataclass(frozen=True, slots=True)
class ServiceParameters:
    """Keys and values as on the wire, keys ascending. The properties hold for one without a `find_problem`."""

    pairs: tuple[tuple[int, bytes], ...] = ()

    @classmethod
    def of(
        cls,
        *,
        alpn: tuple[str, ...] = (),
        no_default_alpn: bool = False,
        port: int | None = None,
        doh_path: str | None = None,
    ) -> Self:
        """The parameters that say this."""
        values: dict[int, bytes] = {}
        if alpn:
            values[SvcParamKey.ALPN] = b"".join(len(id).to_bytes(1) + id.encode("latin-1") for id in alpn)
        if no_default_alpn:
            values[SvcParamKey.NO_DEFAULT_ALPN] = b""
        if port is not None:
            values[SvcParamKey.PORT] = port.to_bytes(2)
        if doh_path is not None:
            values[SvcParamKey.DOHPATH] = doh_path.encode()
        return cls(tuple(values.items()))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Split into keys and values.

        Raises:
            RemoteProtocolError: a parameter is cut, or keys do not strictly ascend (RFC 9460 §2.2).
        """
        clause = "RFC 9460 §2.2"
        pairs: list[tuple[int, bytes]] = []
        offset = 0
        while offset < len(data):
            value_start = offset + 4
            key = int.from_bytes(data[offset : offset + 2])
            offset = value_start + int.from_bytes(data[offset + 2 : value_start])
            if value_start > len(data) or offset > len(data):
                raise RemoteProtocolError("a service parameter is cut", clause=clause)
            if pairs and key <= pairs[-1][0]:
                raise RemoteProtocolError(f"service parameter {key} comes after {pairs[-1][0]}", clause=clause)
            pairs.append((key, data[value_start:offset]))
        return cls(tuple(pairs))

    def encode(self) -> bytes:
        """The wire format, without a length in front."""
        return b"".join(key.to_bytes(2) + len(value).to_bytes(2) + value for key, value in self.pairs)

    @property
    def alpn(self) -> tuple[str, ...]:
        """Protocol ids in the server's order of preference; for DNS `dot`, `doq`, and `h2`, `h3` for DoH."""
        return _split_alpn(self._get(SvcParamKey.ALPN) or b"") or ()

    @property
    def no_default_alpn(self) -> bool:
        """True: never ask this server in plain text."""
        return self._get(SvcParamKey.NO_DEFAULT_ALPN) is not None

    @property
    def port(self) -> int | None:
        """The port, or None for the default of each protocol."""
        value = self._get(SvcParamKey.PORT)
        return None if value is None else int.from_bytes(value)

    @property
    def doh_path(self) -> str | None:
        """The template of DoH requests, relative to the server's origin; None when there is none that can be used."""
        path = (self._get(SvcParamKey.DOHPATH) or b"").decode("utf-8", "replace")
        is_usable = _DOH_PATH.fullmatch(path) and any("dns" in names.split(",") for names in _VARIABLES.findall(path))
        return path if is_usable else None

    def find_problem(self) -> str | None:
        """Why a nameserver with these parameters must not be used, in words, or None."""
        values = dict(self.pairs)
        if not values.keys().isdisjoint({SvcParamKey.IPV4HINT, SvcParamKey.IPV6HINT}):
            return "has address hints, which are not allowed beside addresses"
        if SvcParamKey.ALPN in values and not _split_alpn(values[SvcParamKey.ALPN]):
            return "has a malformed alpn parameter"
        if self.no_default_alpn and (values[SvcParamKey.NO_DEFAULT_ALPN] or SvcParamKey.ALPN not in values):
            return "has no-default-alpn with a value or without alpn"
        if SvcParamKey.PORT in values and (len(values[SvcParamKey.PORT]) != 2 or not any(values[SvcParamKey.PORT])):
            return "has a port parameter that is no port"
        return _find_mandatory_problem(values)

    def _get(self, wanted: int) -> bytes | None:
        return next((value for key, value in self.pairs if key == wanted), None)


NO_PARAMETERS: Final = ServiceParameters()
"""Plain DNS on port 53 and nothing else."""


def _split_alpn(value: bytes) -> tuple[str, ...] | None:
    """Ids with a length octet before each (RFC 9460 §7.1.1); None unless they fill `value` and none is empty."""
    ids: list[str] = []
    offset = 0
    while offset < len(value):
        end = offset + 1 + value[offset]
        if end > len(value) or end == offset + 1:
            return None
        ids.append(value[offset + 1 : end].decode("latin-1"))
        offset = end
    return tuple(ids)


def _find_mandatory_problem(values: dict[int, bytes]) -> str | None:
    """RFC 9460 §8: a list of other keys, ascending, all present; one that is not understood makes it unusable."""
    value = values.get(SvcParamKey.MANDATORY)
    if value is None:
        return None
    keys = [int.from_bytes(value[index : index + 2]) for index in range(0, len(value), 2)]
    is_ascending = all(before < after for before, after in pairwise(keys))
    if not keys or len(value) % 2 or not is_ascending or SvcParamKey.MANDATORY in keys or not values.keys() >= {*keys}:
        return "has a malformed mandatory parameter"
    unknown = [key for key in keys if key not in _UNDERSTOOD]
    return f"requires service parameter {unknown[0]}, which we do not know" if unknown else None
