"""One host name in, the right proxy and policy out: three proxies in one provisioning domain, on loopback, as anybody.

    dead    a UDP and a TCP port that swallow everything: the worst way to be dead, because nobody says so
    light   CONNECT-UDP only
    full    CONNECT-UDP and CONNECT-IP

The document's rules, in their order, for targets that answer and remember who asked:

    127.0.9.0/24   no proxy          →  directly, because the user said --unmatched direct
    localhost      dead, else light  →  light, after the failover that is measured
    127.0.2.0/24   full
    all else       light, else full

Whose socket a target was asked from is the kernel's word, not ours. The document is short-lived: it is renewed while
`socks` runs, the new one sends 127.0.2.0/24 through light, and the old one's end is waited for.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from masque_client.engine.interface import Address
from masque_client.errors import TimedOut
from masque_client.protocol.uri_template import DEFAULT_IP_PATH, DEFAULT_UDP_PATH
from masque_client.sockets.socks5_wire import Endpoint
from masque_client.testing.addresses import parse_address
from masque_client.testing.certificates import CertificateAuthority, Credentials
from masque_client.testing.echo import EchoTarget, udp_ports_of
from masque_client.testing.pvd_server import WELL_KNOWN_PATH, PvdServer, pvd_document
from masque_client.testing.socks_client import SocksAssociation
from masque_connect.demo.actors import MASQUE_CONNECT, PYTHON, Actor, StepFailed
from masque_connect.demo.interrupts import Interrupts
from masque_connect.demo.settings import Settings
from masque_connect.demo.staging import blank_result, stage
from masque_connect.demo.workplace import Workshop
from masque_connect.exit_codes import ExitCode
from masque_connect.render import remark

T = TypeVar("T")

NAME = "localhost"
MAX_FAILOVER_S = 3.0
SHORT_LIFETIME_S = 17.0
"""Of the first document: a client may not ask again within 10 s (RFC 8801 §4.1), and starting takes a moment."""
EXCHANGE_TIMEOUT_S = 30.0
RETRY_S = 0.1
START_TIMEOUT_S = 10.0
PORT_ATTEMPTS = 16
"""How often a port number that is free for both UDP and TCP is looked for."""
PARTS = ("discovery", "routing", "failover", "reopening", "refresh", "refusal")
DEAD, LIGHT, FULL, DIRECT = "dead", "light", "full", "direct"


def run_discovery(settings: Settings, interrupts: Interrupts) -> dict[str, Any]:
    """Run the scenario; returns its JSON object. On failure the last log lines of all processes are shown."""
    result = blank_result("discovery", settings, *PARTS)
    with ExitStack() as servers:
        stage(Workshop(interrupts), lambda workshop: _Scenario(workshop, servers, settings, result).run(), result)
    result["ok"] = all(result[part]["ok"] for part in PARTS)
    return result


class _Scenario:
    def __init__(self, workshop: Workshop, servers: ExitStack, settings: Settings, result: dict[str, Any]) -> None:
        self.workshop = workshop
        self.servers = servers
        self.settings = settings
        self.result = result
        self.authority = CertificateAuthority.create(workshop.directory / "ca")
        self.credentials = self.authority.issue([NAME, "127.0.0.1"])
        self.targets = {
            name: servers.enter_context(EchoTarget(name, (host, 0)))
            for name, host in (
                ("excluded", "127.0.9.1"),
                ("named", "127.0.0.1"),
                ("special", "127.0.2.1"),
                ("other", "127.0.3.1"),
            )
        }
        self.destinations = {name: Endpoint(*target.address) for name, target in self.targets.items()}
        self.destinations["named"] = Endpoint(NAME, self.targets["named"].address[1])
        self.actors: dict[str, Actor] = {}
        self.proxies: dict[str, str] = {}
        self.url = ""
        self.exchanges = 0

    def run(self) -> None:
        """All steps in order; each fills in its part of the result."""
        self.proxies = {DEAD: self._dead_proxy(), LIGHT: self._proxy(LIGHT, "udp"), FULL: self._proxy(FULL, "udp,ip")}
        served = self.servers.enter_context(_serving(self._document(), self.credentials))
        self.url = _url_of(served)
        self._discover()
        self._refuse()
        served.document = self._document(lifetime_s=SHORT_LIFETIME_S)
        expires_at = time.monotonic() + SHORT_LIFETIME_S
        requests_before = len(served.requests)
        self.actors[DIRECT] = self._command("socks", "--listen", "127.0.0.1:0", "--unmatched", "direct", "-v")
        server = parse_address(self.actors[DIRECT].next_line()["listen"])
        with SocksAssociation(server) as association:
            self._fail_over(association)
            self._route(association)
            served.document = self._document(special=LIGHT)  # not before: those were the first document's rules
            self._renew(server, expires_at)
            self.result["refresh"]["requests"] = len(served.requests) - requests_before
            self._reopen(association)

    # --- the servers ------------------------------------------------------------------------------------------------

    def _dead_proxy(self) -> str:
        """Ports that are open and never answer."""
        udp, tcp = _silent_ports()
        self.servers.enter_context(udp)
        self.servers.enter_context(tcp)
        return f"{NAME}:{tcp.getsockname()[1]}"

    def _proxy(self, name: str, tunnel_types: str) -> str:
        self.actors[name] = self.workshop.start(
            name,
            *(*PYTHON, "masque_client.testing.proxy", "--listen", "127.0.0.1:0", "--name", NAME),
            *("--certificate", str(self.credentials.certificate), "--key", str(self.credentials.key)),
            *("--tunnel-types", tunnel_types, "--tun", "none", "--pool4", "10.89.0.0/24", "--allow", "127.0.0.0/8"),
            *("--engine", self.settings.engine),
        )
        ready = self.actors[name].next_line()
        self.result["engine"] = ready.get("engine", self.result["engine"])
        return f"{NAME}:{parse_address(ready['listen'][0])[1]}"

    def _command(self, command: str, *arguments: str) -> Actor:
        common = ("--proxy", self.url, "--json", "--ca", str(self.authority.ca_file), "--engine", self.settings.engine)
        return self.workshop.start(command, *MASQUE_CONNECT, command, *arguments, *common)

    def _document(self, *, special: str = FULL, lifetime_s: float = 3600.0) -> dict[str, Any]:
        """The rules above, with the proxy for 127.0.2.0/24 to choose."""
        templates = [(name, "connect-udp", DEFAULT_UDP_PATH) for name in (DEAD, LIGHT, FULL)] + [
            (FULL, "connect-ip", DEFAULT_IP_PATH)
        ]
        proxies = [
            {"protocol": protocol, "proxy": f"https://{self.proxies[name]}{path}", "identifier": name}
            for name, protocol, path in templates
        ]
        rules = [
            {"subnets": ["127.0.9.0/24"], "proxies": []},
            {"domains": [NAME], "proxies": [DEAD, LIGHT]},
            {"subnets": ["127.0.2.0/24"], "proxies": [special]},
            {"proxies": [LIGHT, FULL]},
        ]
        expires = datetime.now(UTC) + timedelta(seconds=lifetime_s)
        return pvd_document(NAME, proxies, **{"proxy-match": rules, "expires": f"{expires:%Y-%m-%dT%H:%M:%SZ}"})

    # --- steps ------------------------------------------------------------------------------------------------------

    def _discover(self) -> None:
        started = time.monotonic()
        found = self._discovery("discover", self.url).next_document()
        protocols = [(proxy["identifier"], proxy["protocol"]) for proxy in found["proxies"]]
        wanted = [(DEAD, "connect-udp"), (LIGHT, "connect-udp"), (FULL, "connect-udp"), (FULL, "connect-ip")]
        self.result["discovery"] = {
            "ok": protocols == wanted and len(found["rules"]) == 4,
            "ms": round((time.monotonic() - started) * 1000),
            "proxies": [" ".join(pair) for pair in protocols],
            "rules": len(found["rules"]),
        }
        remark(f"{self.url} names {len(protocols)} proxies and {len(found['rules'])} rules")

    def _discovery(self, name: str, url: str) -> Actor:
        return self.workshop.start(
            name, *MASQUE_CONNECT, "discover", url, "--json", "--ca", str(self.authority.ca_file)
        )

    def _fail_over(self, association: SocksAssociation) -> None:
        """The very first datagram finds the dead proxy first."""
        self.result["failover"] = done = self._timed_exchange(association, "named", LIGHT)
        remark(f"the dead proxy cost {done['seconds']:.2f} s, then {done['through']} carried the flow")

    def _route(self, association: SocksAssociation) -> None:
        flows = []
        for name, wanted in (("excluded", DIRECT), ("named", LIGHT), ("special", FULL), ("other", LIGHT)):
            self._exchange(association, name)
            flows.append({"target": name, "wanted": wanted, "seen_from": self._seen_from(name)})
        self.result["routing"] = {"ok": all(flow["wanted"] == flow["seen_from"] for flow in flows), "flows": flows}
        remark("flows: " + ", ".join(f"{flow['target']} through {flow['seen_from']}" for flow in flows))

    def _renew(self, server: Address, expires_at: float) -> None:
        """Until the first document has ended: without another one everything would be blocked by then.

        A new association makes new flows; those that are open stay with the proxy that they began with.
        """
        while (remaining_s := expires_at - time.monotonic()) > 0:
            time.sleep(min(remaining_s, 0.2))
        with SocksAssociation(server) as after:
            self._exchange(after, "special")
            seen = self._seen_from("special")  # before the association ends, and the flow's socket with it
        self.result["refresh"] = {"ok": seen == LIGHT, "through": seen, "lifetime_seconds": SHORT_LIFETIME_S}
        remark(f"the document was renewed before its end; its new rule sends 127.0.2.0/24 through {seen}")

    def _reopen(self, association: SocksAssociation) -> None:
        """The proxy of an open flow goes away; the flow's next datagrams find another one."""
        self.workshop.stop(self.actors[LIGHT])
        self.result["reopening"] = done = self._timed_exchange(association, "other", FULL)
        remark(f"light went away; {done['seconds']:.2f} s later {done['through']} carried its flow")

    def _refuse(self) -> None:
        """Documents that somebody has tampered with, and a destination that must not go directly."""
        good = self._document()
        duplicate = json.dumps(good)[:-1].encode() + b', "proxies": []}'
        foreign = CertificateAuthority.create(self.workshop.directory / "foreign-ca").issue([NAME])
        bad: list[tuple[str, dict[str, Any] | bytes, Credentials]] = [
            ("another identifier", {**good, "identifier": "other.example"}, self.credentials),
            ("a second list of proxies", duplicate, self.credentials),
            ("prefixes of a network", {**good, "prefixes": ["2001:db8::/32"]}, self.credentials),
            ("past its end", self._document(lifetime_s=-1.0), self.credentials),
            ("a certificate of another CA", good, foreign),
        ]
        urls = [_url_of(self.servers.enter_context(_serving(document, keys))) for _, document, keys in bad]
        actors = [self._discovery(f"discover-bad-{number}", url) for number, url in enumerate(urls, 1)]
        excluded = self.destinations["excluded"]
        actors.append(self._command("udp", f"127.0.0.1:0={excluded.host}:{excluded.port}"))
        wanted = [ExitCode.BAD_CONFIGURATION] * 4 + [ExitCode.TLS, ExitCode.BAD_CONFIGURATION]
        refused = [
            {"what": what, "exit_status": status, "error": error}
            for what, (status, error) in zip(
                [*(name for name, *_ in bad), "an excluded destination without --unmatched direct"],
                map(_outcome, actors),
                strict=True,
            )
        ]
        is_untouched = not self.targets["excluded"].sources
        self.result["refusal"] = {
            "ok": [entry["exit_status"] for entry in refused] == list(map(int, wanted)) and is_untouched,
            "refused": refused,
        }
        remark(f"refused: {', '.join(str(entry['what']) for entry in refused)}")

    # --- traffic ----------------------------------------------------------------------------------------------------

    def _timed_exchange(self, association: SocksAssociation, target: str, wanted: str) -> dict[str, Any]:
        seconds, seen = self._exchange(association, target), self._seen_from(target)
        return {
            "ok": seconds <= MAX_FAILOVER_S and seen == wanted,
            "seconds": round(seconds, 3),
            "limit_seconds": MAX_FAILOVER_S,
            "through": seen,
        }

    def _exchange(self, association: SocksAssociation, name: str) -> float:
        """Seconds from the first datagram to the answer of this target; asked again and again, as DNS would be."""
        self.exchanges += 1
        question, started = f"question {self.exchanges}".encode(), time.monotonic()
        while (elapsed_s := time.monotonic() - started) < EXCHANGE_TIMEOUT_S:
            association.send(self.destinations[name], question)
            try:
                while (message := association.receive(RETRY_S)).payload != name.encode() + b":" + question:
                    pass  # a late answer to an earlier question
            except TimedOut:
                continue
            assert message.endpoint == self.destinations[name]
            return time.monotonic() - started
        raise StepFailed(f"no answer from the target {name} within {elapsed_s:.0f} s")

    def _seen_from(self, name: str) -> str:
        """Whose socket the target was last asked from."""
        _, port = self.targets[name].sources[-1]
        for who, actor in self.actors.items():
            if actor.process.poll() is None and port in udp_ports_of(actor.process.pid):
                return who
        return "nobody we know"


def _silent_ports() -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket on one port number of loopback. What is free for one may be taken for the other."""
    for _ in range(PORT_ATTEMPTS):
        tcp = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
        except OSError as error:
            udp.close()
            tcp.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return udp, tcp
    raise StepFailed(f"{PORT_ATTEMPTS} port numbers were free for TCP, and none of them for UDP")


def _outcome(actor: Actor) -> tuple[int, str]:
    """The exit status of a command that should fail, and what it says."""
    status = actor.wait()
    errors = [line.removeprefix("error: ") for line in actor.tail() if line.startswith("error: ")]
    return status, (errors or ["nothing"])[-1]


def _url_of(server: PvdServer) -> str:
    return f"https://{NAME}:{server.addresses[0][1]}{WELL_KNOWN_PATH}"


@contextmanager
def _serving(document: dict[str, Any] | bytes, credentials: Credentials) -> Iterator[PvdServer]:
    """A document on a free port of loopback, served by a thread; it may be replaced meanwhile."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def call(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(START_TIMEOUT_S)

    server = PvdServer(document, credentials)
    try:
        call(server.start([("127.0.0.1", 0)]))
        yield server
    finally:
        call(server.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
