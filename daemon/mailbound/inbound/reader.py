"""Reading in a process of its own: a mail that hangs or kills its reader harms nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import resource
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from mailbound import processor, reading
from mailbound.bounds import MEMORY_OCTETS, SECONDS, Unreadable
from mailbound.reading import Report
from mailbound.reading.structure import SIZE_LIMIT

_START_SECONDS = 30.0
_TOGETHER = 50
_TOGETHER_OCTETS = 262_144  # of compressed mail


Outcome = Report | Unreadable


class Reader:
    """A worker process that reads mail, and is replaced when a mail kills it."""

    def __init__(self, *, seconds: float = SECONDS, read: Callable[[bytes], Report] = reading.read) -> None:
        """Start nothing yet. `seconds` is how long one mail may take; `read` is what the worker does with it."""
        self._seconds = seconds
        self._read_one = read
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")

    async def read(self, content: bytes) -> Report:
        """Return what a mail says. Raises Unreadable if it is more than the worker can bear."""
        (outcome,) = await self.read_all([zlib.compress(content)])
        if isinstance(outcome, Unreadable):
            raise outcome
        return outcome

    async def read_all(self, packed: Sequence[bytes]) -> list[Outcome]:
        """Return what each of many compressed mails says, or why it cannot be read."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read_all, packed)

    def close(self) -> None:
        """End the worker."""
        self._thread.shutdown()
        self._end()

    def _read_all(self, packed: Sequence[bytes]) -> list[Outcome]:
        return [outcome for some in _chunks(packed) for outcome in self._read_some(some)]

    def _read_some(self, packed: Sequence[bytes]) -> list[Outcome]:
        """Read some mails by one message. If that goes wrong, each is read alone, to know by which of them."""
        told = self._ask(packed)
        if isinstance(told, list):
            return told
        if len(packed) == 1:
            return [Unreadable(f"reading it failed: {told}")]
        return [outcome for one in packed for outcome in self._read_some([one])]

    def _ask(self, packed: Sequence[bytes]) -> list[Outcome] | str:
        """Return what the worker answers, or what is wrong with it, which is its end."""
        try:
            pipe = self._worker()
            pipe.send(packed)
            if pipe.poll(self._seconds):
                answer: list[Outcome] | str = pipe.recv()
                if isinstance(answer, list):
                    return answer
            else:
                answer = f"it took longer than {self._seconds:g} s"
        except (EOFError, OSError):
            answer = "it killed the reader"
        self._end()
        return answer

    def _worker(self) -> Connection:
        """Return the way to a worker that is ready. Raises OSError or EOFError if there can be none."""
        if self._process is not None and self._pipe is not None and self._process.is_alive():
            return self._pipe
        self._end()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, self._read_one), daemon=True, name="mailbound-reader"
        )
        with theirs:
            process.start()
        processor.free(process.pid or 0)
        self._process = process
        if not self._pipe.poll(_START_SECONDS):
            raise EOFError
        self._pipe.recv()
        return self._pipe

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def _chunks(packed: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Yield the mails in order, few enough at once."""
    some: list[bytes] = []
    octets = 0
    for one in packed:
        if some and (len(some) == _TOGETHER or octets + len(one) > _TOGETHER_OCTETS):
            yield some
            some, octets = [], 0
        some.append(one)
        octets += len(one)
    if some:
        yield some


def _serve(pipe: Connection, read: Callable[[bytes], Report]) -> None:
    """Read mail from the pipe until it closes."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_OCTETS, MEMORY_OCTETS))
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        pipe.send("ready")
        while True:
            packed = pipe.recv()
            try:
                pipe.send([read(zlib.decompressobj().decompress(one, SIZE_LIMIT)) for one in packed])
            except (MemoryError, RecursionError) as error:
                pipe.send(type(error).__name__)
