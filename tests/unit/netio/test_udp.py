"""UdpSocket over the real loopback, its loops compiled and in Python: trains both ways, what the network answers, what
the kernel refuses."""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

import pytest

from masque_client.engine.interface import Address, ReceivedBuffer
from masque_client.errors import AddressInUse, ConnectError, LocalProtocolError, PrivilegeError
from masque_client.netio import udp as udp_module
from masque_client.netio.offload.python_udp_io import MAX_SEGMENTS, MAX_TRAIN_BYTES
from masque_client.netio.udp import UdpSocket

LOOPBACKS = ["127.0.0.1", "::1"]
READY_WITHIN_S = 5.0
SO_NO_CHECK = (
    11  # include/uapi/asm-generic/socket.h; without checksums there is no UDP_SEGMENT, says the kernel: EINVAL
)


@pytest.fixture(autouse=True)
def loops(kernel: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here runs over both kernels."""
    monkeypatch.setattr(udp_module, "receive_trains", kernel.receive_trains)
    monkeypatch.setattr(udp_module, "send_trains", kernel.send_trains)


@pytest.fixture(params=LOOPBACKS)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[UdpSocket, UdpSocket]]:
    """A connected socket and the bound one it talks to."""
    bound = UdpSocket.bound((request.param, 0))
    connected = UdpSocket.connected(bound.local_address)
    yield connected, bound
    connected.close()
    bound.close()


def await_readable(udp: UdpSocket) -> None:
    assert select.select([udp], [], [], READY_WITHIN_S)[0], "nothing arrived"


def receive(udp: UdpSocket, count: int) -> list[tuple[bytes, Address]]:
    """Exactly `count` datagrams, and no more waiting behind them."""
    datagrams: list[tuple[bytes, Address]] = []
    while len(datagrams) < count:
        await_readable(udp)
        datagrams += udp.receive_datagrams()
    assert len(datagrams) == count
    return datagrams


def send(udp: UdpSocket, payloads: list[bytes], to: Address) -> None:
    assert udp.send_batch([(payload, to) for payload in payloads]) == len(payloads)


Refuse = Callable[[int], list[int]]


@pytest.fixture
def refuse_trains(kernel: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Play a device that answers every train with one errno; the list returned gets a number for each."""

    def play(number: int) -> list[int]:
        refused: list[int] = []

        def send_trains(
            sock: socket.socket, datagrams: Sequence[tuple[bytes, Address]], start: int, family: int, in_trains: bool
        ) -> tuple[int, int, int, int, int]:
            if not in_trains:
                return kernel.send_trains(sock, datagrams, start, family, in_trains)  # type: ignore[no-any-return]
            refused.append(len(datagrams) - start)
            return start, len(datagrams), number, 0, 0

        monkeypatch.setattr(udp_module, "send_trains", send_trains)
        return refused

    return play


# --- both ways ----------------------------------------------------------------------------------------------------


def test_datagrams_travel_both_ways(pair: tuple[UdpSocket, UdpSocket]) -> None:
    connected, bound = pair
    send(connected, [b"ping"], bound.local_address)
    [(data, peer)] = receive(bound, 1)
    assert (data, peer) == (b"ping", connected.local_address)

    send(bound, [b"pong"], peer)
    assert receive(connected, 1) == [(b"pong", bound.local_address)]


def test_nothing_waiting_is_an_empty_batch(pair: tuple[UdpSocket, UdpSocket]) -> None:
    connected, bound = pair
    assert connected.receive_batch() == []
    assert bound.receive_datagrams() == []
    assert connected.send_batch([]) == 0


def test_equal_datagrams_leave_in_one_train_and_arrive_in_one(pair: tuple[UdpSocket, UdpSocket]) -> None:
    connected, bound = pair
    payloads = [bytes([n]) * 1200 for n in range(40)] + [b"the last is shorter"]
    send(connected, payloads, bound.local_address)
    assert connected.counters.send_calls == 1
    assert connected.counters.datagrams_sent == 41

    await_readable(bound)
    assert bound.receive_batch() == [ReceivedBuffer(b"".join(payloads), 1200, connected.local_address)]
    assert bound.counters.receive_calls == 1
    assert bound.counters.datagrams_received == 41
    assert bound.counters.bytes_received == connected.counters.bytes_sent == 40 * 1200 + 19


def test_a_train_is_split_into_its_datagrams(pair: tuple[UdpSocket, UdpSocket]) -> None:
    connected, bound = pair
    payloads = [b"a" * 700, b"b" * 700, b"c" * 3]
    send(connected, payloads, bound.local_address)
    assert [data for data, _ in receive(bound, 3)] == payloads
    assert bound.counters.receive_calls == 1


@pytest.mark.parametrize(
    ("sizes", "calls"),
    [
        ([100] * (MAX_SEGMENTS + 1), 2),
        ([1400] * (MAX_TRAIN_BYTES // 1400 + 1), 2),
        ([100, 200, 200], 2),
        ([200, 100, 100], 2),
        ([200, 100, 200, 100], 2),
        ([100, 0, 100, 100], 3),
        ([0, 0, 0], 3),
        ([9000], 1),
    ],
    ids=["segments", "bytes", "growing", "shrinking", "sawtooth", "zero-length", "all-empty", "single"],
)
def test_trains_obey_the_kernels_rules(pair: tuple[UdpSocket, UdpSocket], sizes: list[int], calls: int) -> None:
    connected, bound = pair
    payloads = [bytes([n]) * size for n, size in enumerate(sizes)]
    send(connected, payloads, bound.local_address)
    assert connected.counters.send_calls == calls
    assert [data for data, _ in receive(bound, len(sizes))] == payloads


def test_a_bound_socket_sends_one_train_per_peer() -> None:
    peers = [UdpSocket.bound(("127.0.0.1", 0)) for _ in range(2)]
    bound = UdpSocket.bound(("127.0.0.1", 0))
    first, second = (peer.local_address for peer in peers)
    batch = [(b"1" * 500, first), (b"2" * 500, first), (b"3" * 500, second), (b"4" * 500, second), (b"5", first)]
    assert bound.send_batch(batch) == 5
    assert bound.counters.send_calls == 3
    assert [data for data, _ in receive(peers[0], 3)] == [b"1" * 500, b"2" * 500, b"5"]
    assert [data for data, _ in receive(peers[1], 2)] == [b"3" * 500, b"4" * 500]
    for udp in (bound, *peers):
        udp.close()


def test_zero_length_datagrams_are_kept_for_plain_use_and_skipped_for_quic(pair: tuple[UdpSocket, UdpSocket]) -> None:
    connected, bound = pair
    send(connected, [b"", b"x", b""], bound.local_address)
    assert [data for data, _ in receive(bound, 3)] == [b"", b"x", b""]

    send(connected, [b"", b"x", b""], bound.local_address)
    await_readable(bound)
    assert [buffer.data for buffer in bound.receive_batch()] == [b"x"]
    assert bound.counters.empty == 2


def test_the_limit_leaves_the_rest_for_later(pair: tuple[UdpSocket, UdpSocket]) -> None:
    connected, bound = pair
    connected.gso_enabled = False
    send(connected, [b"1", b"2", b"3"], bound.local_address)
    assert [buffer.data for buffer in bound.receive_batch(limit=2)] == [b"1", b"2"]
    assert [buffer.data for buffer in bound.receive_batch(limit=2)] == [b"3"]


def test_a_full_buffer_says_which_part_went() -> None:
    """A receiver that does not read fills no UDP sender's buffer on loopback; a local datagram socket's it does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the least there is, some kilobytes
    nobody = ("192.0.2.1", 9)
    udp = UdpSocket(ours, nobody)
    batch = [(bytes(size), nobody) for size in range(1000, 1100)]
    taken = udp.send_batch(batch)
    assert 0 < taken < len(batch)
    assert udp.send_batch(batch[taken:]) == 0
    assert udp.send_batch([(b"same", nobody)] * 2) == 0, "a train that does not fit is kept whole"
    assert udp.gso_enabled, "a full buffer is no refusal"
    assert (udp.counters.datagrams_sent, udp.counters.dropped) == (taken, 0)

    assert [theirs.recv(2000) for _ in range(taken)] == [data for data, _ in batch[:taken]]
    assert udp.send_batch(batch[taken:]) > 0
    theirs.close()
    udp.close()


# --- refusals -----------------------------------------------------------------------------------------------------


def test_a_kernel_that_refuses_trains_is_asked_once(caplog: pytest.LogCaptureFixture) -> None:
    bound = UdpSocket.bound(("127.0.0.1", 0))
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
    sock.connect(bound.local_address)
    udp = UdpSocket(sock, bound.local_address)
    with caplog.at_level(logging.WARNING):
        send(udp, [b"1" * 100, b"2" * 100], bound.local_address)
        send(udp, [b"3" * 100, b"4" * 100], bound.local_address)
    assert not udp.gso_enabled
    assert [data[:1] for data, _ in receive(bound, 4)] == [b"1", b"2", b"3", b"4"]
    assert (udp.counters.datagrams_sent, udp.counters.bytes_sent, udp.counters.send_calls) == (4, 400, 4)
    assert udp.counters.dropped == 0
    assert len(caplog.records) == 1
    assert "offload refused" in caplog.text
    udp.close()
    bound.close()


@pytest.mark.parametrize("refusal", [errno.EIO, errno.EINVAL])
def test_a_device_that_refuses_trains_is_asked_once(
    pair: tuple[UdpSocket, UdpSocket], refuse_trains: Refuse, refusal: int
) -> None:
    connected, bound = pair
    refused = refuse_trains(refusal)
    send(connected, [b"1", b"2"], bound.local_address)
    send(connected, [b"3", b"4"], bound.local_address)
    assert refused == [2]
    assert not connected.gso_enabled
    assert [data for data, _ in receive(bound, 4)] == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("refusal", [errno.EMSGSIZE, errno.EINVAL])
def test_trains_over_the_path_mtu_do_not_switch_offload_off(
    pair: tuple[UdpSocket, UdpSocket], refuse_trains: Refuse, refusal: int
) -> None:
    connected, bound = pair
    refuse_trains(refusal)
    send(connected, [bytes(65_530)] * 2, bound.local_address)  # over the largest UDP payload there is
    assert connected.gso_enabled
    assert connected.counters.too_large == 2


def test_a_lone_datagram_that_is_refused_says_nothing_of_trains(
    pair: tuple[UdpSocket, UdpSocket], refuse_trains: Refuse
) -> None:
    connected, bound = pair
    refuse_trains(errno.EINVAL)
    send(connected, [b"alone"], bound.local_address)
    assert connected.gso_enabled
    assert [data for data, _ in receive(bound, 1)] == [b"alone"]


def test_an_oversize_datagram_is_dropped_and_the_rest_goes(pair: tuple[UdpSocket, UdpSocket]) -> None:
    connected, bound = pair
    send(connected, [b"before", bytes(65_530), b"after"], bound.local_address)
    assert connected.counters.too_large == 1
    assert connected.last_error is not None
    assert connected.last_error.errno == errno.EMSGSIZE
    assert [data for data, _ in receive(bound, 2)] == [b"before", b"after"]


def test_port_unreachable_is_news_and_no_exception(pair: tuple[UdpSocket, UdpSocket]) -> None:
    connected, bound = pair
    address = bound.local_address
    bound.close()
    send(connected, [b"into the void"], address)
    await_readable(connected)
    assert connected.receive_batch() == []
    assert connected.counters.icmp_errors == 1
    assert connected.last_error is not None
    assert connected.last_error.errno == errno.ECONNREFUSED


@pytest.fixture
def refused_once() -> Iterator[tuple[UdpSocket, UdpSocket]]:
    """A connected socket whose first datagram was refused, which it has not been told yet; and its peer, back again."""
    bound = UdpSocket.bound(("127.0.0.1", 0))
    address = bound.local_address
    connected = UdpSocket.connected(address)
    bound.close()
    send(connected, [b"refused"], address)
    await_readable(connected)
    revived = UdpSocket.bound(address)
    yield connected, revived
    connected.close()
    revived.close()


@pytest.mark.parametrize("count", [1, 3], ids=["datagram", "train"])
def test_news_of_an_earlier_datagram_does_not_cost_the_next_one(
    refused_once: tuple[UdpSocket, UdpSocket], count: int
) -> None:
    connected, revived = refused_once
    send(connected, [b"arrives"] * count, revived.local_address)
    assert [data for data, _ in receive(revived, count)] == [b"arrives"] * count
    assert connected.counters.icmp_errors == 1
    assert connected.gso_enabled


def test_what_arrived_behind_an_error_is_taken_with_it(refused_once: tuple[UdpSocket, UdpSocket]) -> None:
    connected, revived = refused_once
    send(revived, [b"hello"], connected.local_address)
    assert [buffer.data for buffer in connected.receive_batch()] == [b"hello"]
    assert connected.counters.icmp_errors == 1


def test_a_name_instead_of_an_address_still_works() -> None:
    bound = UdpSocket.bound(("127.0.0.1", 0))
    udp = UdpSocket.bound(("127.0.0.1", 0))
    _, port = bound.local_address
    assert udp.send_batch([(b"1", ("127.0.0.1", port)), (b"2", ("localhost", port)), (b"3", ("127.0.0.1", port))]) == 3
    assert [data for data, _ in receive(bound, 3)] == [b"1", b"2", b"3"]
    udp.close()
    bound.close()


def test_an_unroutable_datagram_is_dropped_and_counted() -> None:
    udp = UdpSocket.bound(("127.0.0.1", 0))
    # A loopback source cannot leave the machine: the kernel says EINVAL for IPv4.
    assert udp.send_batch([(b"nowhere", ("192.0.2.1", 9))]) == 1
    assert udp.counters.dropped == 1
    udp.close()


# --- making and closing one ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", LOOPBACKS)
def test_a_taken_port_is_said_plainly(host: str) -> None:
    first = UdpSocket.bound((host, 0))
    with pytest.raises(AddressInUse, match=str(first.local_address[1])) as caught:
        UdpSocket.bound(first.local_address)
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(AddressInUse):
        UdpSocket.connected((host, 9), local=first.local_address)
    first.close()


def test_an_address_that_is_not_ours_is_said_plainly() -> None:
    with pytest.raises(AddressInUse, match=r"192\.0\.2\.1"):
        UdpSocket.bound(("192.0.2.1", 0))


def test_no_route_is_a_connect_error() -> None:
    # A loopback source cannot reach the world.
    with pytest.raises(ConnectError, match=r"192\.0\.2\.1:443"):
        UdpSocket.connected(("192.0.2.1", 443), local=("127.0.0.1", 0))


def test_a_name_is_not_an_address() -> None:
    with pytest.raises(LocalProtocolError, match="not an IP literal"):
        UdpSocket.connected(("localhost", 443))


def test_a_chosen_source_is_used() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.2", 0))
        source: Address = probe.getsockname()
    udp = UdpSocket.connected(("127.0.0.1", 9), local=source)
    assert udp.local_address == source
    udp.close()


def test_two_sockets_share_a_port_when_both_ask() -> None:
    first = UdpSocket.bound(("127.0.0.1", 0), reuse_port=True)
    second = UdpSocket.bound(first.local_address, reuse_port=True)
    assert first.local_address == second.local_address
    first.close()
    second.close()


def test_path_mtu_is_the_routes(pair: tuple[UdpSocket, UdpSocket]) -> None:
    connected, bound = pair
    largest = 65536 if ":" in connected.local_address[0] else 65535  # loopback's MTU; IPv4 packets end earlier
    assert connected.path_mtu() == largest
    assert bound.path_mtu() is None


def test_closing_is_final_and_repeatable(pair: tuple[UdpSocket, UdpSocket]) -> None:
    connected, _ = pair
    connected.close()
    connected.close()
    assert connected.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        connected.receive_batch()
    with pytest.raises(OSError, match="Bad file descriptor"):
        connected.send_batch([(b"x", ("127.0.0.1", 9))])


@pytest.mark.skipif(os.geteuid() != 0, reason="a firewall mark needs root (CAP_NET_ADMIN)")
def test_the_mark_is_on_the_socket() -> None:
    udp = UdpSocket.connected(("127.0.0.1", 9), mark=0x4D51)
    with socket.socket(fileno=os.dup(udp.fileno())) as view:
        assert view.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 0x4D51
    udp.close()


def test_a_mark_without_privilege_is_said_plainly() -> None:
    child = os.fork()
    if child == 0:  # only this child gives up root
        code = 1
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            UdpSocket.connected(("127.0.0.1", 9), mark=0x4D51)
        except PrivilegeError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
