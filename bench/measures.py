"""What every measurement here needs: the clocks of another process, and waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_SECONDS = 7200.0
"""How long a measurement may take before it is given up."""


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, user and system, all threads, those that ended too."""
    return time.clock_gettime((~pid << 3) | 2)  # what clock_getcpuclockid(3) makes of a process


def family_cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and of all that came of it and live."""
    return cpu_seconds(pid) + sum(family_cpu_seconds(child) for child in children(pid))


def peak_mib(pid: int) -> float:
    """Return the most memory that a process had resident so far, in MiB."""
    return _status_kib(pid, "VmHWM") / 1024


def resident_mib(pid: int) -> float:
    """Return the memory that a process has resident now, in MiB."""
    return _status_kib(pid, "VmRSS") / 1024


def wait(condition: Callable[[], bool], what: str, *, every: float = 0.02) -> None:
    """Return once `condition` holds. Raises TimeoutError if it does not come to that."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(every)


def children(pid: int) -> list[int]:
    """Return the processes that a process started and that live."""
    names = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for name in names for child in name.split()]


def _status_kib(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
