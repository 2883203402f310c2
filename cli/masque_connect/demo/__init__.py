"""The demonstration: scenarios on real parts, in network namespaces of their own."""
