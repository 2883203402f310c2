"""The wire formats, sans-IO: bytes and `now` in, values and events out. Imports nothing but `errors`."""
