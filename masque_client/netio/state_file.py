"""Small files of our own between runs: written all or nothing, and read only if nobody else can have written them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def read_state(path: Path, max_bytes: int) -> bytes:
    """A file that only we can have written; a link, or a file open to others, is refused.

    Raises:
        OSError: it cannot be read, or is a link.
        ValueError: others may read or write it, or it is larger than `max_bytes`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise ValueError("a file that others may read or write")
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError("a file larger than any of ours")
    return data


def write_state(path: Path, data: bytes) -> None:
    """Mode 0600 in a directory of mode 0700; a reader sees the old content or the new.

    Raises:
        OSError: it cannot be written; the old content stays.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # mkstemp gives mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
