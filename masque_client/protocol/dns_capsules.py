"""DNS_ASSIGN and PREF64: a CONNECT-IP peer says which nameservers know which names, and how it translates IPv4.

After draft-ietf-masque-connect-ip-dns-06; everything that will change when it becomes an RFC is in `DnsCapsuleTypes`.
Each capsule supersedes the one before it of its type. A capsule that cannot be read ends the stream; a nameserver,
domain or prefix that can be read but must not be used is left out, and `ignored` says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final

from masque_client.errors import LocalProtocolError, RemoteProtocolError
from masque_client.protocol.capsule import encode_capsule
from masque_client.protocol.domain_names import ROOT, parse_domain
from masque_client.protocol.nat64 import PREFIX_LENGTHS, is_translation_prefix
from masque_client.protocol.scope import IpAddress
from masque_client.protocol.service_parameters import NO_PARAMETERS, ServiceParameters
from masque_client.protocol.varint import encode_varint, parse_varint

MAX_CAPSULE_BYTES: Final = 32 * 1024
"""Of either capsule's value: what is parsed takes many times the memory of what came. The draft sets no limit."""
MAX_IGNORED = 20
"""Reasons kept per capsule. More of them help nobody, and a peer chooses how many there are."""

_CLAUSE = "draft-ietf-masque-connect-ip-dns-06 §"
_PREF64_ENTRY_BYTES = 13
_MIN_NAMESERVER_BYTES = 6


@dataclass(frozen=True, slots=True)
class DnsCapsuleTypes:
    """The code points, provisional until the RFC assigns shorter ones (§6)."""

    dns_assign: int = 0x1ACE79EC
    pref64: int = 0x274C0FBC

    @property
    def limits(self) -> Mapping[int, int]:
        """For a `CapsuleReader`: both types with the longest value accepted."""
        return {self.dns_assign: MAX_CAPSULE_BYTES, self.pref64: MAX_CAPSULE_BYTES}


DRAFT_TYPES: Final = DnsCapsuleTypes()


@dataclass(frozen=True, slots=True)
class Nameserver:
    """One recursive resolver (§3.2).

    Attributes:
        priority: 1 to 65535; the lowest first, any order among equals (RFC 9460 §2.4.1).
        ipv4, ipv6: where it is reached. Both empty: it has only encrypted DNS, at the addresses of `name`.
        name: what its certificate must show; empty for a server that has plain DNS only.
        parameters: how it can be asked.
    """

    priority: int
    ipv4: tuple[IPv4Address, ...] = ()
    ipv6: tuple[IPv6Address, ...] = ()
    name: str = ""
    parameters: ServiceParameters = NO_PARAMETERS

    @property
    def addresses(self) -> tuple[IpAddress, ...]:
        """All addresses, IPv4 first as on the wire."""
        return (*self.ipv4, *self.ipv6)

    def find_problem(self) -> str | None:
        """Why this nameserver must not be used, in words, or None.

        §3.2 demands an address wherever `no-default-alpn` is absent, and its own example in §3.6.1 has none: a server
        without addresses is fine when it can be asked by name, encrypted.
        """
        if not self.name and (self.parameters.alpn or self.parameters.no_default_alpn):
            return "offers encrypted DNS without a name to authenticate"
        if not self.addresses and not self.parameters.alpn:
            return "has no address"
        return self.parameters.find_problem()

    def __str__(self) -> str:
        return self.name or ", ".join(map(str, self.addresses)) or "without a name"

    def encode(self) -> bytes:
        """The structure of §3.2."""
        parameters = self.parameters.encode()
        return b"".join(
            (
                self.priority.to_bytes(2),
                encode_varint(len(self.ipv4)),
                *(address.packed for address in self.ipv4),
                encode_varint(len(self.ipv6)),
                *(address.packed for address in self.ipv6),
                _encode_domain(self.name),
                encode_varint(len(parameters)),
                parameters,
            )
        )


@dataclass(frozen=True, slots=True)
class AssignedDns:
    """One DNS Configuration of a DNS_ASSIGN (§3.3): these nameservers resolve those domains.

    Attributes:
        nameservers: the usable ones, in the order sent. None at all: the domains cannot be resolved.
        internal_domains: each with everything below it; `domain_names.ROOT` is everything. Empty claims nothing.
        search_domains: to complete short names with.
    """

    nameservers: tuple[Nameserver, ...] = ()
    internal_domains: tuple[str, ...] = ()
    search_domains: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """The structure of §3.3."""
        lists = (
            [nameserver.encode() for nameserver in self.nameservers],
            [_encode_domain(name) for name in self.internal_domains],
            [_encode_domain(name) for name in self.search_domains],
        )
        return b"".join(part for list in lists for part in (encode_varint(len(list)), *list))

    def find_problem(self) -> str | None:
        """Why receivers would refuse this, or leave a part of it out, in words, or None."""
        for nameserver in self.nameservers:
            problem = None if 0 < nameserver.priority < 1 << 16 else "needs a priority from 1 to 65535"
            if problem := problem or nameserver.find_problem():
                return f"the nameserver {nameserver} {problem}"
        names = [*(nameserver.name for nameserver in self.nameservers), *self.internal_domains, *self.search_domains]
        bad = [name for name in names if parse_domain(name.encode()) != name]
        if ROOT in self.search_domains or bad:
            return f"{''.join(bad[:1])!r} is no domain in lower-case A-labels without a trailing dot"
        return None


@dataclass(frozen=True, slots=True)
class DnsAssignment:
    """A whole DNS_ASSIGN. Without configurations it says that the peer has no DNS for us."""

    configurations: tuple[AssignedDns, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pref64:
    """A whole PREF64. Without prefixes it says that the peer does not translate, or no longer."""

    prefixes: tuple[IPv6Network, ...] = ()
    ignored: tuple[str, ...] = ()


# --- DNS_ASSIGN -------------------------------------------------------------------------------------------------------


def parse_dns_assign(value: bytes) -> DnsAssignment:
    """Parse the value of a DNS_ASSIGN.

    Raises:
        RemoteProtocolError: cut, trailing octets, a priority of 0, or service parameters that are no list of them.
    """
    reader = _Reader(value)
    configurations: list[AssignedDns] = []
    while not reader.is_at_end:
        nameservers = [_parse_nameserver(reader) for _ in range(reader.count("nameservers", _MIN_NAMESERVER_BYTES))]
        usable = tuple(nameserver for nameserver in nameservers if nameserver is not None)
        internal = reader.domains("internal domains", allow_root=True)
        search = reader.domains("search domains", allow_root=False)
        configurations.append(AssignedDns(usable, internal, search))
    return DnsAssignment(tuple(configurations), tuple(reader.ignored))


def encode_dns_assign(configurations: Iterable[AssignedDns], types: DnsCapsuleTypes = DRAFT_TYPES) -> bytes:
    """The whole capsule.

    Raises:
        LocalProtocolError: something in it that receivers must refuse.
    """
    configurations = tuple(configurations)
    for configuration in configurations:
        if problem := configuration.find_problem():
            raise LocalProtocolError(problem)
    return encode_capsule(types.dns_assign, b"".join(configuration.encode() for configuration in configurations))


def _parse_nameserver(reader: _Reader) -> Nameserver | None:
    """The next nameserver, or None when it must not be used; then the reader knows why."""
    priority = int.from_bytes(reader.take(2, "a nameserver"))
    if priority == 0:
        raise RemoteProtocolError("a nameserver has the priority 0", clause=f"{_CLAUSE}3.2")
    ipv4 = tuple(IPv4Address(reader.take(4, "an address")) for _ in range(reader.count("IPv4 addresses", 4)))
    ipv6 = tuple(IPv6Address(reader.take(16, "an address")) for _ in range(reader.count("IPv6 addresses", 16)))
    octets = reader.domain()
    parameters = ServiceParameters.parse(reader.take(reader.count("octets of parameters", 1), "service parameters"))
    name = parse_domain(octets)
    if name is None:
        reader.ignore(f"a nameserver has the name {_show(octets)}, which is none")
        return None
    nameserver = Nameserver(priority, ipv4, ipv6, name, parameters)
    if problem := nameserver.find_problem():
        reader.ignore(f"the nameserver {nameserver} {problem}")
        return None
    return nameserver


def _encode_domain(name: str) -> bytes:
    return encode_varint(len(name)) + name.encode("ascii")


# --- PREF64 -----------------------------------------------------------------------------------------------------------


def parse_pref64(value: bytes) -> Pref64:
    """Parse the value of a PREF64: `Prefix Length (8), Prefix (96)`, repeated.

    Raises:
        RemoteProtocolError: cut, or a length that RFC 6052 §2.2 does not know.
    """
    clause = f"{_CLAUSE}4.1"
    if len(value) % _PREF64_ENTRY_BYTES:
        raise RemoteProtocolError(f"a PREF64 of {len(value)} bytes ends inside a prefix", clause=clause)
    prefixes: dict[IPv6Network, None] = {}
    ignored: list[str] = []
    for offset in range(0, len(value), _PREF64_ENTRY_BYTES):
        length, bits = value[offset], value[offset + 1 : offset + _PREF64_ENTRY_BYTES]
        if length not in PREFIX_LENGTHS:
            raise RemoteProtocolError(f"a NAT64 prefix is {length} bits long", clause=clause)
        prefix = IPv6Network((bits + bytes(4), length), strict=False)  # bits behind the prefix mean nothing
        if is_translation_prefix(prefix):
            prefixes[prefix] = None
        elif len(ignored) < MAX_IGNORED:
            ignored.append(f"the NAT64 prefix {prefix} has bits set where RFC 6052 §2.2 wants zeros")
    return Pref64(tuple(prefixes), tuple(ignored))


def encode_pref64(prefixes: Iterable[IPv6Network], types: DnsCapsuleTypes = DRAFT_TYPES) -> bytes:
    """The whole capsule; no prefixes withdraw those before.

    Raises:
        LocalProtocolError: a prefix that cannot translate (RFC 6052 §2.2).
    """
    prefixes = tuple(prefixes)
    for prefix in prefixes:
        if not is_translation_prefix(prefix):
            raise LocalProtocolError(f"{prefix} cannot be a NAT64 prefix")
    entries = (prefix.prefixlen.to_bytes(1) + prefix.network_address.packed[:12] for prefix in prefixes)
    return encode_capsule(types.pref64, b"".join(entries))


# --- reading ----------------------------------------------------------------------------------------------------------


class _Reader:
    """A cursor over a capsule's value. Counts are checked against what is left before anything is built."""

    def __init__(self, value: bytes) -> None:
        self._value = value
        self._offset = 0
        self.ignored: list[str] = []

    @property
    def is_at_end(self) -> bool:
        return self._offset >= len(self._value)

    def count(self, what: str, min_bytes_each: int) -> int:
        parsed = parse_varint(self._value, self._offset)
        if parsed is None:
            raise RemoteProtocolError(f"a DNS_ASSIGN is cut before its number of {what}", clause=f"{_CLAUSE}3.3")
        count, self._offset = parsed
        if count * min_bytes_each > len(self._value) - self._offset:
            raise RemoteProtocolError(f"a DNS_ASSIGN is too short for {count} {what}", clause=f"{_CLAUSE}3.3")
        return count

    def take(self, length: int, what: str) -> bytes:
        start, self._offset = self._offset, self._offset + length
        if self._offset > len(self._value):
            raise RemoteProtocolError(f"a DNS_ASSIGN ends inside {what}", clause=f"{_CLAUSE}3.3")
        return self._value[start : self._offset]

    def domain(self) -> bytes:
        return self.take(self.count("octets of a name", 1), "a name")

    def domains(self, what: str, *, allow_root: bool) -> tuple[str, ...]:
        """The names of a list, each once, without those that are none."""
        names: dict[str, None] = {}
        for _ in range(self.count(what, 1)):
            octets = self.domain()
            name = parse_domain(octets)
            if name is None or (name == ROOT and not allow_root):
                self.ignore(f"one of the {what} is {_show(octets)}, which is no name for that")
            else:
                names[name] = None
        return tuple(names)

    def ignore(self, reason: str) -> None:
        if len(self.ignored) < MAX_IGNORED:
            self.ignored.append(reason)


def _show(octets: bytes) -> str:
    return repr(octets[:64]).removeprefix("b")
