"""What a command imports before it knows what to do."""

from __future__ import annotations

import subprocess
import sys


def test_aioquic_waits_until_it_is_the_engine() -> None:
    """dnspython would import it, and it costs a sixth of the time until a command starts."""
    program = (
        "import sys; from masque_connect.main import build_parser; build_parser();"
        "import masque_client.tunnel.manager;"
        "print('dns.asyncresolver' in sys.modules, 'aioquic.quic.connection' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.split() == ["True", "False"]
