"""Bytes on the wire, per clause: what any correct implementation sends, accepts and refuses."""
