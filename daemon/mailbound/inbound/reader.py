"""Reading in a process of its own: a mail that hangs or kills its reader harms nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import resource
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from mailbound import classify, processor, reading, tokens
from mailbound.bounds import MEMORY_OCTETS, SECONDS, Unreadable
from mailbound.inbound import findings
from mailbound.inbound.findings import Arrived, Said
from mailbound.reading import Report
from mailbound.reading.structure import SIZE_LIMIT

_START_SECONDS = 30.0
_TOGETHER = 400
_TOGETHER_OCTETS = 524_288  # of compressed mail


Outcome = Said | Unreadable
Packed = tuple[bytes, Arrived]
"""A compressed mail, and where it came from."""

Keys = Mapping[int, tokens.Key]
_Asked = tuple[Sequence[Packed], Keys]


class Reader:
    """A worker process that reads mail, and is replaced when a mail kills it."""

    def __init__(self, *, seconds: float = SECONDS, read: Callable[[bytes], Report] = reading.read) -> None:
        """Start nothing yet. `seconds` is how long one mail may take; `read` is what the worker does with it."""
        self._seconds = seconds
        self._read_one = read
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")

    async def read_all(self, mails: Sequence[Packed], keys: Keys) -> list[Outcome]:
        """Return what each of many mails says, or why it cannot be read; `keys` tell which tokens are ours."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read_all, mails, keys)

    def close(self) -> None:
        """End the worker."""
        self._thread.shutdown()
        self._end()

    def _read_all(self, mails: Sequence[Packed], keys: Keys) -> list[Outcome]:
        return [outcome for some in _chunks(mails) for outcome in self._read_some(some, keys)]

    def _read_some(self, mails: Sequence[Packed], keys: Keys) -> list[Outcome]:
        """Read some mails by one message. If that goes wrong, each is read alone, to know by which of them."""
        told = self._ask((mails, keys))
        if isinstance(told, list):
            return told
        if len(mails) == 1:
            return [Unreadable(f"reading it failed: {told}")]
        return [outcome for one in mails for outcome in self._read_some([one], keys)]

    def _ask(self, asked: _Asked) -> list[Outcome] | str:
        """Return what the worker answers, or what is wrong with it, which is its end."""
        try:
            pipe = self._worker()
            pipe.send(asked)
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


def _chunks(mails: Sequence[Packed]) -> Iterator[Sequence[Packed]]:
    """Yield the mails in order, few enough at once."""
    some: list[Packed] = []
    octets = 0
    for mail in mails:
        size = len(mail[0])
        if some and (len(some) == _TOGETHER or octets + size > _TOGETHER_OCTETS):
            yield some
            some, octets = [], 0
        some.append(mail)
        octets += size
    if some:
        yield some


def _serve(pipe: Connection, read: Callable[[bytes], Report]) -> None:
    """Read mail from the pipe until it closes."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_OCTETS, MEMORY_OCTETS))
    classify.rules()
    gc.freeze()  # what is there now stays, and need not be looked through again
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        pipe.send("ready")
        while True:
            mails, keys = pipe.recv()
            try:
                pipe.send([said(read, mail, keys) for mail in mails])
            except (MemoryError, RecursionError) as error:
                pipe.send(type(error).__name__)


def said(read: Callable[[bytes], Report], mail: Packed, keys: Keys) -> Said:
    """Return what a mail says, read by `read`."""
    packed, arrived = mail
    report = read(zlib.decompressobj().decompress(packed, SIZE_LIMIT))
    return findings.understand(report, arrived, keys=keys, rules=classify.rules())
