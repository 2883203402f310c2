"""What the figures were measured on, and whether it is quiet enough to measure."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.interop.programs import GO_SOURCES

QUIET_LOAD_PER_CPU = 0.5
_GO_MODULES = {
    "connectip": ("github.com/quic-go/connect-ip-go", "github.com/quic-go/quic-go"),
    "masque": ("github.com/quic-go/masque-go",),
    "wireguard": ("golang.zx2c4.com/wireguard",),
}


def describe() -> dict[str, str | int]:
    """The machine: CPU model, cores, memory, kernel."""
    memory_kib = int(_field(Path("/proc/meminfo"), "MemTotal").split()[0])
    return {
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_kib / 2**20),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "Linux"),
    }


def versions() -> dict[str, str]:
    """The programs and libraries that were measured; missing ones are left out."""
    found = {"python": platform.python_version()}
    for package in ("masque-connect", "aioquic", "qh3"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["commit"] = _first_line("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
    found["go"] = _first_line("go", "env", "GOVERSION").removeprefix("go")
    found["iperf3"] = _first_line("iperf3", "--version").removeprefix("iperf ").partition(" ")[0]
    for directory, modules in _GO_MODULES.items():
        for module in modules:
            found[f"{module} ({directory})" if module.endswith("/quic-go") else module] = _pinned(directory, module)
    return {name: text for name, text in found.items() if text}


def busy_reason() -> str | None:
    """Why measuring now would show the neighbours' work, as a sentence; None on a quiet machine."""
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load <= QUIET_LOAD_PER_CPU * cores:
        return None
    return f"the machine is busy: load average {load:.2f} on {cores} cores, more than {QUIET_LOAD_PER_CPU * cores:g}"


def _field(file: Path, name: str) -> str:
    for line in file.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _first_line(*command: str) -> str:
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    except OSError:
        return ""
    return output.partition("\n")[0].strip()


def _pinned(directory: str, module: str) -> str:
    file = GO_SOURCES / directory / "go.mod"
    for line in file.read_text().splitlines() if file.exists() else ():
        words = line.removeprefix("require").split()
        if words[:1] == [module]:
            return words[1]
    return ""
