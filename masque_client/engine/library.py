"""What both libraries spell alike (qh3 is a fork of aioquic), as types: all that the shared engine code calls.

And a question that each answers differently: which congestion control it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any, Protocol, TypeVar

from masque_client.engine.interface import CongestionControl, EngineName
from masque_client.errors import ConfigurationError

T = TypeVar("T")


def choose_congestion_control(
    wanted: CongestionControl, offered: Mapping[CongestionControl, T], engine: EngineName
) -> T:
    """What the library calls the algorithm.

    Raises:
        ConfigurationError: it has none of that name; the hint names those it has.
    """
    if wanted not in offered:
        names = ", ".join(offered)
        raise ConfigurationError(f"the engine {engine} has no congestion control {wanted}", hint=f"it has: {names}")
    return offered[wanted]


class QuicConnection(Protocol):
    """The part of a library's QUIC connection that both spell alike, and `news`, which we give both."""

    @property
    def news(self) -> Sized:
        """Empty while `next_event` has nothing to tell, which would cost a call to find out."""
        ...

    def next_event(self) -> Any: ...  # noqa: D102
    def get_timer(self) -> float | None: ...  # noqa: D102
    def handle_timer(self, now: float) -> None: ...  # noqa: D102
    def get_next_available_stream_id(self, is_unidirectional: bool = False) -> int: ...  # noqa: D102
    def reset_stream(self, stream_id: int, error_code: int) -> None: ...  # noqa: D102
    def stop_stream(self, stream_id: int, error_code: int) -> None: ...  # noqa: D102
    def send_ping(self, uid: int) -> None: ...  # noqa: D102
    def close(self, error_code: int = 0, frame_type: int | None = None, reason_phrase: str = "") -> None: ...  # noqa: D102


class H3Layer(Protocol):
    """The part of a library's HTTP/3 connection that both spell alike."""

    @property
    def received_settings(self) -> Mapping[int, int] | None: ...  # noqa: D102
    def handle_event(self, event: Any) -> Sequence[Any]: ...  # noqa: D102
    def send_headers(self, stream_id: int, headers: list[tuple[bytes, bytes]], end_stream: bool = False) -> None: ...  # noqa: D102
    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None: ...  # noqa: D102
