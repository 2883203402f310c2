"""The packet's road between a TUN device and a CONNECT-IP session."""
