"""The syncs of a daemon on SQLite: counted, and made slower, by a library that is loaded before libc."""

from __future__ import annotations

import shutil
import struct
import subprocess
from functools import cache
from pathlib import Path

BUILD = Path(__file__).parents[1] / "build" / "bench"

_SOURCE = Path(__file__).with_name("slow_sync.c")
_COUNT = struct.Struct("=Q")


def environment(folder: Path, *, delay_ms: float = 0.0) -> dict[str, str]:
    """Return what a program must find in its environment; {} where there is no C compiler and no delay is wanted."""
    if shutil.which("cc") is None and not delay_ms:
        return {}
    tally = folder / "syncs"
    tally.write_bytes(bytes(_COUNT.size))
    return {
        "LD_PRELOAD": str(_library()),
        "SYNC_DELAY_US": str(round(delay_ms * 1e3)),
        "SYNC_TALLY": str(tally),
    }


def count(folder: Path) -> int:
    """Return how many syncs there were since `environment` was asked; 0 where they are not counted."""
    tally = folder / "syncs"
    return int(_COUNT.unpack(tally.read_bytes())[0]) if tally.exists() else 0


@cache
def _library() -> Path:
    BUILD.mkdir(parents=True, exist_ok=True)
    made = BUILD / "slow_sync.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(made), str(_SOURCE), "-ldl"], check=True)
    return made
