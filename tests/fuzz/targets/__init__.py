"""What there is to fuzz. Modules are imported by the worker, under instrumentation, and by the corpus test without."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parents[1] / "corpus"

_AIOQUIC = ("masque_client", "aioquic.h3", "aioquic.quic.connection", "aioquic.quic.packet", "aioquic.tls")
_QH3 = ("masque_client", "qh3.h3", "qh3.quic.connection")


@dataclass(frozen=True, slots=True)
class Target:
    """One fuzz target.

    Attributes:
        module: has `make(*arguments)`, which returns the function that takes one input, and perhaps `WORDS`.
        arguments: for `make`.
        instrumented: packages whose branches guide the fuzzer.
    """

    module: str
    arguments: tuple[str, ...] = ()
    instrumented: tuple[str, ...] = ("masque_client",)

    @classmethod
    def named(cls, name: str, *arguments: str, instrumented: tuple[str, ...] = ("masque_client",)) -> Target:
        """The target of one module beside this file."""
        return cls(f"{__name__}.{name}", arguments, instrumented)


TARGETS = {
    "capsules": Target.named("capsules"),
    "sessions": Target.named("sessions"),
    "dns-capsules": Target.named("dns_capsules"),
    "packets": Target.named("packets"),
    "offload": Target.named("offload"),
    "quic-headers": Target.named("quic_headers"),
    "pvd": Target.named("pvd"),
    "pvd-fields": Target.named("pvd_fields"),
    "router-advertisements": Target.named("router_advertisements"),
    "https-records": Target.named("https_records"),
    "templates": Target.named("templates"),
    "fields": Target.named("fields", instrumented=("masque_client", "http_sf")),
    "http2": Target.named("http2", instrumented=("masque_client", "h2")),
    "aioquic-handshake": Target.named("handshake", "aioquic", instrumented=_AIOQUIC),
    "aioquic-http3": Target.named("http3", "aioquic", instrumented=_AIOQUIC),
    "aioquic-http3-layer": Target.named("http3_layer", "aioquic", instrumented=("masque_client", "aioquic.h3")),
    "qh3-handshake": Target.named("handshake", "qh3", instrumented=_QH3),
    "qh3-http3": Target.named("http3", "qh3", instrumented=_QH3),
    "qh3-http3-layer": Target.named("http3_layer", "qh3", instrumented=("masque_client", "qh3.h3")),
}
