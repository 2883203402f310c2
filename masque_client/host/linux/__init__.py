"""Linux: links, addresses, routes and rules through netlink."""
