"""One file per command: arguments in, a library call, data to `render`."""
