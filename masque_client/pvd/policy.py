"""What the user permits a document to say. A PvD only ever narrows this (PROXY-CONFIG §4.2, §6)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ParsePolicy:
    """Local decisions about what may be taken from a document. The defaults trust least.

    Attributes:
        reached_over_tls: the document or the known proxy was reached over TLS, so that a cleartext proxy would be a
            downgrade and is dropped.
        allowed_cleartext: `host:port` of cleartext proxies that the user listed and that are kept nevertheless.
        allowed_literals: loopback, link-local, multicast or unspecified addresses that the user configured as proxy.
        strict_rules: one unusable rule discards the whole proxy configuration. By default it is skipped, which
            widens proxying when the rule was an exclusion.
    """

    reached_over_tls: bool = True
    allowed_cleartext: frozenset[str] = frozenset()
    allowed_literals: frozenset[str] = frozenset()
    strict_rules: bool = False


DEFAULT_POLICY = ParsePolicy()
