"""Provisioning domains: which proxies a host offers, and which destinations may use them.

    source    what the user named            -> the URL to fetch and the identifier to expect
    fetch     HTTPS, bounded and verified    -> the bytes of the document
    model     strict parse                   -> `PvdDocument`, or `PvdError`
    trust     what local policy leaves of it -> proxies and destinations that may be used
    match     pure ordered rules             -> which proxies one destination may use
    cache     downloads kept between runs    -> the same document without a fetch, never beyond its expiry
    keeper    the document of a running tunnel, refreshed, expired, and changes reported (`schedule`, `changes`)
    svcb, ra  hints of DNS and of the network: where a document may be
    lint      everything that is wrong with somebody's document, for its operator
    discover  all of it in one call          -> `Discovery`, for the tunnel manager and the command line

A document is information, never an order to proxy: it can only narrow what local policy already allows.
Sources: RFC 8801 (the object and how it is fetched), draft-ietf-intarea-proxy-config-14 (`proxies`, `proxy-match`),
cited below as PROXY-CONFIG until it has an RFC number.
"""
