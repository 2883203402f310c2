"""Addresses as people type them: `127.0.0.1:443`, `[::1]:443`."""

from __future__ import annotations

import ipaddress

from masque_client.engine.interface import Address


def parse_address(text: str) -> Address:
    """An IP literal and a port, IPv6 in brackets.

    Raises:
        ValueError: it is not one; `argparse` turns that into its own message.
    """
    host, separator, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    if not separator or bracketed != (address.version == 6):
        raise ValueError(f"{text!r} is not ADDRESS:PORT")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"{port!r} is not a port")
    return str(address), int(port)


def format_address(address: Address) -> str:
    """The inverse of `parse_address`."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
