"""Provisioning domains: what proxies a host offers, and for which destinations (RFC 8801, proxy-config)."""
