"""The operating system behind one desired-state interface. The adapter is chosen here and nowhere else."""

from __future__ import annotations

import sys

from masque_client.errors import HostError
from masque_client.host.interface import HostNetwork


def system_network() -> HostNetwork:
    """This machine's network.

    Raises:
        HostError: there is no adapter for this operating system.
    """
    if sys.platform == "linux":
        from masque_client.host.linux.network import LinuxHostNetwork

        return LinuxHostNetwork()
    raise HostError(f"cannot configure the network of {sys.platform}", hint="tunnels need Linux; `udp` does not")
