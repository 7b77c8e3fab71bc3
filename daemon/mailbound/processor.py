"""The processor that the daemon's threads share.

Only one of them runs Python at a time. On several processors each hand-over of the interpreter's lock also moves what
both have in their caches, and that costs more than a second processor brings. What can run beside them, a process that
reads mail, may go where the daemon itself was allowed to.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from pathlib import Path
from typing import NamedTuple

_ALLOWED = frozenset(os.sched_getaffinity(0))
_TASKS = Path("/proc/self/task")
_SCHEDULED = Path("/proc/self/schedstat")  # of the first thread, which has the event loop
_CROWDED = 0.25


class _Spent(NamedTuple):
    """Seconds since the daemon was started."""

    clock: float
    all: float  # that its threads ran
    loop: float  # that its first thread ran
    waited: float  # that its first thread could have run


class Processor:
    """Keeps all threads together. Where the kernel does not allow that, it does nothing."""

    def __init__(self) -> None:
        """Take a processor; threads that are started from now on run there, too."""
        self._number = -1
        self._move()
        self._last = _spent()

    def look(self) -> None:
        """Move to another processor if somebody else crowds this one since the last look."""
        spent, last = _spent(), self._last
        self._last = spent
        lost = (spent.waited - last.waited) - ((spent.all - last.all) - (spent.loop - last.loop))
        if lost > _CROWDED * (spent.clock - last.clock):
            self._move()

    def _move(self) -> None:
        others = sorted(_ALLOWED - {self._number})
        if not others:
            return
        self._number = random.choice(others)
        for task in _TASKS.iterdir():
            _keep(int(task.name), {self._number})


def free(pid: int) -> None:
    """Let another process of ours run wherever the daemon might."""
    _keep(pid, _ALLOWED)


def _keep(pid: int, where: set[int] | frozenset[int]) -> None:
    with contextlib.suppress(OSError):  # it has ended, or a filter of system calls forbids it
        os.sched_setaffinity(pid, where)


def _spent() -> _Spent:
    ran, waited = 0, 0
    with contextlib.suppress(OSError):  # a kernel may have been built without it
        ran, waited, _ = map(int, _SCHEDULED.read_text().split())
    return _Spent(time.monotonic(), time.process_time(), ran / 1e9, waited / 1e9)
