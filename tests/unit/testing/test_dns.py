"""The DNS responder and the measuring query."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import dns.message
import dns.rcode
import pytest

from masque_client.errors import ConnectError, TimedOut
from masque_client.testing.dns import DnsResponder, query

TIMEOUT_S = 60.0


@pytest.fixture
def responder() -> Iterator[DnsResponder]:
    with DnsResponder([("127.0.0.1", 0), ("::1", 0)]) as running:
        yield running


@pytest.mark.parametrize(
    ("record_type", "values"),
    [
        ("A", ("192.0.2.80",)),
        ("AAAA", ("2001:db8::80",)),
        ("TXT", ('"hello from the masque-connect test origin"',)),
        ("MX", ()),
    ],
)
def test_configured_names_are_answered(responder: DnsResponder, record_type: str, values: tuple[str, ...]) -> None:
    for address in responder.addresses:
        answer = query(address, "Origin.masque.test", record_type, timeout_s=TIMEOUT_S)
        assert (answer.rcode, answer.values) == ("NOERROR", values)
        assert 0 < answer.rtt_s < TIMEOUT_S


def test_unknown_name_is_nxdomain(responder: DnsResponder) -> None:
    answer = query(responder.addresses[0], "nowhere.masque.test", timeout_s=TIMEOUT_S)
    assert (answer.rcode, answer.values) == ("NXDOMAIN", ())


def test_own_records() -> None:
    with DnsResponder([("127.0.0.1", 0)], {"a.test": {"A": ["192.0.2.1", "192.0.2.2"]}}) as responder:
        assert query(responder.addresses[0], "a.test", timeout_s=TIMEOUT_S).values == ("192.0.2.1", "192.0.2.2")


def test_answers_and_noise_are_not_answered() -> None:
    responder = DnsResponder([])
    answer = responder.respond(dns.message.make_query("origin.masque.test", "A").to_wire())
    assert answer is not None
    assert responder.respond(answer) is None
    assert responder.respond(b"") is None
    assert responder.respond(b"\xff" * 40) is None


def test_other_classes_do_not_exist() -> None:
    question = dns.message.make_query("origin.masque.test", "A", "CH")
    answer = DnsResponder([]).respond(question.to_wire())
    assert answer is not None
    assert dns.message.from_wire(answer).rcode() == dns.rcode.NXDOMAIN


def test_noise_does_not_stop_it(responder: DnsResponder) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for noise in (b"", b"x", b"\xff" * 100):
            sender.sendto(noise, responder.addresses[0])
    assert query(responder.addresses[0], "origin.masque.test", timeout_s=TIMEOUT_S).values


def test_silence_times_out() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(TimedOut, match=r"0\.05 s"):
            query(silent.getsockname(), "origin.masque.test", timeout_s=0.05)


def test_answer_to_another_question_is_an_error() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as liar:
        liar.bind(("127.0.0.1", 0))

        def lie() -> None:
            wire, sender = liar.recvfrom(4096)
            liar.sendto(wire[:2] + b"\x00" * 40, sender)

        thread = threading.Thread(target=lie)
        thread.start()
        with pytest.raises(ConnectError):
            query(liar.getsockname(), "origin.masque.test", timeout_s=TIMEOUT_S)
        thread.join()


def test_taken_port_is_an_oserror(responder: DnsResponder) -> None:
    with pytest.raises(OSError):
        DnsResponder([("127.0.0.1", 0), responder.addresses[0]])
