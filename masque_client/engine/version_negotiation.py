"""QUIC versions: which one a server takes, and whether a client was led to a worse one (RFC 9368, RFC 9369).

The libraries speak versions 1 and 2, send `version_information` and switch without a round trip (RFC 9368 §2.3); they
leave out the server's own preference and the check against downgrades (§4), which are here once for both.
"""

from __future__ import annotations

from collections.abc import Sequence

from masque_client.protocol.quic_invariants import QUIC_VERSION_1


def by_our_preference(theirs: Sequence[int], ours: Sequence[int]) -> list[int]:
    """A client's Available Versions in the order in which a server wants them, which has the choice (RFC 9368 §2.3)."""
    return sorted(theirs, key=lambda version: ours.index(version) if version in ours else len(ours))


def find_downgrade(
    information: tuple[int, Sequence[int]] | None, *, in_use: int, ours: Sequence[int], has_restarted: bool
) -> str | None:
    """Why a client must close with VERSION_NEGOTIATION_ERROR, in words, or None (RFC 9368 §4).

    Args:
        information: the server's Chosen and Available Versions, None when it sent none.
        in_use: the version of this connection.
        ours: what we offer; after a Version Negotiation packet the first that the server has is taken.
        has_restarted: we started again because of a Version Negotiation packet, which anybody on the way can write.
    """
    chosen, available = information or (QUIC_VERSION_1, (QUIC_VERSION_1,))  # RFC 9368 §8: all that version 1 knew
    if chosen != in_use:
        return "the version in use is not the one that the server says it chose"
    if has_restarted and next((version for version in ours if version in available), None) != in_use:
        return "a Version Negotiation packet has hidden a version that we prefer and the server has"
    return None
