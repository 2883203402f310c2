"""The Proxy-Status field (RFC 9209): why a proxy could not do what was asked, in its own words. Untrusted text."""

from __future__ import annotations

from dataclasses import dataclass

import http_sf

from masque_client.protocol.headers import Headers, field_values, printable


@dataclass(frozen=True, slots=True)
class ProxyStatusEntry:
    """One hop's statement: `proxy` names the hop; the rest is None unless it was given."""

    proxy: str
    error: str | None = None
    details: str | None = None
    next_hop: str | None = None
    received_status: str | None = None

    def describe(self) -> str:
        """For a message: `dns_error: no such host`, or the name of the hop when it gives no error."""
        return ": ".join(part for part in (self.error or self.proxy, self.details) if part)


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """The whole field. The last entry is the hop nearest to us. It may come with a 2xx and mean no failure.

    Attributes:
        text: the field as sent, control characters removed.
        entries: what could be parsed; empty when the field is not a structured List.
    """

    text: str
    entries: tuple[ProxyStatusEntry, ...]

    @classmethod
    def parse(cls, headers: Headers) -> ProxyStatus | None:
        """Read the field from a header section, leniently: never raises; None when it is absent."""
        values = list(field_values(headers, b"proxy-status"))
        if not values:
            return None
        joined = b", ".join(values)
        return cls(printable(joined), _parse_entries(joined))

    def describe(self) -> str:
        """The reason in few words: the first error that any hop gives, else the text."""
        failed = next((entry for entry in self.entries if entry.error), None)
        return failed.describe() if failed else self.text

    def describe_success(self) -> str:
        """What it says beside a 2xx: where each hop went next, as `proxy.example → 192.0.2.1:53`, else the text."""
        hops = [f"{entry.proxy} → {entry.next_hop}" for entry in self.entries if entry.next_hop]
        return ", ".join(hops) or self.text


def _parse_entries(value: bytes) -> tuple[ProxyStatusEntry, ...]:
    try:
        members = http_sf.parse(value, tltype="list")
    except http_sf.StructuredFieldError:
        return ()
    entries = []
    for member in members if isinstance(members, list) else ():
        if not isinstance(member, tuple) or isinstance(member[0], list):
            continue
        name, parameters = member
        known = {key: _text(value) for key, value in parameters.items()}
        entries.append(
            ProxyStatusEntry(
                proxy=_text(name),
                error=known.get("error"),
                details=known.get("details"),
                next_hop=known.get("next-hop"),
                received_status=known.get("received-status"),
            )
        )
    return tuple(entries)


def _text(item: object) -> str:
    """A Token, String or Integer alike: RFC 9209 itself writes `error` both ways."""
    return printable(str(item).encode("latin-1", "replace"))
