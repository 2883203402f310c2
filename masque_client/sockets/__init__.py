"""Emulated UDP: local ports whose datagrams travel through CONNECT-UDP."""
