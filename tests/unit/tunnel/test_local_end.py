"""The tunnel's end on this machine, over a kernel in memory: when it follows the proxy's news, and when no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any, cast

from masque_client.errors import MasqueError
from masque_client.host.fake import FakeHostNetwork
from masque_client.netio.tun import TunDevice
from masque_client.protocol.drops import DropReason
from masque_client.protocol.ip_capsules import AssignedAddress, IpAddressRange
from masque_client.protocol.ip_session import AddressesAssigned, ConnectIpSession, RoutesAdvertised
from masque_client.protocol.session import Role
from masque_client.protocol.uri_template import default_ip_template
from masque_client.pvd.names import HostPort
from masque_client.pvd.proxies import ProxyProtocol, PvdProxy
from masque_client.tunnel.carrier import Carrier
from masque_client.tunnel.local_end import APPLY_INTERVAL_S, LocalEnd
from masque_client.tunnel.options import TunnelOptions
from masque_client.tunnel.proxies import ProxyChoice
from tests.unit.pvd.virtual_time import VirtualTimeLoop, virtually

TEMPLATE = default_ip_template("proxy.example")
PROXY = PvdProxy(ProxyProtocol.CONNECT_IP, TEMPLATE, TEMPLATE.text, HostPort("proxy.example", 443))
LISTS = (["10.1.0.0/24"], ["10.2.0.0/24"])


class Tun:
    """A device that no packet ever comes from."""

    name, offload = "tun0", False

    def fileno(self) -> int:
        raise NotImplementedError

    def read_batch(self, limit: int) -> list[bytes]:
        raise NotImplementedError

    def write_batch(self, packets: list[bytes]) -> int:
        raise NotImplementedError


class FakeCarrier:
    """What the local end asks of a carrier; `announce` is the proxy."""

    def __init__(self, address: str = "10.89.0.2/32") -> None:
        self.proxy, self.template = PROXY, TEMPLATE
        self.session = ConnectIpSession(Role.CLIENT)
        self.stream = SimpleNamespace(max_payload=1400, is_open=True)
        self.connection = SimpleNamespace(
            transport="udp", link=SimpleNamespace(local_address=("192.0.2.1", 5)), address=("192.0.2.2", 443)
        )
        self.on_event: Callable[[Any], None] = lambda event: None
        self.session.assigned = (AssignedAddress(0, ip_network(address)),)

    def announce(self, routes: list[str]) -> None:
        self.session.routes = tuple(IpAddressRange.from_prefix(ip_network(route)) for route in routes)
        self.on_event(RoutesAdvertised(self.session.routes))

    def withdraw(self) -> None:
        self.session.assigned = ()
        self.on_event(AddressesAssigned(()))


class Scene:
    """A local end that is configured for a carrier."""

    def __init__(self) -> None:
        self.host = FakeHostNetwork("tun0")
        self.changes = 0
        self.failures: list[MasqueError] = []
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        device = cast(TunDevice, Tun())
        self.local = LocalEnd(
            TunnelOptions(ProxyChoice((PROXY,), (PROXY,))),
            self.host,
            loop,
            on_change=self._count,
            on_failure=self.failures.append,
            open_device=lambda name: device,
        )
        self.local.open()
        self.carrier = FakeCarrier()
        self.carrier.announce(["10.0.0.0/24"])
        self.configure(self.carrier)

    def configure(self, carrier: FakeCarrier) -> None:
        self.local.configure(cast(Carrier, carrier))

    def _count(self) -> None:
        self.changes += 1

    @property
    def routes(self) -> list[str]:
        assert self.local.configuration is not None
        return [str(route) for route in self.local.configuration.routes]


@virtually
async def test_a_burst_of_capsules_is_applied_once() -> None:
    scene = Scene()
    await asyncio.sleep(1)
    for number in range(100):
        scene.carrier.announce(LISTS[number % 2])
    assert scene.changes == 0
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert scene.changes == 1, "at once, without waiting"
    assert scene.routes == LISTS[1], "the last word counts"


@virtually
async def test_a_proxy_that_never_stops_does_not_set_the_pace() -> None:
    scene = Scene()
    for number in range(1000):
        scene.carrier.announce(LISTS[number % 2])
        await asyncio.sleep(0.001)
    assert scene.changes <= 1 / APPLY_INTERVAL_S + 1
    await asyncio.sleep(APPLY_INTERVAL_S)
    assert scene.routes == LISTS[1]


@virtually
async def test_nothing_is_applied_after_the_end() -> None:
    scene = Scene()
    scene.carrier.announce(LISTS[0])
    scene.local.restore()
    before = len(scene.host.kernel.performed)
    await asyncio.sleep(1)
    assert len(scene.host.kernel.performed) == before


@virtually
async def test_news_of_a_lost_carrier_are_no_news() -> None:
    scene = Scene()
    scene.carrier.announce(LISTS[0])
    scene.carrier.stream.is_open = False
    await asyncio.sleep(1)
    assert scene.changes == 0
    other = FakeCarrier("10.89.0.3/32")
    other.announce(LISTS[1])
    scene.configure(other)
    scene.carrier.withdraw()
    await asyncio.sleep(1)
    assert scene.failures == []
    assert scene.routes == LISTS[1]


@virtually
async def test_withdrawing_every_address_is_a_failure() -> None:
    scene = Scene()
    scene.carrier.withdraw()
    await asyncio.sleep(1)
    assert [str(failure) for failure in scene.failures] == ["the proxy withdrew every address"]


@virtually
async def test_drops_are_summed_over_carriers() -> None:
    scene = Scene()
    scene.carrier.session.drops[DropReason.NOT_OPEN] = 3
    other = FakeCarrier()
    other.announce(LISTS[0])
    scene.configure(other)
    other.session.drops[DropReason.NOT_OPEN] = 4
    other.session.drops[DropReason.TOO_BIG] = 1
    assert scene.local.drops == {"not-open": 7, "too-big": 1}
