"""The offload kernel in Python: the twin of `_compiled`, for installations without a compiler.

Same names, same bytes out; the property tests hold the two against each other. Described in the package's docstring.
"""

from __future__ import annotations

from masque_client.netio.offload.python_coalesce import coalesce
from masque_client.netio.offload.python_segment import segment

__all__ = ["coalesce", "segment"]
