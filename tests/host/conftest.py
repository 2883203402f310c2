"""Two machines for every test: one in memory, one in a network namespace of the real kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from masque_client.host.fake import FakeKernel
from masque_client.host.identity import TunnelIdentity
from masque_client.host.interface import HostNetwork
from masque_client.host.linux.network import LinuxHostNetwork, LinuxKernel
from masque_client.host.plan import Change
from masque_client.host.reconcile import Kernel, ReconcilingNetwork
from masque_client.host.state import HostState
from masque_client.netio.tun import TunDevice
from masque_client.testing.netns import Lab, Namespace, unavailable_reason

DEVICE = "masque0"


class RefusingKernel:
    """Refuses what `refusal` names an errno for; everything else reaches the kernel behind it."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.refusal: Callable[[Change], int | None] = lambda change: None
        self.performed: list[Change] = []

    def observe(self, identity: TunnelIdentity) -> HostState:
        return self.kernel.observe(identity)

    def perform(self, identity: TunnelIdentity, change: Change) -> None:
        if code := self.refusal(change):
            raise OSError(code, "refused by the test")
        self.kernel.perform(identity, change)
        self.performed.append(change)

    def dead_tunnels(self) -> list[TunnelIdentity]:
        return list(self.kernel.dead_tunnels())

    def close(self) -> None:
        self.kernel.close()


@dataclass
class Machine:
    """A machine with one TUN device, `masque0`."""

    network: HostNetwork
    kernel: RefusingKernel
    delete_device: Callable[[], None]
    restart: Callable[[], HostNetwork]
    """A `HostNetwork` of a new process on the same machine, which knows nothing of the old one."""

    def lines(self) -> list[str]:
        """What is there, in words, sorted."""
        state = self.network.observe(DEVICE)
        lines = [f"address {address}" for address in state.addresses]
        lines += [f"route {route}" for route in state.routes]
        lines += [f"rule {rule}" for rule in state.rules]
        if state.link is not None:
            ipv6 = state.link.ipv6
            lines.append(f"link {'up' if state.link.up else 'down'} mtu {state.link.mtu} ipv6 {ipv6 or 'off'}")
        return sorted(lines)


@pytest.fixture
def lab() -> Iterator[Lab]:
    if reason := unavailable_reason():
        pytest.skip(reason)
    with Lab() as lab:
        yield lab


@pytest.fixture
def namespace(lab: Lab) -> Iterator[Namespace]:
    """This thread lives in the namespace `host` for the length of the test."""
    with lab.namespace("host").entered() as namespace:
        yield namespace


@pytest.fixture
def linux(namespace: Namespace) -> Iterator[Machine]:
    device = TunDevice.open(DEVICE)
    kernels: list[RefusingKernel] = []
    networks: list[LinuxHostNetwork] = []

    def make_kernel() -> RefusingKernel:
        kernels.append(RefusingKernel(LinuxKernel()))
        return kernels[-1]

    def start() -> LinuxHostNetwork:
        networks.append(LinuxHostNetwork(make_kernel))
        networks[-1].observe(DEVICE)  # opens the kernel
        return networks[-1]

    yield Machine(start(), kernels[0], device.close, start)
    for network in networks:
        network.close()
    device.close()


@pytest.fixture
def fake() -> Machine:
    kernel = FakeKernel(DEVICE)
    refusing = RefusingKernel(kernel)
    return Machine(
        ReconcilingNetwork(refusing),
        refusing,
        lambda: kernel.delete_device(DEVICE),
        lambda: ReconcilingNetwork(kernel),
    )


@pytest.fixture(params=["fake", pytest.param("linux", marks=pytest.mark.netns)])
def machine(request: pytest.FixtureRequest) -> Machine:
    machine: Machine = request.getfixturevalue(request.param)
    return machine
