"""masque_client: MASQUE tunnels for Linux, as a library. The command line in `cli/` is one of its users."""
