"""Deviations that several peers meet. Those of one peer stand in its own file; `matrix.deviations` lists them all."""

from __future__ import annotations

from tests.interop.model import Deviation, Feature, Protocol, Role


def no_empty_connection_ids(protocol: Protocol) -> Deviation:
    """For clients whose Source Connection ID has no bytes, as that of a quic-go client with a socket of its own.

    Only our *test* proxy is concerned, and only when told to use qh3: left to itself it takes aioquic for such clients.
    The Rust core of qh3 takes an empty id for one it has not learned yet
    and sends its answers to the id that the client made up for the server, which the client cannot match with its
    connection. The core offers no way to tell it better, and the client's packets do not authenticate when it is told
    of an empty id at the start. Our client is not concerned: its own ids have 8 bytes, and servers need theirs.
    """
    return Deviation(
        role=Role.CLIENT,
        protocol=protocol,
        feature=Feature.HANDSHAKE,
        symptom="no recent network activity",
        fault="qh3 2.1, under our test proxy, cannot serve clients with a connection ID of zero length",
        clause="RFC 9000 §5.1, §7.2",
        engine="qh3",
    )
