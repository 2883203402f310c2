"""Picking an engine, pacing, the control-stream watcher and the sentences about certificates, apart from any engine."""

from __future__ import annotations

import math
from pathlib import Path

import certifi
import pytest

from masque_client import engine
from masque_client.engine import available_engines, create_client_engine, create_server_engine, resolve_engine, trust
from masque_client.engine.closing import Closing, Origin, explain
from masque_client.engine.h3_rules import ControlStreamWatcher
from masque_client.engine.interface import EngineConfiguration, EngineName, TlsConfiguration
from masque_client.engine.pacing import (
    BURST_PACKETS,
    BURST_S,
    CLOCK_S,
    LONE_SHARE,
    QUEUED_PACKETS,
    RATE_FACTOR,
    RTT_LIFETIME_S,
    SAMPLE_PACKETS,
    Pacer,
    PathWindow,
)
from masque_client.errors import ConfigurationError, ConnectError, ConnectionLost, RemoteProtocolError, TlsError
from masque_client.testing.certificates import CertificateAuthority
from tests.unit.engine import raw


@pytest.mark.parametrize("name", available_engines())
def test_engines_say_their_names(name: EngineName, server_configuration: EngineConfiguration) -> None:
    assert resolve_engine(name) is name
    assert create_client_engine(name, EngineConfiguration(server_name="a.example")).name is name
    server = create_server_engine(name, server_configuration, original_destination_connection_id=bytes(8))
    assert server.name is name


def test_auto_is_the_fast_one_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_engine(EngineName.AUTO) is available_engines()[0]
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    assert available_engines() == (EngineName.AIOQUIC,)
    assert resolve_engine(EngineName.AUTO) is EngineName.AIOQUIC
    with pytest.raises(ConfigurationError, match="qh3 is not installed") as caught:
        create_client_engine(EngineName.QH3, EngineConfiguration())
    assert caught.value.hint == "install it with: pip install 'masque-connect[fast]'"


class TestPacer:
    def test_unlimited_without_a_sample(self) -> None:
        pacer = Pacer(1350)
        pacer.update(20_000, None, 5.0)
        assert pacer.tokens == math.inf
        assert pacer.next_send_time() is None

    def test_small_rates_allow_the_initial_window_at_once(self) -> None:
        pacer = Pacer(1000)
        pacer.update(50_000, 0.1, 5.0)
        assert pacer.tokens == BURST_PACKETS * 1000
        pacer.tokens -= 10_500
        due = pacer.next_send_time()
        assert due is not None
        assert due == pytest.approx(5.0 + (5_000 + 500) / (RATE_FACTOR * 50_000 / 0.1))
        pacer.update(50_000, 0.1, due)
        assert pacer.tokens == pytest.approx(5_000)
        assert pacer.next_send_time() is None

    def test_large_rates_allow_what_a_late_timer_needs(self) -> None:
        pacer = Pacer(1000)
        pacer.update(10_000_000, 0.01, 5.0)
        assert pacer.tokens == pytest.approx(RATE_FACTOR * 1e9 * BURST_S)
        pacer.update(10_000_000, 0.01, 50.0)
        assert pacer.tokens == pytest.approx(RATE_FACTOR * 1e9 * BURST_S), "idle time is not saved up"

    def test_over_a_second_the_rate_holds(self) -> None:
        pacer, now, sent = Pacer(1000), 5.0, 0
        while now < 6.0:
            pacer.update(100_000, 0.1, now)
            while pacer.tokens > 0:
                pacer.tokens -= 1000
                sent += 1000
            now = pacer.next_send_time() or now
        assert sent == pytest.approx(RATE_FACTOR * 1_000_000, rel=0.02)


class TestPathWindow:
    """In packets of 1000 bytes, with a congestion window that is never in the way."""

    WINDOW = 50_000_000
    LEAST = QUEUED_PACKETS * 1000

    @staticmethod
    def run(path: PathWindow, *, rtt_s: float, capacity: float, lone_share: float, start: float, rounds: int) -> int:
        """A sender that always has more to send, over a path of `capacity` bytes a second; returns the last limit."""
        now, limit = start, path.limit(TestPathWindow.WINDOW, 0, rtt_s, start)
        for _ in range(rounds):
            path.sent_bytes += limit
            path.sent_packets += limit // 1000
            path.lone_packets += int(limit / 1000 * lone_share)
            queueing_s = limit / capacity
            now += max(rtt_s, queueing_s)
            limit = path.limit(TestPathWindow.WINDOW, 0, max(rtt_s, queueing_s), now)
        return limit

    def test_before_a_sample_the_congestion_window_decides(self) -> None:
        assert PathWindow(1000).limit(self.WINDOW, 0, None, 5.0) == self.WINDOW
        assert PathWindow(1000).limit(self.WINDOW, 0, 0.02, 5.0) == self.WINDOW

    def test_a_peer_that_acknowledges_trains_is_not_limited(self) -> None:
        limit = self.run(PathWindow(1000), rtt_s=0.02, capacity=1e8, lone_share=1 / 45, start=5.0, rounds=50)
        assert limit == self.WINDOW

    def test_nearby_a_peer_that_takes_packets_one_by_one_gets_what_it_can_queue(self) -> None:
        limit = self.run(PathWindow(1000), rtt_s=CLOCK_S, capacity=1e8, lone_share=0.1, start=5.0, rounds=50)
        assert limit == self.LEAST

    def test_far_away_it_gets_what_the_path_carries_and_room_to_grow(self) -> None:
        path = PathWindow(1000)
        path.sent_packets, path.lone_packets = SAMPLE_PACKETS, SAMPLE_PACKETS
        limit = self.run(path, rtt_s=0.02, capacity=1e8, lone_share=0.1, start=5.0, rounds=50)
        carried = 0.02 * 1e8
        assert carried < limit <= 2 * carried

    def test_the_congestion_window_is_never_exceeded(self) -> None:
        path = PathWindow(1000)
        path.sent_packets, path.lone_packets = SAMPLE_PACKETS, SAMPLE_PACKETS
        assert path.limit(10_000, 0, 0.02, 5.0) == 10_000

    def test_a_peer_is_judged_anew(self) -> None:
        path = PathWindow(1000)
        slow = self.run(path, rtt_s=CLOCK_S, capacity=1e8, lone_share=2 / LONE_SHARE, start=5.0, rounds=50)
        again = self.run(path, rtt_s=CLOCK_S, capacity=1e8, lone_share=0.5 / LONE_SHARE, start=6.0, rounds=50)
        assert (slow, again) == (self.LEAST, self.WINDOW)

    def test_a_longer_route_is_noticed(self) -> None:
        path = PathWindow(1000)
        path.sent_packets, path.lone_packets = SAMPLE_PACKETS, SAMPLE_PACKETS
        self.run(path, rtt_s=0.01, capacity=1e8, lone_share=0.1, start=5.0, rounds=50)
        later = 5.0 + RTT_LIFETIME_S
        assert path.limit(self.WINDOW, 0, 0.1, later) == self.LEAST, "for one round trip, to measure it"
        limit = self.run(path, rtt_s=0.1, capacity=1e8, lone_share=0.1, start=later + 0.1, rounds=50)
        assert limit > 0.1 * 1e8


class TestControlStreamWatcher:
    CONTROL = b"\x40\x00" + raw.settings((1, 0)) + raw.frame(raw.GOAWAY, b"\x40\x08") + raw.frame(0x21, bytes(70))

    @pytest.mark.parametrize("step", [1, 2, 3, 1000])
    def test_any_cut(self, step: int) -> None:
        watcher, found = ControlStreamWatcher(), []
        data = self.CONTROL + raw.frame(raw.GOAWAY, b"\x04")
        for start in range(0, len(data), step):
            found += watcher.receive(3, data[start : start + step])
            assert not watcher.receive(7, b"\x02" + raw.frame(raw.GOAWAY, b"\0")), "another stream's type"
        assert found == [8, 4]

    def test_errors(self) -> None:
        for bad in (raw.frame(raw.GOAWAY, b""), raw.frame(raw.GOAWAY, bytes(9)), raw.frame(6, b"")):
            with pytest.raises(RemoteProtocolError) as caught:
                ControlStreamWatcher().receive(3, self.CONTROL + bad)
            assert caught.value.connection_error


class TestExplanations:
    def explain(self, closing: Closing, *, is_client: bool = True, is_established: bool = False) -> str:
        error = explain(closing, peer="p.example", is_client=is_client, is_established=is_established, certificate=None)
        assert error is not None
        return f"{type(error).__name__}: {error}"

    @pytest.mark.parametrize(
        ("closing", "established", "text"),
        [
            (Closing(Origin.IDLE, 1, 0, ""), False, "ConnectError: p.example does not answer over UDP"),
            (Closing(Origin.IDLE, 1, 0, ""), True, "ConnectionLost: nothing has been heard from p.example"),
            (Closing(Origin.PEER, 2, 0, "busy"), False, "ConnectError: p.example refuses connections at the moment"),
            (Closing(Origin.PEER, 0x128, 6, ""), False, "TlsError: the TLS handshake with p.example failed with"),
            (Closing(Origin.PEER, 0x0C, 0, "x\ny"), False, "ConnectError: p.example ended the handshake with APPL"),
            (Closing(Origin.PEER, 0x77, 0, ""), True, "ConnectionLost: p.example closed the connection: 0x77"),
            (Closing(Origin.LOCAL, 0x0A, 0x31, "bad"), True, "RemoteProtocolError: bad (RFC 9000 §20.1 PROTOCOL_VIOL"),
            (Closing(Origin.LOCAL, 0x105, None, ""), True, "RemoteProtocolError: an HTTP/3 rule was broken (RFC 9114"),
            (Closing(Origin.LOCAL, 0x12A, 6, "why"), False, "TlsError: the TLS handshake with p.example failed: why"),
        ],
    )  # fmt: skip
    def test_sentences(self, closing: Closing, established: bool, text: str) -> None:
        assert self.explain(closing, is_established=established).startswith(text)

    def test_retryable(self) -> None:
        assert issubclass(ConnectionLost, ConnectError)

    def test_unparsable_certificate(self) -> None:
        assert isinstance(trust.explain_refusal(b"junk", "p.example", ""), TlsError)


def test_ca_bundle_prefers_the_users_then_the_systems(
    authority: CertificateAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trust.ca_bundle(TlsConfiguration(ca_file=authority.ca_file)) == authority.ca_file
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    assert trust.ca_bundle(TlsConfiguration()) == authority.ca_file
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(trust, "_BUNDLES", (tmp_path / "neither",))
    assert trust.ca_bundle(TlsConfiguration()) == Path(certifi.where())
