"""--version says what this installation can do."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest


@pytest.mark.parametrize("pure", ["0", "1"])
def test_it_names_engines_and_offload_kernel(pure: str) -> None:
    command = (sys.executable, "-m", "masque_connect.main", "--version")
    outcome = subprocess.run(command, capture_output=True, text=True, check=True, env={"MASQUE_PURE_PYTHON": pure})
    compiled = pure == "0" and find_spec("masque_client.netio.offload._compiled") is not None
    assert outcome.stdout.startswith("masque-connect ")
    assert "aioquic" in outcome.stdout
    assert outcome.stdout.endswith(f"offload: {'compiled' if compiled else 'off, python'})\n")
