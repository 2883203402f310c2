"""The checks, one per feature. Each asks its stage for what it needs and returns measured facts as one short phrase.

A check raises `CellFailed`, or lets through what shows that a program did not do its part.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

from masque_client.engine.interface import Address
from masque_client.errors import MasqueError
from masque_client.testing import transfer
from masque_client.testing.ping import ping
from masque_connect.demo.actors import StepFailed
from masque_connect.exit_codes import ExitCode
from tests.interop import reliable_udp as udp
from tests.interop import scene as s
from tests.interop.model import CellFailed, Feature, Protocol, Role
from tests.interop.stage import UNKNOWN_PATH, Refusal, Stage, reliable_udp_answers

BIG_BYTES, SMALL_BYTES = 20_000_000, 2_000_000
PINGS: Final = 10
RESTART_TIMEOUT_S: Final = 40.0
QUIC_INSIDE_BYTES: Final = 1200
"""What must pass each way in a CONNECT-UDP tunnel, or QUIC cannot live in it (RFC 9000 §14)."""


def check_handshake(stage: Stage) -> str:
    ready = stage.tunnel().ready
    if stage.scenario.role is Role.CLIENT or stage.protocol is Protocol.UDP:
        return ""
    families = {6 if ":" in address else 4 for address in ready["addresses"]}
    if families != {4, 6}:
        raise CellFailed(f"assigned addresses: {ready['addresses']}")
    return "verified by a probe" if ready["verified"] else "no probe came back"


def check_echo(stage: Stage, version: int = 4) -> str:
    service = stage.udp_service(version)
    with stage.scene.client.entered():
        if stage.protocol is Protocol.IP:
            pings = ping(s.SERVICES[version], count=PINGS)
            if pings.received < PINGS - 1:  # the first may be lost to neighbour discovery
                raise CellFailed(f"{pings.received} of {pings.sent} pings answered")
            return f"{pings.rtt_ms:.1f} ms"
        started = time.monotonic()
        for size in (0, 1, 100, 512, QUIC_INSIDE_BYTES - 1):
            udp.echo(service, bytes(index % 251 for index in range(size)))
        return f"{(time.monotonic() - started) * 200:.1f} ms"


def check_upload(stage: Stage, version: int = 4, size: int = BIG_BYTES) -> str:
    service = stage.udp_service(version)
    with stage.scene.client.entered():
        if stage.protocol is Protocol.UDP:
            return _rate(size, udp.upload(service, size))
        done = transfer.upload(_url(version), size)
    return _judge(done)


def check_download(stage: Stage, version: int = 4, size: int = BIG_BYTES) -> str:
    service = stage.udp_service(version)
    with stage.scene.client.entered():
        if stage.protocol is Protocol.UDP:
            return _rate(size, udp.download(service, size))
        done = transfer.download(_url(version), size)
    return _judge(done)


def check_ipv6(stage: Stage) -> str:
    echo = check_echo(stage, 6)
    check_upload(stage, 6, SMALL_BYTES)
    check_download(stage, 6, SMALL_BYTES)
    return echo


def check_mtu(stage: Stage) -> str:
    return _packet_sizes(stage) if stage.protocol is Protocol.IP else _payload_sizes(stage)


def _packet_sizes(stage: Stage) -> str:
    """CONNECT-IP: what the device says passes, and not a byte more; inbound, what PTBs say passes."""
    stage.tunnel()
    facts = []
    for version, least in ((4, 576), (6, 1280)):
        route = stage.scene.client.route_to(s.SERVICES[version])
        mtu = int(stage.scene.client.ip("link", "show", "dev", route["dev"])[0]["mtu"])
        service = s.SERVICES[version], s.UDP_PORT
        with stage.scene.client.entered():
            outbound = _largest_out(service, mtu)
            inbound = udp.inbound_mtu(service, packet_bytes=1500)
        if min(outbound, inbound) < least:
            raise CellFailed(f"IPv{version}: {outbound} out, {inbound} in: less than {least}")
        facts.append(f"v{version} {outbound} out, {inbound} in")
    return "; ".join(facts)


def _largest_out(service: Address, mtu: int) -> int:
    """The largest packet, DF set, that gets there; the kernel must know it before or be told by PTBs."""
    with udp.udp_socket(service[0]) as sock:
        sock.connect(service)
        udp.forbid_fragments(sock)
        sock.settimeout(udp.PROBE_WAIT_S)
        try:
            sock.send(b"L" + bytes(mtu - udp.headers(sock)))
            raise CellFailed(f"a packet of {mtu + 1} bytes with DF was taken although the MTU is {mtu}")
        except OSError:  # EMSGSIZE
            if udp.path_mtu(sock) > mtu:
                raise CellFailed(f"told that {udp.path_mtu(sock)} bytes pass when {mtu} do") from None
        for _ in range(udp.PROBES):
            size = udp.path_mtu(sock)
            try:
                sock.send(b"L" + bytes(size - udp.headers(sock) - 1))
                if sock.recv(100)[1:] == (size - udp.headers(sock)).to_bytes(4, "big"):
                    return size
            except OSError:  # a PTB has come since, or the packet was lost
                continue
    raise CellFailed(f"no packet of {size} bytes arrives although the path MTU is said to be {size}")


def _payload_sizes(stage: Stage) -> str:
    """CONNECT-UDP: 1200 bytes pass each way; larger payloads may be lost, but hurt nobody after them."""
    service = stage.udp_service()
    facts = []
    with stage.scene.client.entered():
        udp.echo(service, bytes(QUIC_INSIDE_BYTES - 1))
        for size in (1300, 1400, 1472, 5000):
            sent = _passes(service, b"L" + bytes(size - 1), b"L" + size.to_bytes(4, "big"))
            back = _passes(service, b"E" + bytes(size - 1), b"E" + bytes(size - 1))
            facts += [f"{size} {'both ways' if back else 'out only'}"] if sent else []
            udp.echo(service, bytes(QUIC_INSIDE_BYTES - 1))
    return "1200 both ways" + "".join(f", {fact}" for fact in facts)


def _passes(service: Address, request: bytes, answer: bytes) -> bool:
    try:
        return udp.ask(service, request, tries=1) == answer
    except CellFailed:
        return False


def check_restart(stage: Stage) -> str:
    """The proxy crashes and comes back. Our client holds on, or ends with exit code 7 and is started again."""
    reliable_udp_answers(stage)
    stage.restart_proxy()
    started = time.monotonic()
    ended = ""
    while time.monotonic() - started < RESTART_TIMEOUT_S:
        actor = stage.tunnel().actor
        if (status := actor.process.poll()) is not None:
            if ended or status != ExitCode.UNREACHABLE:
                raise CellFailed(f"our client ended with exit code {status} {ended and 'again'}: {actor.tail()[-2:]}")
            ended = f"exit code {status} after {time.monotonic() - started:.1f} s, then "
            stage.close_client()
            continue
        try:
            service = stage.udp_service()
            with stage.scene.client.entered():
                udp.echo(service, b"again", tries=2, wait_s=0.25)
            return f"{ended}packets flow after {time.monotonic() - started:.1f} s"
        except (CellFailed, OSError):  # OSError: the device has just gone
            continue
    raise CellFailed(f"no packet within {RESTART_TIMEOUT_S:g} s")


def check_authentication(stage: Stage) -> str:
    """Refused without credentials; and let in with them, or the refusal would prove nothing."""
    stage.demand_credentials()
    words = _expect(stage, stage.refused(), ExitCode.AUTHENTICATION, "401")
    stage.open_with_credentials()
    return words


def check_not_found(stage: Stage) -> str:
    return _expect(stage, stage.refused(path=UNKNOWN_PATH), ExitCode.REFUSED, "404")


def _expect(stage: Stage, refusal: Refusal, code: ExitCode, http_status: str) -> str:
    """Ours says it in its exit code; of a foreign client it is only asked that it fails and names the status."""
    if stage.scenario.role is Role.PROXY and refusal.status != code:
        raise CellFailed(f"exit code {refusal.status} instead of {code}: {refusal.words}")
    if refusal.status == 0:
        raise CellFailed(f"exit code 0 after a refusal: {refusal.words}")
    if http_status not in refusal.words:
        raise CellFailed(f"{http_status} is not named: {refusal.words}")
    return f"exit code {refusal.status}"


def _url(version: int) -> str:
    host = s.SERVICES[version]
    return f"http://{f'[{host}]' if version == 6 else host}:{s.HTTP_PORT}"


def _judge(done: transfer.TransferResult) -> str:
    if not done.sha256_ok:
        raise CellFailed("SHA-256 differs")
    return _rate(done.bytes, done.seconds)


def _rate(size: int, seconds: float) -> str:
    return f"{size * 8 / 1e6 / seconds:.0f} Mbit/s"


CHECKS: Final[Mapping[Feature, Callable[[Stage], str]]] = {
    Feature.HANDSHAKE: check_handshake,
    Feature.ECHO: check_echo,
    Feature.UPLOAD: check_upload,
    Feature.DOWNLOAD: check_download,
    Feature.IPV6: check_ipv6,
    Feature.MTU: check_mtu,
    Feature.RESTART: check_restart,
    Feature.AUTH: check_authentication,
    Feature.NOT_FOUND: check_not_found,
}

FAILURES: Final = (CellFailed, StepFailed, MasqueError, OSError, socket.timeout)
"""What a check may raise when a program did not do its part; anything else is a mistake in the check."""
