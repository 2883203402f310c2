"""One attempt to have a tunnel back: who is asked, for which addresses, and whose word ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any, cast

import pytest

from masque_client.engine.interface import Address
from masque_client.errors import ConnectError, ConnectionLost, MasqueError, ProxyRefused, TimedOut, TlsError
from masque_client.netio.clock import VirtualClock
from masque_client.protocol.scope import IpPrefix
from masque_client.pvd.names import HostPort
from masque_client.pvd.proxies import ProxyProtocol, PvdProxy, parse_proxy
from masque_client.tunnel import redial
from masque_client.tunnel.carrier import CLAIM_ATTEMPTS, Carrier
from masque_client.tunnel.opener import OnFailure, Opener
from masque_client.tunnel.options import AddressRequestMode, TunnelOptions
from masque_client.tunnel.proxies import ProxyChoice
from masque_client.tunnel.recovery import Regained
from masque_client.tunnel.redial import REFRESH_INTERVAL_S, Redial

FIRST, SECOND, THIRD = (
    parse_proxy(ProxyProtocol.CONNECT_IP, f"https://{name}.example/ip") for name in ("first", "second", "third")
)
ADDRESS = ip_network("10.89.0.2/32")
WHERE = ("192.0.2.2", 443)


class FakeCarrier:
    """Does what a proxy does; `hurt` is one that ends the tunnel when it is asked for addresses."""

    def __init__(self, proxy: PvdProxy, *, has_asked: bool = False, hurt: bool = False) -> None:
        self.proxy = proxy
        self.template = SimpleNamespace(host=proxy.authority.host)
        self.connection = SimpleNamespace(address=WHERE, repeat_last_words=self._repeat)
        self.session, self.prefixes, self.has_asked = object(), [ADDRESS], has_asked
        self.stream = SimpleNamespace(is_closed=False, wait_closed=self._wait_closed)
        self.steps: list[object] = []
        self._hurt = hurt

    def _repeat(self, lost: object) -> None:
        self.steps.append(("goodbye", lost))

    async def _wait_closed(self) -> MasqueError:
        return ConnectionLost("the proxy reset the request stream")

    async def wait_unprompted(self) -> None:
        self.steps.append("unprompted")

    async def claim(self, wanted: list[IpPrefix], *, attempts: int) -> None:
        self.steps.append((wanted, attempts))
        self.stream.is_closed = self._hurt

    async def wait_addresses(self, mode: AddressRequestMode) -> None:
        self.steps.append(mode)
        if self.stream.is_closed:
            raise await self._wait_closed()

    def close(self, reason: str = "") -> None:
        self.steps.append("closed")


class FakeOpener:
    """Proxies that do what `outcomes` says, by name; one after the other, as if each had failed at once."""

    def __init__(self, outcomes: Mapping[str, FakeCarrier | MasqueError]) -> None:
        self.outcomes = outcomes
        self.asked: list[PvdProxy] = []
        self.known: Mapping[HostPort, Address] = {}
        self.timeouts: list[float | None] = []

    async def open_first(
        self,
        candidates: Iterable[PvdProxy],
        on_failure: OnFailure,
        *,
        timeout_s: float | None = None,
        known: Mapping[HostPort, Address],
    ) -> Carrier:
        self.known = known
        self.timeouts.append(timeout_s)
        error: MasqueError | None = None
        for proxy in candidates:
            self.asked.append(proxy)
            outcome = self.outcomes[proxy.authority.host]
            if isinstance(outcome, FakeCarrier):
                return cast(Carrier, outcome)
            on_failure(proxy, outcome)
            error = outcome
        assert error is not None
        raise error


class Scene:
    """A tunnel whose carrier was on the second of two proxies."""

    def __init__(
        self,
        outcomes: Mapping[str, FakeCarrier | MasqueError],
        *,
        probe_rtt_s: float | None = 0.01,
        mode: AddressRequestMode = AddressRequestMode.AUTO,
        refresh: Callable[[], Awaitable[ProxyChoice]] | None = None,
    ) -> None:
        self.opener, self.clock = FakeOpener(outcomes), VirtualClock()
        self.failed: list[PvdProxy] = []
        self.choices: list[ProxyChoice] = []
        proxies = (FIRST, SECOND)
        options = TunnelOptions(ProxyChoice(proxies, proxies), address_request=mode, refresh_proxies=refresh)
        self.redial = Redial(
            options,
            cast(Opener, self.opener),
            self.clock,
            on_failure=lambda proxy, error: self.failed.append(proxy),
            on_choice=self.choices.append,
        )
        self.lost = FakeCarrier(SECOND)
        self.probe_rtt_s = probe_rtt_s

    async def attempt(self, number: int = 1, *, needs_proof: bool = True) -> Regained:
        return await self.redial.attempt(number, cast(Carrier, self.lost), needs_proof=needs_proof)


@pytest.fixture(autouse=True)
def probed(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """What probes come back with, in turn; 10 ms after that."""
    answers: list[float | None] = []

    async def probe(*_: Any) -> float | None:
        return answers.pop(0) if answers else 0.01

    monkeypatch.setattr(redial, "probe", probe)
    return answers


def test_the_proxy_that_had_the_tunnel_comes_first() -> None:
    back = FakeCarrier(SECOND)
    scene = Scene({"second.example": back})
    regained = asyncio.run(scene.attempt())
    assert regained == Regained(cast(Carrier, back), 0.01)
    assert scene.opener.asked == [SECOND]
    assert scene.opener.known == {SECOND.authority: WHERE}
    assert back.steps == [
        ("goodbye", scene.lost.connection),
        "unprompted",
        ([ADDRESS], CLAIM_ATTEMPTS),
        AddressRequestMode.AUTO,
    ]


def test_another_proxy_is_asked_for_the_addresses_once() -> None:
    back = FakeCarrier(FIRST)
    scene = Scene({"second.example": ConnectError("gone"), "first.example": back})
    asyncio.run(scene.attempt())
    assert scene.opener.asked == [SECOND, FIRST]
    assert ([ADDRESS], 1) in back.steps
    assert scene.failed == [SECOND]


@pytest.mark.parametrize(
    ("own", "spare"),
    [(ConnectError("restarting"), ProxyRefused("not you", status=403)), (TlsError("forged"), ConnectError("gone"))],
)
def test_what_the_tunnels_own_proxy_says_counts(own: MasqueError, spare: MasqueError) -> None:
    scene = Scene({"second.example": own, "first.example": spare})
    with pytest.raises(type(own), match=str(own)):
        asyncio.run(scene.attempt())


def test_addresses_that_had_to_be_asked_for_are_asked_for_at_once() -> None:
    back = FakeCarrier(SECOND)
    scene = Scene({"second.example": back})
    scene.lost.has_asked = True
    asyncio.run(scene.attempt())
    assert back.steps[1] == ([ADDRESS], CLAIM_ATTEMPTS)


def test_who_forbids_requests_gets_none() -> None:
    back = FakeCarrier(SECOND)
    scene = Scene({"second.example": back}, mode=AddressRequestMode.NEVER)
    asyncio.run(scene.attempt())
    assert back.steps[1:] == ["unprompted", AddressRequestMode.NEVER]


def test_a_proxy_that_ends_the_tunnel_for_a_request_is_not_asked_again() -> None:
    async def twice() -> None:
        with pytest.raises(ConnectionLost):
            await scene.attempt(1)
        scene.opener.outcomes = {"second.example": second}
        await scene.attempt(2)

    first, second = FakeCarrier(SECOND, hurt=True), FakeCarrier(SECOND, hurt=True)
    scene = Scene({"second.example": first})
    asyncio.run(twice())
    assert first.steps[-1] == "closed"
    assert second.steps[1:] == ["unprompted", AddressRequestMode.NEVER]


def test_where_probes_came_back_they_must_again(probed: list[float | None]) -> None:
    probed += [None, None]
    mute = FakeCarrier(SECOND)
    scene = Scene({"second.example": mute})
    with pytest.raises(TimedOut, match="nothing came back through it"):
        asyncio.run(scene.attempt())
    assert mute.steps[-1] == "closed"
    assert asyncio.run(scene.attempt(needs_proof=False)).probe_rtt_s is None


def test_the_document_is_asked_for_beside_the_attempts_and_not_at_every_one() -> None:
    moved = ProxyChoice((THIRD,), (THIRD,))
    answers: list[ProxyChoice | MasqueError] = [TimedOut("no document"), moved, moved]
    asked: list[float] = []

    async def refresh() -> ProxyChoice:
        asked.append(scene.clock.now())
        answer = answers.pop(0)
        if isinstance(answer, MasqueError):
            raise answer
        return answer

    async def tell() -> None:
        for number in range(1, 7):
            with pytest.raises(ConnectError):
                await scene.attempt(number)
            await asyncio.sleep(0)
            scene.clock.advance(REFRESH_INTERVAL_S / 2)

    gone = ConnectError("gone")
    scene = Scene({f"{name}.example": gone for name in ("first", "second", "third")}, refresh=refresh)
    asyncio.run(tell())
    assert asked == [REFRESH_INTERVAL_S * number for number in (0.5, 1.5, 2.5)]
    assert scene.choices == [moved], "told once"
    assert scene.opener.asked[-1] == THIRD and scene.opener.asked[0] == SECOND
