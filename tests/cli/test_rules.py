"""The rules of a PvD document, as `up` makes routes of them and `udp` and `socks` ask them for each destination."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from masque_client.sockets.socks5_wire import Command as SocksCommand
from masque_client.sockets.socks5_wire import Credentials, Endpoint, Reply
from masque_client.testing.addresses import parse_address
from masque_client.testing.certificates import CertificateAuthority
from masque_client.testing.echo import EchoTarget
from masque_client.testing.netns import CommandFailed, Namespace
from masque_client.testing.pvd_server import pvd_document
from masque_client.testing.socks_client import SocksAssociation, SocksRefused, socks_request
from tests.cli.commands import Command, Outcome, failed
from tests.cli.proxies import Proxies

HOLE = {"subnets": ["192.0.2.128/25"], "proxies": []}
ALL = {"proxies": ["p"]}
UNWRITABLE = {"domains": ["*.secret.example"], "proxies": []}


@pytest.fixture
def inside(namespace: Namespace | None) -> Iterator[None]:
    """This thread where the proxies are."""
    with namespace.entered() if namespace else contextlib.nullcontext():
        yield


def entries(*templates: str) -> list[dict[str, Any]]:
    kinds = {"udp": "connect-udp", "ip": "connect-ip"}
    return [
        {
            "protocol": kinds[template.split("/.well-known/masque/")[1].split("/")[0]],
            "proxy": template,
            "identifier": "p",
        }
        for template in templates
    ]


@contextlib.contextmanager
def domain(proxies: Proxies, *rules: dict[str, Any]) -> Iterator[str]:
    """The URL of a document with these rules for one proxy, `p`, of both tunnel types."""
    with proxies.proxy() as proxy:
        offered = entries(proxy.templates["connect-udp"], proxy.templates["connect-ip"])
        with proxies.pvd(pvd_document("localhost", offered, **{"proxy-match": list(rules)})) as url:
            yield url


def ready(command: Command) -> dict[str, Any]:
    """Its JSON line."""
    value = command.ready()
    assert value is not None, command.outcome().stderr
    return value


def interrupt(command: Command) -> Outcome:
    """End it as a person would, so that it cleans up."""
    command.process.send_signal(signal.SIGINT)
    outcome = command.outcome()
    assert outcome.code == 130, outcome.stderr
    return outcome


# --- up ---------------------------------------------------------------------------------------------------------------


@pytest.mark.netns
@pytest.mark.parametrize("policy", ["block", "direct"])
def test_an_excluded_subnet_stays_out_of_the_tunnel(
    proxies: Proxies, namespace: Namespace, start: Callable[..., Command], ca: tuple[str, str], policy: str
) -> None:
    with domain(proxies, UNWRITABLE, HOLE, ALL) as url:
        command = start("up", url, "--foreground", "--json", "--unmatched", policy, *ca)
        tunnel = ready(command)
        assert (tunnel["routes"], tunnel["excluded_routes"]) == (["192.0.2.0/25"], ["192.0.2.128/25"])
        assert tunnel["unsupported_rules"] == ["rule 1 excludes destinations by name, and a route knows only addresses"]
        assert namespace.route_to("192.0.2.1")["dev"] == tunnel["interface"]
        with pytest.raises(CommandFailed, match=r"unreachable|No route"):  # there is no other way out of the namespace
            namespace.route_to("192.0.2.200")
        table = namespace.run("ip", "route", "show", "table", "all").stdout
        assert ("unreachable 192.0.2.128/25" in table) is (policy == "block")
        interrupt(command)


@pytest.mark.netns
def test_a_rule_that_routes_cannot_honour_is_an_error_when_asked_to_be(
    proxies: Proxies, up: Callable[..., Outcome], ca: tuple[str, str]
) -> None:
    with domain(proxies, UNWRITABLE, ALL) as url:
        outcome = up(url, "--strict-rules", *ca)
    failed(outcome, 65, error="rule 1 excludes destinations by name", hint="--strict-rules")


@pytest.mark.netns
def test_rules_that_let_nothing_in_are_an_error(
    proxies: Proxies, up: Callable[..., Outcome], ca: tuple[str, str]
) -> None:
    with domain(proxies, {"subnets": ["10.0.0.0/8"], "proxies": ["p"]}) as url:
        failed(up(url, *ca), 65, error="let nothing that localhost advertises into the tunnel", hint="discover")


@pytest.mark.netns
def test_a_proxy_that_refuses_the_tunnel_is_followed_by_the_next(
    proxies: Proxies, start: Callable[..., Command], ca: tuple[str, str]
) -> None:
    with proxies.proxy("refuse=503") as busy, proxies.proxy() as willing:
        offered = entries(busy.templates["connect-ip"], willing.templates["connect-ip"])
        with proxies.pvd(pvd_document("localhost", offered, **{"proxy-match": [ALL]})) as url:
            command = start("up", url, "--foreground", "--json", *ca)
            assert ready(command)["proxy"] == f"localhost:{willing.addresses[0][1]}"
            assert f"localhost:{busy.addresses[0][1]}: the proxy answered 503" in interrupt(command).stderr


# --- udp --------------------------------------------------------------------------------------------------------------


def test_every_forward_goes_its_own_way(proxies: Proxies, start: Callable[..., Command], ca: tuple[str, str]) -> None:
    with domain(proxies, {"ports": ["9"], "proxies": []}, ALL) as url:
        forwards = ("127.0.0.1:0=127.0.0.1:9", "127.0.0.1:0=127.0.0.1:10")
        said = ready(start("udp", *forwards, "--proxy", url, "--json", "--unmatched", "direct", *ca))
    ways = [(forward["way"], forward["reason"]) for forward in said["forwards"]]
    assert ways == [("direct", "rule 1 excludes it"), ("proxy", "rule 2")]
    assert said["forwards"][1]["proxy"] == said["proxy"]


def test_a_destination_without_a_way_is_refused_before_anything_is_ready(
    proxies: Proxies, run: Callable[..., Outcome], ca: tuple[str, str]
) -> None:
    with domain(proxies, {"ports": ["53"], "proxies": ["p"]}) as url:
        outcome = run("udp", "127.0.0.1:0=127.0.0.1:9", "--proxy", url, *ca)
    failed(outcome, 65, error="127.0.0.1 port 9 is blocked: no rule covers it", hint="--unmatched direct")


def test_a_certificate_that_does_not_verify_stops_the_failover_unless_the_user_allows_it(
    proxies: Proxies,
    run: Callable[..., Outcome],
    start: Callable[..., Command],
    ca: tuple[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    foreign = CertificateAuthority.create(tmp_path_factory.mktemp("foreign")).issue(["localhost"])
    with proxies.proxy(credentials=foreign) as untrusted, proxies.proxy() as trusted:
        offered = entries(untrusted.templates["connect-udp"], trusted.templates["connect-udp"])
        with proxies.pvd(pvd_document("localhost", offered, **{"proxy-match": [ALL]})) as url:
            arguments = ("udp", "127.0.0.1:0=127.0.0.1:9", "--proxy", url, "--json", *ca)
            failed(run(*arguments), 6, error="certificate", hint="--ca")
            command = start(*arguments, "--failover", "any")
            assert ready(command)["proxy"] == f"localhost:{trusted.addresses[0][1]}"
            assert "certificate" in command.remark(f"localhost:{untrusted.addresses[0][1]}")


# --- socks ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("inside")
def test_socks_sends_each_destination_where_the_rules_say(
    proxies: Proxies, start: Callable[..., Command], ca: tuple[str, str]
) -> None:
    with EchoTarget("a", ("127.0.0.1", 0)) as a, EchoTarget("b", ("127.0.0.1", 0)) as b:
        with domain(proxies, {"ports": [str(b.address[1])], "proxies": []}, ALL) as url:
            command = start("socks", "--proxy", url, "--listen", "127.0.0.1:0", "--json", *ca)
            server = parse_address(ready(command)["listen"])
            with SocksAssociation(server) as association:
                association.send_raw(b"\0\0\1" + Endpoint(*a.address).encode() + b"fragment")
                association.send(Endpoint(*b.address), b"blocked")
                for target in (Endpoint(*a.address), Endpoint("localhost", a.address[1])):
                    association.send(target, b"hello")
                    answer = association.receive()
                    assert (answer.endpoint, answer.payload) == (target, b"a:hello")
            with pytest.raises(SocksRefused) as refused:
                socks_request(server, SocksCommand.CONNECT, Endpoint("127.0.0.1", 9))
            assert refused.value.reply is Reply.NOT_ALLOWED
            with pytest.raises(SocksRefused) as unknown:
                socks_request(server, SocksCommand.BIND, Endpoint("127.0.0.1", 9))
            assert unknown.value.reply is Reply.COMMAND_NOT_SUPPORTED
        assert b.sources == [], "what is excluded is blocked unless the user says otherwise"
        assert len(set(a.sources)) == len(a.sources) == 2, "each destination has a request stream of its own"


@pytest.mark.usefixtures("inside")
def test_socks_connects_directly_where_rules_and_user_leave_it_to(
    proxies: Proxies, start: Callable[..., Command], ca: tuple[str, str]
) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()
        await writer.wait_closed()

    async def listen() -> asyncio.Server:
        return await asyncio.start_server(echo, "127.0.0.1", 0)

    async def close() -> None:  # in the loop that it belongs to
        target.close()

    target = proxies.call(listen())
    port = target.sockets[0].getsockname()[1]
    try:
        with domain(proxies, {"ports": [str(port)], "proxies": []}, ALL) as url:
            arguments = ("--listen", "127.0.0.1:0", "--unmatched", "direct", "--json")
            server = parse_address(ready(start("socks", "--proxy", url, *arguments, *ca))["listen"])
            connection, _ = socks_request(server, SocksCommand.CONNECT, Endpoint("localhost", port))
            with connection:
                connection.sendall(b"over TCP")
                connection.shutdown(1)
                assert connection.recv(100) == b"over TCP"
                assert connection.recv(100) == b""
            with pytest.raises(SocksRefused) as refused:
                socks_request(server, SocksCommand.CONNECT, Endpoint("127.0.0.1", port - 1))
            assert refused.value.reply is Reply.NOT_ALLOWED, "the document wants it proxied, so never directly"
    finally:
        proxies.call(close())


@pytest.mark.usefixtures("inside")
def test_beyond_loopback_socks_wants_a_password(
    proxies: Proxies, run: Callable[..., Outcome], start: Callable[..., Command], ca: tuple[str, str], tmp_path: Any
) -> None:
    with domain(proxies, ALL) as url:
        outcome = run("socks", "--proxy", url, "--listen", "0.0.0.0:0", *ca)
        failed(outcome, 65, error="0.0.0.0 can be reached from other machines", hint="--auth-file")
        secret = tmp_path / "secret"
        secret.write_text("user:correct horse\n")
        secret.chmod(0o600)
        arguments = ("--listen", "0.0.0.0:0", "--auth-file", str(secret), "--json")
        server = parse_address(ready(start("socks", "--proxy", url, *arguments, *ca))["listen"])
        server = ("127.0.0.1", server[1])
        for wrong in (None, Credentials(b"user", b"wrong")):
            with pytest.raises(SocksRefused):
                SocksAssociation(server, wrong)
        with SocksAssociation(server, Credentials(b"user", b"correct horse")):
            pass


@pytest.mark.parametrize("line", ["", "user", ":password", "user:", "u" * 256 + ":p"])
def test_an_auth_file_without_credentials(run: Callable[..., Outcome], tmp_path: Any, line: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text(line)
    secret.chmod(0o600)
    failed(run("socks", "--proxy", "localhost", "--auth-file", secret), 65, error="holds no credentials", hint="user:")
