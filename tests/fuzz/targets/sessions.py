"""Both session types in both roles: what a peer may send — headers, content, datagrams, ends — in any order."""

from __future__ import annotations

from masque_client.errors import AuthenticationRefused, ProxyRefused, RemoteProtocolError
from masque_client.protocol.ip_session import ConnectIpSession
from masque_client.protocol.scope import IpPrefix
from masque_client.protocol.session import MAX_EARLY_BYTES, MAX_REFUSAL_BODY, Role, Session, SessionState
from masque_client.protocol.udp_session import ConnectUdpSession
from tests.fuzz.choices import Step, parse_steps
from tests.fuzz.harness import FuzzOne

STATUSES = (b"200", b"103", b"404", b"401", b"204", b"101", b"299", b"")
WORDS = (b"capsule-protocol", b"content-length", b"proxy-status", b"retry-after", b"www-authenticate", b"connection")


def make() -> FuzzOne:
    """Input: one byte that chooses the session (1: CONNECT-IP, 2: proxy, 4: open at once), then steps."""
    return fuzz_one


def fuzz_one(data: bytes) -> None:
    choice = data[0] if data else 0
    role = Role.PROXY if choice & 2 else Role.CLIENT
    session: Session[object] = ConnectIpSession(role) if choice & 1 else ConnectUdpSession(role)  # type: ignore[assignment]
    if choice & 4:
        open_it(session)
    for step in parse_steps(data[1:]):
        try:
            take(session, step)
        except (RemoteProtocolError, ProxyRefused, AuthenticationRefused) as error:
            assert str(error).isprintable() and error.hint.isprintable()
            assert session.state is SessionState.CLOSED, "an error leaves the session open"
        check(session)


def open_it(session: Session[object]) -> None:
    if session.role is Role.CLIENT:
        session.receive_headers([(b":status", b"200")], end_stream=False)
    else:
        session.accept()


def take(session: Session[object], step: Step) -> None:
    """Do one step; even arguments do not end the stream, odd ones do."""
    ends = bool(step.argument & 1)
    match step.kind % 8:
        case 0 | 1:
            delivered = session.receive_data(step.payload, end_stream=ends)
        case 2:
            delivered = session.receive_datagrams([step.payload, b"\0" + step.payload])
        case 3:
            delivered = session.receive_headers(headers(step), end_stream=ends, now_wall=1e9)
        case 4:
            session.receive_reset(step.argument)
            return
        case 5:
            session.receive_stop_sending(step.argument)
            return
        case 6:  # a capsule of any length up to 2^16, of which this is the beginning
            delivered = session.receive_data(bytes((step.argument & 7, 0x80, 1)) + step.payload, end_stream=False)
        case _:
            session.encapsulate([step.payload], now=float(step.argument))
            return
    assert session.state is SessionState.OPEN or not delivered or ends


def headers(step: Step) -> list[tuple[bytes, bytes]]:
    """A status and the lines `name:value` of the payload."""
    lines = (line.partition(b":") for line in step.payload.split(b"\n"))
    return [(b":status", STATUSES[(step.argument >> 1) % 8]), *((name, value) for name, _, value in lines)]


def check(session: Session[object]) -> None:
    """Bounds that hold whatever the peer does."""
    while session.next_event() is not None:
        pass
    session.data_to_send()
    assert session._early_bytes <= MAX_EARLY_BYTES
    assert len(session.refusal_body) <= MAX_REFUSAL_BODY
    if isinstance(session, ConnectIpSession):
        assert all(isinstance(entry.prefix, IpPrefix) and not entry.is_rejection for entry in session.assigned)
        assert all(int(route.start) <= int(route.end) for route in session.routes)
