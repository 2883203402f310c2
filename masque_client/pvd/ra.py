"""The PvD option of IPv6 router advertisements (RFC 8801 §3.1): the network names a provisioning domain.

Sans-IO: bytes in, values out; `ra_socket` receives them. What is learned here comes from whoever answers on the link.
It leads to a document that may be shown; its proxies are used only as far as `trust.NetworkPvdTrust` was told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address, IPv6Network

from masque_client.errors import ConfigurationError, RemoteProtocolError
from masque_client.pvd.names import canonical_name

ROUTER_SOLICITATION = 133
ROUTER_ADVERTISEMENT = 134
REQUIRED_HOP_LIMIT = 255

_OPTION_PREFIX_INFORMATION = 3
_OPTION_PVD = 21
_OPTION_RDNSS = 25

_FLAG_HTTP = 0x8000
_FLAG_LEGACY = 0x4000
_FLAG_ROUTER_ADVERTISEMENT = 0x2000
_DELAY_MASK = 0x000F

_RA_HEADER_BYTES = 16
_MAX_LABEL_BYTES = 63
_MAX_NAME_BYTES = 255


@dataclass(frozen=True, slots=True)
class PvdOption:
    """One PvD option.

    Attributes:
        pvd_id: the domain's name, canonical: where its document is, and what the document must call itself.
        has_document: the H flag; without it nothing may be fetched.
        is_for_dhcpv4: the L flag: DHCPv4's answers belong to this domain, too.
        delay: exponent of the random wait after a change, see `schedule.sequence_delay_s`; 0 without a document.
        sequence_number: 16 bits; another number means another document. 0 without a document.
        router_lifetime_s: of the nested header (R flag), which overrides the outer one; None without it.
    """

    pvd_id: str
    has_document: bool
    is_for_dhcpv4: bool
    delay: int
    sequence_number: int
    router_lifetime_s: int | None


@dataclass(frozen=True, slots=True)
class RouterAdvertisement:
    """One accepted advertisement.

    Attributes:
        router: its link-local source.
        lifetime_s: of the router as a default router.
        prefixes: of every Prefix Information Option, those inside the PvD option included: all belong to the PvD.
        resolvers: of the RDNSS options, likewise.
        pvd: the first PvD option; None when there is none or it is unusable.
    """

    router: IPv6Address
    lifetime_s: int
    prefixes: tuple[IPv6Network, ...]
    resolvers: tuple[IPv6Address, ...]
    pvd: PvdOption | None


def parse_router_advertisement(message: bytes, *, source: IPv6Address, hop_limit: int) -> RouterAdvertisement:
    """Parse an ICMPv6 message whose checksum the kernel has verified (RFC 4861 §6.1.2).

    Args:
        message: from the ICMPv6 type on.
        source: the IPv6 source address.
        hop_limit: of the IPv6 header; what was forwarded has less than 255.

    Raises:
        RemoteProtocolError: it is no valid advertisement and must be dropped as a whole.
    """
    clause = "RFC 4861 §6.1.2"
    if hop_limit != REQUIRED_HOP_LIMIT:
        raise RemoteProtocolError("the router advertisement was forwarded", clause=clause)
    if not source.is_link_local:
        raise RemoteProtocolError("the router advertisement has no link-local source", clause=clause)
    if len(message) < _RA_HEADER_BYTES or message[:2] != bytes([ROUTER_ADVERTISEMENT, 0]):
        raise RemoteProtocolError("the message is no router advertisement", clause=clause)
    options = list(_options(message[_RA_HEADER_BYTES:]))
    pvd, nested = _first_pvd(options)
    everything = [*options, *nested]
    return RouterAdvertisement(
        router=IPv6Address(int(source)),  # without its scope
        lifetime_s=int.from_bytes(message[6:8], "big"),
        prefixes=tuple(dict.fromkeys(_prefixes(everything))),
        resolvers=tuple(dict.fromkeys(_resolvers(everything))),
        pvd=pvd,
    )


class Observation(Enum):
    """What an advertisement means for the document of its PvD."""

    NEW = "new"
    CHANGED = "changed"
    """Discard the document, wait `schedule.sequence_delay_s`, fetch."""
    UNCHANGED = "unchanged"


class SequenceNumbers:
    """The last Sequence Number of each PvD on one network attachment; make a new one with the attachment."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def observe(self, option: PvdOption) -> Observation:
        """Compare for inequality: the number wraps (RFC 8801 §3.1). Options without a document say nothing."""
        if not option.has_document:
            return Observation.UNCHANGED
        before = self._seen.get(option.pvd_id)
        self._seen[option.pvd_id] = option.sequence_number
        if before is None:
            return Observation.NEW
        return Observation.UNCHANGED if before == option.sequence_number else Observation.CHANGED


# --- options ----------------------------------------------------------------------------------------------------------

_Option = tuple[int, bytes]
"""Type, and the whole option including type and length."""


def _options(data: bytes) -> Iterator[_Option]:
    while data:
        length = 8 * data[1] if len(data) >= 2 else 0
        if not 0 < length <= len(data):
            raise RemoteProtocolError("an option of the router advertisement has a bad length", clause="RFC 4861 §4.6")
        yield data[0], data[:length]
        data = data[length:]


def _first_pvd(options: Sequence[_Option]) -> tuple[PvdOption | None, list[_Option]]:
    """The first PvD option and the options within it; further ones and nested ones do not count (RFC 8801 §3.1)."""
    for kind, option in options:
        if kind == _OPTION_PVD:
            try:
                return _parse_pvd(option)
            except (RemoteProtocolError, ConfigurationError):
                return None, []  # an unusable option is ignored, the advertisement is not
    return None, []


def _parse_pvd(option: bytes) -> tuple[PvdOption, list[_Option]]:
    flags = int.from_bytes(option[2:4], "big")
    name, end = _parse_name(option, 6)
    rest = option[end + -end % 8 :]
    lifetime_s = None
    if flags & _FLAG_ROUTER_ADVERTISEMENT:
        if len(rest) < _RA_HEADER_BYTES:
            raise _bad_option("its router advertisement header is missing")
        lifetime_s, rest = int.from_bytes(rest[6:8], "big"), rest[_RA_HEADER_BYTES:]
    nested = [(kind, inner) for kind, inner in _options(rest) if kind != _OPTION_PVD]
    has_document = bool(flags & _FLAG_HTTP)
    return (
        PvdOption(
            pvd_id=canonical_name(name),
            has_document=has_document,
            is_for_dhcpv4=bool(flags & _FLAG_LEGACY),
            delay=flags & _DELAY_MASK if has_document else 0,
            sequence_number=int.from_bytes(option[4:6], "big") if has_document else 0,
            router_lifetime_s=lifetime_s,
        ),
        nested,
    )


def _parse_name(data: bytes, start: int) -> tuple[str, int]:
    """An uncompressed DNS name: its text, and the offset behind its root label."""
    labels = []
    position = start
    while position < len(data) and (length := data[position]):
        end = position + 1 + length
        if length > _MAX_LABEL_BYTES or end - start >= _MAX_NAME_BYTES:  # 0xC0 would be a compression pointer
            raise _bad_option("its name is too long or compressed")
        labels.append(data[position + 1 : end])
        position = end
    if position >= len(data):
        raise _bad_option("its name does not end")
    if any(b"." in label or not label.isascii() for label in labels):
        raise _bad_option("its name is no host name")
    return b".".join(labels).decode("ascii"), position + 1


def _prefixes(options: Sequence[_Option]) -> Iterator[IPv6Network]:
    for kind, option in options:
        if kind == _OPTION_PREFIX_INFORMATION and len(option) == 32 and option[2] <= 128:
            yield IPv6Network((option[16:32], option[2]), strict=False)


def _resolvers(options: Sequence[_Option]) -> Iterator[IPv6Address]:
    for kind, option in options:
        if kind == _OPTION_RDNSS and len(option) >= 24 and any(option[4:8]):  # lifetime 0: no longer (RFC 8106 §5.1)
            yield from (IPv6Address(option[at : at + 16]) for at in range(8, len(option) - 15, 16))


def _bad_option(reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"the PvD option is unusable: {reason}", clause="RFC 8801 §3.1")
