"""The loops of a UDP socket where addresses have a scope: both must name a link-local peer as Python's sockets do."""

from __future__ import annotations

import socket
from types import ModuleType

import pytest

from masque_client.engine.interface import ReceivedBuffer
from masque_client.netio.offload import python_kernel
from masque_client.testing.netns import Lab

pytestmark = pytest.mark.netns

LINK_LOCAL = "fe80::1"


@pytest.fixture(params=["python", "compiled"])
def kernel(request: pytest.FixtureRequest) -> ModuleType:
    if request.param == "python":
        return python_kernel
    reason = "NEEDS a C compiler at installation: the compiled loops are not tested here"
    kernel: ModuleType = pytest.importorskip("masque_client.netio.offload._compiled", reason=reason)
    return kernel


def test_a_link_local_source_has_no_scope_in_its_name(lab: Lab, kernel: ModuleType) -> None:
    left, right = lab.namespace("left"), lab.namespace("right")
    device, _ = lab.link(left, [f"{LINK_LOCAL}/64"], right, [])
    with left.entered():
        scope = socket.if_nametoindex(device)
        sockets = [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2)]
    bound, sender = sockets
    with bound, sender:
        for sock in sockets:
            sock.bind((LINK_LOCAL, 0, 0, scope))
        sender.sendto(b"x", bound.getsockname())
        sender.sendto(b"x", bound.getsockname())
        [buffer], *_ = kernel.receive_trains(bound, 1, None)
        data, source = bound.recvfrom(100, socket.MSG_DONTWAIT)
        assert source == (LINK_LOCAL, sender.getsockname()[1], 0, scope)
        assert buffer == ReceivedBuffer(data, 1, source[:2])
