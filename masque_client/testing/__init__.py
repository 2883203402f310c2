"""A kit for trying and testing MASQUE clients without anybody's server: a local proxy, an origin, a bad link.

Published with the package, as `trio.testing` is, so that users can test what they build on top of it. It is NOT for
production: the proxy trusts its configuration, keeps its CA key unencrypted on disk and can be told to misbehave.

    certificates   a private CA and leaf certificates
    proxy          a MASQUE proxy (CONNECT-UDP, CONNECT-IP, PvD document) with fault switches
    pvd_server     the PvD document over HTTPS, well served or badly
    origin         an HTTP origin for transfers, with digests;  transfer: its measuring client
    dns            a small DNS responder and a measuring query
    relay, link    a UDP relay that loses, delays, reorders and limits, from a seed
    netns, ping    network namespaces for labs, and a ping to use in them

The proxy's parts: quic_listener (many connections on one socket), proxy_requests (judging and serving), udp_target,
ip_client, ip_router and address_pool (what is behind a tunnel), credentials, misbehave (every fault).
"""
