"""The operating system behind one desired-state interface."""
