"""The offload kernel in Python: the twin of `_compiled`, for installations without a compiler.

Same names, same bytes out; the property tests hold the two against each other. Described in the package's docstring.
"""

from __future__ import annotations

from masque_client.netio.offload.python_coalesce import coalesce
from masque_client.netio.offload.python_segment import measure, segment
from masque_client.netio.offload.python_tun_io import read_buffers, write_buffers
from masque_client.netio.offload.python_udp_io import receive_trains, send_trains

__all__ = ["coalesce", "measure", "read_buffers", "receive_trains", "segment", "send_trains", "write_buffers"]
