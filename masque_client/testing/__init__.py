"""A local MASQUE proxy, origin, lossy link and lab for demos and tests. Not for production."""
