"""The processor that the daemon's threads share.

Only one of them runs Python at a time. On several processors each hand-over of the interpreter's lock also moves what
both have in their caches, and that costs more than a second processor brings. What can run beside them, a process that
reads mail, may go where the daemon itself was allowed to.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
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
        """Take a processor that no other daemon of this host has; threads started from now on run there, too."""
        self._number = -1
        self._reservation: socket.socket | None = None
        self._move()
        self._last = _spent()

    def look(self) -> None:
        """Move to another processor if somebody else crowds this one since the last look."""
        spent, last = _spent(), self._last
        self._last = spent
        lost = (spent.waited - last.waited) - ((spent.all - last.all) - (spent.loop - last.loop))
        if lost > _CROWDED * (spent.clock - last.clock):
            self._move()

    def close(self) -> None:
        """Leave the processor to another daemon."""
        if self._reservation is not None:
            self._reservation.close()

    def _move(self) -> None:
        others = sorted(_ALLOWED - {self._number})
        if not others:
            return
        random.shuffle(others)
        self._number, reservation = next(filter(_is_free, map(_reserve, others)), (others[0], None))
        self.close()
        self._reservation = reservation
        for task in _TASKS.iterdir():
            _keep(int(task.name), {self._number})


def _reserve(number: int) -> tuple[int, socket.socket | None]:
    """Return a processor with what reserves it as long as it is open, or None if another daemon has it."""
    reservation = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        reservation.bind(
            f"\0mailbound/processor/{number}"
        )  # a name without a file, which ends with its process
    except OSError:
        reservation.close()
        return number, None
    return number, reservation


def _is_free(reserved: tuple[int, socket.socket | None]) -> bool:
    return reserved[1] is not None


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
