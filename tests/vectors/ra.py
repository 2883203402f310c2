"""PvD options of router advertisements (RFC 8801 §3.1), and the message around them (RFC 4861 §4.2)."""

from __future__ import annotations

# H=1 Delay=5 Seq=7 cafe.example.com; Length 3, no padding needed
R1 = bytes.fromhex("15038005 00070463 61666507 6578616d 706c6503 636f6d00")
# H=1 Delay=1 Seq=123 example.org, then RDNSS with two addresses and PIO 2001:db8:cafe::/64; Length 12, 5 octets padding
R2 = bytes.fromhex(
    "150c8001 007b0765 78616d70 6c65036f 72670000 00000000 19050000 00000e10 20010db8 cafe0000 00000000 00000053"
    "20010db8 f00d0000 00000000 00000053 030440c0 00278d00 00093a80 00000000 20010db8 cafe0000 00000000 00000000"
)
# R=1 H=0 bar.example.org, then a router advertisement header (lifetime 1600 s) and PIO; Length 9, 1 octet padding
R3 = bytes.fromhex(
    "15092000 00000362 61720765 78616d70 6c65036f 72670000 86000000 40000640 00000000 00000000"
    "030440c0 00278d00 00093a80 00000000 20010db8 cafe0000 00000000 00000000"
)

# Hop limit 64, lifetime 1800 s; the checksum is the kernel's.
RA_HEADER = bytes.fromhex("86000000 40000708 00000000 00000000")
# PIO 2001:db8:f00d::/64
OTHER_PREFIX = bytes.fromhex("030440c0 00278d00 00093a80 00000000 20010db8 f00d0000 00000000 00000000")
