"""Documents for these tests: whole ones with known verdicts from `tests/vectors/pvd`, and small ones made here."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from masque_client.pvd.model import PvdDocument, parse_pvd

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HOST = "masque.example.net"

_FOLDER = Path(__file__).parents[2] / "vectors" / "pvd"

DOCUMENT_A = (_FOLDER / "a-three-catch-all.json").read_bytes()
DOCUMENT_B = (_FOLDER / "b-rules.json").read_bytes()
DOCUMENT_C = (_FOLDER / "c-mostly-ignored.json").read_bytes()
DOCUMENT_D = (_FOLDER / "d-other-name.json").read_bytes()
DOCUMENT_E = (_FOLDER / "e-http-date.json").read_bytes()
DOCUMENT_F = (_FOLDER / "f-duplicate-key.json").read_bytes()
DOCUMENT_G = (_FOLDER / "g-router-advertisement.json").read_bytes()

UDP_PROXY = {"protocol": "connect-udp", "proxy": "https://proxy.example/u{?target_host,target_port}"}
TLS_PROXY = {"protocol": "https-connect", "proxy": "proxy.example:443"}

LEFT_OUT = object()
"""As a value for `document`: the key is missing."""


def document(**changes: Any) -> bytes:
    """A minimal valid document for HOST, changed. Underscores in names stand for hyphens: `proxy_match`."""
    members = {"identifier": HOST, "expires": "2026-12-01T00:00:00Z", "prefixes": []}
    members |= {key.replace("_", "-"): value for key, value in changes.items()}
    return json.dumps({key: value for key, value in members.items() if value is not LEFT_OUT}).encode()


def parse(body: bytes, **arguments: Any) -> PvdDocument:
    """`parse_pvd` for HOST at NOW."""
    return parse_pvd(body, **{"expected_identifier": HOST, "now": NOW, **arguments})
