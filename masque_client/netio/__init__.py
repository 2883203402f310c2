"""Descriptors and sockets: UDP with GSO and GRO, TUN in batches, the clock."""
