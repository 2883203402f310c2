"""What a process has used so far, by the kernel's account (proc_pid_stat(5), proc_pid_status(5))."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_seconds(process_id: int) -> float:
    """User and system time of all its threads, those that ended included; in steps of 10 ms usually.

    Raises:
        OSError: there is no such process.
    """
    stat = Path(f"/proc/{process_id}/stat").read_text()
    fields = stat[stat.rindex(")") + 2 :].split()  # the name in parentheses may hold anything
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def memory_mib(process_id: int) -> tuple[float, float]:
    """Resident memory now, and at its peak, in MiB.

    Raises:
        OSError: there is no such process.
    """
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    kib = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if name in _MEMORY}
    return kib["VmRSS"] / 1024, kib["VmHWM"] / 1024


def is_listening(process_id: int, port: int) -> bool:
    """Whether anybody listens on a TCP port in the network namespace of this process."""
    wanted = f":{port:04X}"
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process_id}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if local.endswith(wanted) and state == _LISTEN:
                return True
    return False


_MEMORY = {"VmRSS", "VmHWM"}
_LISTEN = "0A"
