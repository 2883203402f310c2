"""What worked last time on this network: the HTTP version and the address that a proxy was reached with.

It can only make the next connect faster. A network where QUIC was blocked is given HTTP/2 without the head start of
HTTP/3, which is tried beside it all the same, and after `RETRY_HTTP3_S` has its full say again. The last good address
is tried beside the regular first one, never instead of it.

`NetworkMemory` decides and is pure; `MemoryFile` keeps one between runs. Times are seconds since the epoch, for they
outlive a boot. Nothing here is secret, and proxies are kept as hashes; the networks' names are hashes already.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import platformdirs

from masque_client.engine.interface import Address
from masque_client.netio.network_identity import network_identity
from masque_client.netio.state_file import read_state, write_state

logger = logging.getLogger(__name__)

RETRY_HTTP3_S = 600.0
"""After so long without a fair try of HTTP/3 it is preferred again, as on a network never seen."""
FORGET_AFTER_S = 30 * 86400.0
MAX_ENTRIES = 64
MAX_FILE_BYTES = 64 * 1024
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """What worked. `http3_failed_at` is when HTTP/3 last had a fair try and lost to silence; None when it works."""

    address: str
    port: int
    used_at: float
    http3_failed_at: float | None = None


@dataclass(frozen=True, slots=True)
class Advice:
    """How to connect.

    Attributes:
        address: to be tried beside the first one, if the DNS still gives it.
        http2_at_once: HTTP/2 need not wait for HTTP/3's head start.
        prefer_http3: HTTP/2 that is up first still waits a moment for HTTP/3.
    """

    address: Address | None = None
    http2_at_once: bool = False
    prefer_http3: bool = True


NO_ADVICE = Advice()


class NetworkMemory:
    """Entries by network and proxy, at most `MAX_ENTRIES`, the longest unused leave first. Sans-IO."""

    def __init__(self, entries: dict[str, Entry] | None = None) -> None:
        self.entries = entries or {}

    def advise(self, key: str, now: float) -> Advice:
        """What to do differently for the sake of the past. See `key_of`."""
        entry = self.entries.get(key)
        if entry is None or not 0 <= now - entry.used_at < FORGET_AFTER_S:
            return NO_ADVICE
        failed_at = entry.http3_failed_at
        is_recent = failed_at is not None and 0 <= now - failed_at < RETRY_HTTP3_S
        return Advice((entry.address, entry.port), failed_at is not None, not is_recent)

    def remember(self, key: str, address: Address, now: float, *, quic_blocked: bool, was_fair: bool) -> None:
        """A connect succeeded.

        Args:
            key: see `key_of`.
            address: where to.
            now: the present.
            quic_blocked: it is HTTP/2 because HTTP/3 met silence.
            was_fair: HTTP/3 was preferred in this connect, so that its defeat means something.
        """
        before = self.entries.pop(key, None)
        failed_at = None
        if quic_blocked:
            failed_at = now if was_fair or before is None else before.http3_failed_at
        self.entries[key] = Entry(*address, used_at=now, http3_failed_at=failed_at)  # last in the dict: newest
        while len(self.entries) > MAX_ENTRIES:
            del self.entries[next(iter(self.entries))]


def key_of(network: str, host: str, port: int) -> str:
    """What is remembered apart: a proxy on a network."""
    return hashlib.sha256(f"{network}\n{host}\n{port}".encode()).hexdigest()[:32]


def encode_memory(memory: NetworkMemory) -> bytes:
    """The file's content."""
    entries = {key: asdict(entry) for key, entry in memory.entries.items()}
    return json.dumps({"format_version": FORMAT_VERSION, "entries": entries}).encode()


def parse_memory(data: bytes) -> NetworkMemory:
    """The content of a file; an empty memory for what is no such file. Raises nothing."""
    try:
        document = json.loads(data)
        if document["format_version"] != FORMAT_VERSION:
            return NetworkMemory()
        entries = [(str(key), _parse_entry(value)) for key, value in document["entries"].items()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return NetworkMemory()
    return NetworkMemory(dict(sorted(entries, key=lambda item: item[1].used_at)[-MAX_ENTRIES:]))


def _parse_entry(value: dict[str, Any]) -> Entry:
    """ValueError, TypeError or KeyError when it is none."""
    failed_at = value["http3_failed_at"]
    address, port = str(ip_address(value["address"])), value["port"]
    if type(port) is not int or not 0 < port < 65536:
        raise ValueError("no port")
    times = [_seconds(value["used_at"]), None if failed_at is None else _seconds(failed_at)]
    return Entry(address, port, times[0] or 0.0, times[1])


def _seconds(value: object) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value < 1e12:  # neither infinite nor NaN
        raise ValueError("no time")
    return float(value)


class MemoryFile:
    """A `NetworkMemory` for the network of the moment, kept in a file when there is a path for one.

    Args:
        path: see `user_path`; None keeps everything in memory.
        identify: names the network, None for "unknown": nothing is looked up or remembered then.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        path: Path | None,
        identify: Callable[[], str | None] = network_identity,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._identify = identify
        self._now = now
        self._memory = NetworkMemory()

    @staticmethod
    def user_path() -> Path:
        """Where this user's lives."""
        return platformdirs.user_cache_path("masque-connect") / "networks.json"

    def advise(self, host: str, port: int) -> Advice:
        """See `NetworkMemory.advise`."""
        network = self._identify()
        if network is None:
            return NO_ADVICE
        self._load()
        return self._memory.advise(key_of(network, host, port), self._now())

    def remember(self, host: str, port: int, address: Address, *, quic_blocked: bool, was_fair: bool) -> None:
        """See `NetworkMemory.remember`. A file that cannot be written is no error."""
        network = self._identify()
        if network is None:
            return
        self._load()
        key = key_of(network, host, port)
        self._memory.remember(key, address, self._now(), quic_blocked=quic_blocked, was_fair=was_fair)
        if self._path is None:
            return
        try:
            write_state(self._path, encode_memory(self._memory))
        except OSError as error:
            logger.debug("cannot remember what worked on this network: %s", error)

    def _load(self) -> None:
        """Other processes write the file, too: each time anew. Without a usable one, what we know ourselves."""
        if self._path is None:
            return
        try:
            loaded = parse_memory(read_state(self._path, MAX_FILE_BYTES))
        except (OSError, ValueError) as error:
            logger.debug("no memory of networks: %s", error)
            return
        if loaded.entries:
            self._memory = loaded
