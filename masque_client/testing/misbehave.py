"""How the test proxy may break the rules, or merely be unhelpful, when a test asks for it.

Each fault is a field of `Misbehaviour`; on the command line it is `--misbehave NAME[=VALUE]`, repeatable. What a
correct client makes of each of them is in the tests of the client.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from masque_client.http.stream import SessionStream
from masque_client.protocol.headers import Header
from masque_client.protocol.session import CONTEXT_ID_0, EventT
from masque_client.testing.floods import NO_FLOOD, Flood

MALFORMED_CAPSULE: Final = bytes.fromhex("01070004c000020b18")
"""An ADDRESS_ASSIGN with bits set beyond its prefix (RFC 9484 §4.7.1)."""
TRUNCATED_CAPSULE: Final = bytes.fromhex("0006006865")
"""A DATAGRAM capsule that announces six bytes and has three."""
HUGE_CAPSULE: Final = bytes.fromhex("0180100001") + bytes(64)
"""The beginning of an ADDRESS_ASSIGN of one mebibyte and one."""
OVERLAPPING_ROUTES: Final = bytes.fromhex("031404c0000200c00002800004c0000280c00002ff00")
"""A ROUTE_ADVERTISEMENT whose two ranges share 192.0.2.128 (RFC 9484 §4.7.3)."""
UNKNOWN_CAPSULE: Final = bytes.fromhex("170568656c6c6f")
"""A reserved type: must be skipped (RFC 9297 §5.4)."""


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """What the proxy does wrong. The default: nothing.

    Connection:
        no_extended_connect, no_datagram: the SETTING is not advertised.
        close_after_s: the connection is closed this long after a tunnel opened.
    Answer to a request:
        silent: none.
        informational: this 1xx comes first.
        refuse: this status instead of a tunnel, with `refuse_headers`.
        accept_status, accept_headers: instead of 200, and in addition to the usual fields.
    Open tunnel:
        capsules: these bytes are sent first, before any correct capsule.
        flood: poured in behind them.
        end: FIN after both.
        reset: the stream is reset with this code right after the answer.
        drop_datagrams: none passes, in either direction.
        max_payload: larger HTTP Datagrams vanish, in either direction.
    CONNECT-IP:
        assign: "unprompted", "requested" (only when asked) or "never".
        dies_of_requests: an ADDRESS_REQUEST ends the tunnel.
        assign_delay_s: ADDRESS_ASSIGN and ROUTE_ADVERTISEMENT come this much later.
        refuse_family: no addresses of this IP version.
        withdraw_after_s: an empty ADDRESS_ASSIGN this long after the first.
        no_routes: ROUTE_ADVERTISEMENT is never sent.
    PvD document:
        pvd_status, pvd_type, pvd_body, pvd_headers: served instead of the right ones; see `PvdBehaviour`.
    """

    no_extended_connect: bool = False
    no_datagram: bool = False
    close_after_s: float | None = None
    silent: bool = False
    informational: int | None = None
    refuse: int | None = None
    refuse_headers: tuple[Header, ...] = ()
    accept_status: int = 200
    accept_headers: tuple[Header, ...] = ()
    capsules: bytes = b""
    end: bool = False
    reset: int | None = None
    drop_datagrams: bool = False
    max_payload: int | None = None
    flood: Flood = NO_FLOOD
    assign: str = "unprompted"
    dies_of_requests: bool = False
    assign_delay_s: float = 0.0
    refuse_family: int | None = None
    withdraw_after_s: float | None = None
    no_routes: bool = False
    pvd_status: int = 200
    pvd_type: str | None = None
    pvd_body: bytes | None = None
    pvd_headers: tuple[tuple[str, str], ...] = ()


class FaultyStream(SessionStream[EventT]):
    """A session stream whose datagrams vanish as `misbehaviour` says. Slower, so only made when it is needed."""

    misbehaviour = Misbehaviour()

    @classmethod
    def wanted(cls, misbehaviour: Misbehaviour) -> bool:
        """Whether datagrams are to vanish at all; if not, a plain `SessionStream` does."""
        return misbehaviour.drop_datagrams or misbehaviour.max_payload is not None

    def on_datagrams(self, datagrams: list[bytes], skip: int) -> None:
        """See `StreamHandler`."""
        if survivors := [each for each in datagrams if self._survives(len(each) - skip - len(CONTEXT_ID_0))]:
            super().on_datagrams(survivors, skip)

    def send_payloads(self, payloads: Sequence[bytes]) -> int:
        """See `SessionStream`."""
        assert self.stream is not None
        single = payloads if self.session.split is None else self.session.split(payloads, b"")
        self.stream.send_datagrams([each for each in single if self._survives(len(each))], prefix=CONTEXT_ID_0)
        return len(payloads)  # what finds no room vanishes, too

    def _survives(self, size: int) -> bool:
        limit = self.misbehaviour.max_payload
        return not self.misbehaviour.drop_datagrams and (limit is None or size <= limit)


def parse_misbehaviour(faults: Sequence[str]) -> Misbehaviour:
    """Read the command line's `NAME[=VALUE]` strings.

    Raises:
        ValueError: an unknown fault, or a value that is none.
    """
    misbehaviour = Misbehaviour()
    for fault in faults:
        name, given, value = fault.partition("=")
        if name in _FLOODS and given:
            flood = replace(misbehaviour.flood, **{_FLOODS[name]: int(value, 0)})
            misbehaviour = replace(misbehaviour, flood=flood)
        elif name in _FLAGS and not given:
            misbehaviour = replace(misbehaviour, **_FLAGS[name])
        elif name in _VALUES and given:
            field, convert = _VALUES[name]
            converted = convert(value)
            if isinstance(converted, list):  # repeatable: header fields
                converted = (*getattr(misbehaviour, field), *converted)
            misbehaviour = replace(misbehaviour, **{field: converted})
        else:
            raise ValueError(f"{fault!r} is not a fault; there are {', '.join(FAULTS)}")
    return misbehaviour


def _seconds(milliseconds: str) -> float:
    return float(milliseconds) / 1000


def _code(text: str) -> int:
    return int(text, 0)


def _header(text: str) -> list[Header]:
    name, _, value = text.partition(":")
    return [(name.strip().lower().encode(), value.strip().encode())]


def _text_header(text: str) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode()) for name, value in _header(text)]


_FLAGS: Final[dict[str, dict[str, Any]]] = {
    "no-extended-connect": {"no_extended_connect": True},
    "no-datagram": {"no_datagram": True},
    "silent": {"silent": True},
    "malformed-capsule": {"capsules": MALFORMED_CAPSULE},
    "truncated-capsule": {"capsules": TRUNCATED_CAPSULE, "end": True},
    "huge-capsule": {"capsules": HUGE_CAPSULE},
    "overlapping-routes": {"capsules": OVERLAPPING_ROUTES},
    "unknown-capsule": {"capsules": UNKNOWN_CAPSULE},
    "end": {"end": True},
    "drop-datagrams": {"drop_datagrams": True},
    "assign-on-request": {"assign": "requested"},
    "never-assign": {"assign": "never"},
    "dies-of-requests": {"dies_of_requests": True},
    "no-routes": {"no_routes": True},
}
_VALUES: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "close-after-ms": ("close_after_s", _seconds),
    "informational": ("informational", int),
    "refuse": ("refuse", int),
    "refuse-header": ("refuse_headers", _header),
    "accept-status": ("accept_status", int),
    "accept-header": ("accept_headers", _header),
    "capsules": ("capsules", bytes.fromhex),
    "reset": ("reset", _code),
    "max-payload": ("max_payload", int),
    "assign-delay-ms": ("assign_delay_s", _seconds),
    "refuse-family": ("refuse_family", int),
    "withdraw-after-ms": ("withdraw_after_s", _seconds),
    "pvd-status": ("pvd_status", int),
    "pvd-type": ("pvd_type", str),
    "pvd-body": ("pvd_body", str.encode),
    "pvd-header": ("pvd_headers", _text_header),
}
_FLOODS: Final = {
    "flood-capsule-bytes": "capsule_bytes",
    "flood-capsules": "capsules",
    "flood-contexts": "contexts",
    "flood-strangers": "strangers",
}
FAULTS: Final = (*sorted(_FLAGS), *(f"{name}=…" for name in sorted([*_VALUES, *_FLOODS])))
"""For --help."""
