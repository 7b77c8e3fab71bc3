"""A daemon watched while it works, by py-spy."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path


def watch(pid: int, profile: Path | None) -> subprocess.Popen[bytes] | None:
    """Write a profile of the threads that hold the interpreter lock until `end`; None if no profile is wanted.

    Only who holds the lock is sampled: it is what the threads compete for, and the others mostly wait.
    """
    if profile is None:
        return None
    form = "flamegraph" if profile.suffix == ".svg" else "speedscope"
    command = ["record", "--gil", "--pid", str(pid), "--output", str(profile), "--format", form]
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("py-spy")), *command, "--rate", "100"], stdout=sys.stderr
    )


def end(watching: subprocess.Popen[bytes] | None) -> None:
    """Let the profile be written."""
    if watching is not None:
        watching.send_signal(signal.SIGINT)
        watching.wait()
