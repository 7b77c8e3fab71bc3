"""Reading in a process of its own: a mail that hangs or kills its reader harms nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import resource
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from mailbound import reading
from mailbound.inbound.bounds import MEMORY_OCTETS, SECONDS, Unreadable
from mailbound.reading import Report

_START_SECONDS = 30.0


class Reader:
    """A worker process that reads one mail after another, and is replaced when one of them kills it."""

    def __init__(self, *, seconds: float = SECONDS) -> None:
        """Start nothing yet. `seconds` is how long one mail may take."""
        self._seconds = seconds
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")

    async def read(self, content: bytes) -> Report:
        """Return what a mail says. Raises Unreadable if it is more than the worker can bear."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, content)

    def close(self) -> None:
        """End the worker."""
        self._thread.shutdown()
        self._end()

    def _read(self, content: bytes) -> Report:
        pipe, patience = self._worker()
        try:
            pipe.send_bytes(content)
            report = pipe.recv() if pipe.poll(patience) else f"it took longer than {self._seconds:g} s"
        except (EOFError, OSError):
            report = "it killed the reader"
        if not isinstance(report, Report):
            self._end()
            raise Unreadable(f"reading it failed: {report}")
        return report

    def _worker(self) -> tuple[Connection, float]:
        if self._process is not None and self._pipe is not None and self._process.is_alive():
            return self._pipe, self._seconds
        self._end()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True, name="mailbound-reader")
        try:
            process.start()
        except OSError as error:  # no memory or no process to be had
            raise Unreadable(f"the reader cannot be started: {error.strerror}") from None
        finally:
            theirs.close()
        self._process = process
        return self._pipe, self._seconds + _START_SECONDS

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def _serve(pipe: Connection) -> None:
    """Read mail from the pipe until it closes."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_OCTETS, MEMORY_OCTETS))
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            content = pipe.recv_bytes()
            try:
                pipe.send(reading.read(content))
            except (MemoryError, RecursionError) as error:
                pipe.send(type(error).__name__)
