"""Where one row is measured: the demonstration's world, certificates, and the programs that the rows start in it.

Proxies listen on the same address one after another, so that nothing but the row differs between two measurements.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from masque_client.testing.certificates import CertificateAuthority
from masque_connect.demo import world as w
from masque_connect.demo.actors import PYTHON, Actor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from masque_client.testing.netns import Namespace

AUTHORITY = f"{w.PROXY_ADDRESS}:443"
UDP_TARGET = (w.SERVICE_4, 9000)
UDP_LOCAL = ("127.0.0.1", 9001)
"""Where a CONNECT-UDP forwarder takes datagrams, in the client's namespace."""


class Stage:
    """A world and what the programs of all rows need in it."""

    def __init__(self, world: w.World) -> None:
        self.world = world
        authority = CertificateAuthority.create(world.directory / "ca")
        self.ca = str(authority.ca_file)
        self.credentials = authority.issue([w.PROXY_NAME, w.PROXY_ADDRESS])
        self._started = 0

    @property
    def suffix(self) -> str:
        """For names that all namespaces of a machine share."""
        return self.world.lab.suffix

    def start(self, where: Namespace, *command: str) -> Actor:
        """Start a program; its log has a number, because every row starts the same ones."""
        self._started += 1
        name = f"{self._started}-{command[0].rpartition('/')[2]}"
        return self.world.start(name, where, *command)

    def start_python(self, where: Namespace, module: str, *arguments: str) -> Actor:
        """Start a module that takes orders."""
        self._started += 1
        return self.world.start(f"{self._started}-{module}", where, *PYTHON, module, *arguments, takes_orders=True)

    @contextmanager
    def scene(self) -> Iterator[None]:
        """Whatever is started within the block ends with it, the latest first."""
        before = len(self.world.actors)
        try:
            yield
        finally:
            for actor in reversed(self.world.actors[before:]):
                self.world.stop(actor)
            del self.world.actors[before:]
