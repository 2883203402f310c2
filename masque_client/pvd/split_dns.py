"""`splitDnsClaims`: a network's claims to answer for DNS zones (RFC 9704). Parsed and shown, never acted on."""

from __future__ import annotations

from dataclasses import dataclass

from masque_client.pvd.names import canonical_name
from masque_client.pvd.values import BadValue, JsonObject, at, child, string_list, type_name


@dataclass(frozen=True, slots=True)
class SplitDnsClaim:
    """One unverified claim. Verifying it takes the TXT record at `<resolver>._splitdns-challenge.<parent>`.

    Attributes:
        resolver: authentication domain name of the resolver that would answer.
        parent: the zone whose part is claimed.
        subdomains: names below the parent, relative to it; `*` claims the parent and all below.
        algorithm: hash mnemonic of the ZONEMD registry, such as `SHA384`.
        salt: base64url, as written.
    """

    resolver: str
    parent: str
    subdomains: tuple[str, ...]
    algorithm: str
    salt: str


def parse_split_dns_claims(value: object) -> tuple[SplitDnsClaim, ...]:
    """Parse the array; unknown members of a claim are ignored.

    Raises:
        BadValue: any claim is malformed; the key is ignored then.
    """
    if not isinstance(value, list):
        raise BadValue("/splitDnsClaims", f"must be an array, not {type_name(value)}")
    return tuple(_parse_claim(claim, child("/splitDnsClaims", index)) for index, claim in enumerate(value))


def _parse_claim(claim: object, pointer: str) -> SplitDnsClaim:
    if not isinstance(claim, dict):
        raise BadValue(pointer, f"must be an object, not {type_name(claim)}")
    return SplitDnsClaim(
        resolver=_name(claim, "resolver", pointer),
        parent=_name(claim, "parent", pointer),
        subdomains=tuple(string_list(claim.get("subdomains"), child(pointer, "subdomains"))),
        algorithm=_string(claim, "algorithm", pointer),
        salt=_string(claim, "salt", pointer),
    )


def _name(claim: JsonObject, key: str, pointer: str) -> str:
    with at(child(pointer, key)):
        return canonical_name(_string(claim, key, pointer))


def _string(claim: JsonObject, key: str, pointer: str) -> str:
    value = claim.get(key)
    if not isinstance(value, str):
        raise BadValue(child(pointer, key), f"must be a string, not {type_name(value)}")
    return value
