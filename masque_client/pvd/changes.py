"""What differs between two documents of one provisioning domain: for the log, the status and whoever holds rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from masque_client.pvd.model import PvdDocument
from masque_client.pvd.proxies import PvdProxy


class Cause(StrEnum):
    """Why a document came or went."""

    LOADED = "loaded from the cache"
    FETCHED = "fetched"
    EXPIRED = "expired"
    INVALIDATED = "invalidated by the network"


@dataclass(frozen=True, slots=True)
class DocumentChanged:
    """Another document counts from now on, or none.

    Attributes:
        old, new: before and after; None where there was or is none.
        cause: why.
        proxies_added, proxies_removed: entries of one that the other lacks, wherever they stand in the array.
    """

    old: PvdDocument | None
    new: PvdDocument | None
    cause: Cause
    proxies_added: tuple[PvdProxy, ...]
    proxies_removed: tuple[PvdProxy, ...]

    @classmethod
    def between(cls, old: PvdDocument | None, new: PvdDocument | None, cause: Cause) -> DocumentChanged:
        """Work out the differences."""
        before = old.proxies if old else ()
        after = new.proxies if new else ()
        return cls(old, new, cause, _without(after, before), _without(before, after))

    @property
    def is_about_proxies(self) -> bool:
        """Proxies came or went between two documents: what a person should hear of."""
        return bool(self.old and self.new and (self.proxies_added or self.proxies_removed))

    def __str__(self) -> str:
        document = self.new or self.old
        name = document.identifier if document else "nothing"
        parts = [f"the PvD document of {name} was {self.cause}" if self.new else f"the PvD document of {name} ended"]
        if self.new is None:
            parts[0] += f": {self.cause}"
        for word, proxies in (("new", self.proxies_added), ("gone", self.proxies_removed)):
            if proxies and self.is_about_proxies:
                parts.append(f"{word}: " + ", ".join(f"{proxy.protocol} {proxy.authority}" for proxy in proxies))
        return "; ".join(parts)


def _without(proxies: Iterable[PvdProxy], others: Iterable[PvdProxy]) -> tuple[PvdProxy, ...]:
    known = set(map(_substance, others))
    return tuple(proxy for proxy in proxies if _substance(proxy) not in known)


def _substance(proxy: PvdProxy) -> tuple[str, str, tuple[str, ...], str | None]:
    return proxy.protocol, proxy.text, proxy.alpn, proxy.identifier
