"""Files that hold secrets: read only when nobody else may."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from masque_client.errors import ConfigurationError

MAX_BYTES = 64 * 1024
"""No secret of ours is longer; a mistyped path may lead to something endless."""


def read_secret(file: Path) -> str:
    """The text of a file of the user's that holds secrets.

    Raises:
        ConfigurationError: unreadable, too long, or open to others. The message shows nothing of the content.
    """
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode  # of what is read, whatever the path leads to by now
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}", hint="check the path and its mode") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(f"{file} may be read by others", hint=f"chmod 600 {file}")
    if len(content) > MAX_BYTES:
        raise ConfigurationError(f"{file} is longer than any secret", hint="check the path")
    return content.decode(errors="replace")
