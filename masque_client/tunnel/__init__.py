"""A tunnel's life: discovery, connecting, configuring the host, forwarding, undoing it all."""
