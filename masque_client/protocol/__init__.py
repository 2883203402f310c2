"""The wire formats, sans-IO: bytes and `now` in, values and events out.

Nothing here knows a clock, a socket or a task; of this package it imports `errors` alone. Read it in this order:

    varint, capsule, h3_datagram, error_codes   the units of RFC 9297 and the integers they are made of
    scope, uri_template, headers, connect       how a tunnel is asked for and how the answer is judged
    session, udp_session, ip_session            a tunnel from its response to its end: start here to use the room
    ip_capsules, ip_filter, ip_ranges           CONNECT-IP: addresses, routes, and which packets they let pass
    ip_packet, icmp, mtu                        IP headers, what senders are told, and what fits in what
    quic_invariants                             finding the connection of a UDP payload (RFC 8999)
"""
