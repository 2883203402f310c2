"""The benchmark: our client and its peers, measured in one set of namespaces on one machine. See `scripts/bench`."""
