"""Reading in a process of its own: a mail that hangs or kills its reader harms nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import gc
import multiprocessing
import pickle
import resource
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

from mailbound import classify, packing, processor, reading, tokens
from mailbound.bounds import MEMORY_OCTETS, SECONDS, Unreadable
from mailbound.inbound import findings
from mailbound.inbound.findings import Arrived, Said
from mailbound.packing import Packed
from mailbound.reading import Report
from mailbound.reading.structure import SIZE_LIMIT

_START_SECONDS = 30.0
_TOGETHER = 400
_TOGETHER_OCTETS = 524_288  # of compressed mail
_PIPE_OCTETS = 1_048_576  # what Linux grants anybody
_HEADER_OCTETS = 16  # before each message
_GARBAGE = 10_000
"""After so many new objects Python looks whether some only hold each other, as hardly any of a mail do."""


Outcome = Said | Unreadable
Mail = tuple[Packed, Arrived]
"""A mail as it is kept, and where it came from."""

Keys = Mapping[int, tokens.Key]


class _Question:
    """Some mails for the worker."""

    def __init__(self, mails: Sequence[Mail], keys: Keys) -> None:
        self.mails = mails
        self.keys = keys

    @functools.cached_property
    def pickled(self) -> bytes:
        return pickle.dumps((self.mails, self.keys), pickle.HIGHEST_PROTOCOL)


class Reader:
    """A worker process that reads mail, and is replaced when a mail kills it."""

    def __init__(self, *, seconds: float = SECONDS, read: Callable[[bytes], Report] = reading.read) -> None:
        """Start nothing yet. `seconds` is how long one mail may take; `read` is what the worker does with it."""
        self._seconds = seconds
        self._read_one = read
        self._worker: _Worker | None = None
        self._waiting: deque[_Question] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")

    async def read_all(self, mails: Sequence[Mail], keys: Keys) -> list[Outcome]:
        """Return what each of many mails says, or why it cannot be read; `keys` tell which tokens are ours."""
        questions = [_Question(some, keys) for some in _chunks(mails)]
        self._waiting.extend(questions)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read_all, questions)

    def close(self) -> None:
        """End the worker."""
        self._thread.shutdown()
        self._end()

    def _read_all(self, questions: Sequence[_Question]) -> list[Outcome]:
        return [outcome for each in questions for outcome in self._read_some(each, self._after(each))]

    def _after(self, question: _Question) -> _Question | None:
        """Return what waits behind a question. What waited before it is not wanted any more."""
        while self._waiting.popleft() is not question:
            pass
        return self._waiting[0] if self._waiting else None

    def _read_some(self, question: _Question, following: _Question | None = None) -> list[Outcome]:
        """Read some mails by one message. If that goes wrong, each is read alone, to know by which of them."""
        told = self._ask(question, following)
        if isinstance(told, list):
            return told
        if len(question.mails) == 1:
            return [Unreadable(f"reading it failed: {told}")]
        alone = (_Question([mail], question.keys) for mail in question.mails)
        return [outcome for each in alone for outcome in self._read_some(each)]

    def _ask(self, question: _Question, following: _Question | None) -> list[Outcome] | str:
        """Return what the worker answers, or what is wrong with it, which is its end.

        What follows is sent at once, too: to come back for it takes as long as the daemon is busy, and the worker would
        be idle.
        """
        try:
            worker = self._ready_for(question)
            worker.send(question)
            if following is not None:
                worker.send_ahead(following)
            if not worker.answers.poll(self._seconds):
                told: list[Outcome] | str = f"it took longer than {self._seconds:g} s"
            elif isinstance(told := worker.answers.recv(), list):
                worker.asked.popleft()
                return told
        except (EOFError, OSError):
            told = "it killed the reader"
        self._end()
        return told

    def _ready_for(self, question: _Question) -> _Worker:
        """Return a worker that answers this question next. Raises OSError or EOFError if there can be none."""
        worker = self._worker
        if (
            worker is None
            or not worker.process.is_alive()
            or (worker.asked and worker.asked[0] is not question)
        ):
            self._end()
            self._worker = worker = _Worker(self._read_one)
            worker.await_ready()
        return worker

    def _end(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()


class _Worker:
    """The process, and the ways to it and back."""

    def __init__(self, read: Callable[[bytes], Report]) -> None:
        """Start it."""
        context = multiprocessing.get_context("spawn")
        theirs, self._questions = context.Pipe(duplex=False)
        self.answers, back = context.Pipe(duplex=False)
        self._room = _widened(self._questions)
        _widened(back)
        self.asked: deque[_Question] = deque()  # and not answered
        self.process = context.Process(
            target=_serve, args=(theirs, back, read), daemon=True, name="mailbound-reader"
        )
        with theirs, back:
            self.process.start()
        if self.process.pid is not None:  # as it is once started
            processor.free(self.process.pid)

    def await_ready(self) -> None:
        """Return when it can read. Raises EOFError if it cannot."""
        if not self.answers.poll(_START_SECONDS):
            raise EOFError
        self.answers.recv()

    def send(self, question: _Question) -> None:
        """Ask, unless that was done ahead."""
        if question not in self.asked:
            self._questions.send_bytes(question.pickled)
            self.asked.append(question)

    def send_ahead(self, question: _Question) -> None:
        """Ask if the pipe can hold it: the worker may wait for us to take an answer, so we must not wait for it."""
        if len(question.pickled) + _HEADER_OCTETS <= self._room:
            self.send(question)

    def end(self) -> None:
        """Kill it, whatever it does."""
        self.process.kill()
        self.process.join()
        self._questions.close()
        self.answers.close()


def _widened(pipe: Connection) -> int:
    """Make a pipe as large as it may be; return how many octets it holds."""
    with contextlib.suppress(OSError):  # this user has too many of them
        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_OCTETS)
    return fcntl.fcntl(pipe.fileno(), fcntl.F_GETPIPE_SZ)


def _chunks(mails: Sequence[Mail]) -> Iterator[Sequence[Mail]]:
    """Yield the mails in order, few enough at once. A pack goes once with all its mails that follow each other."""
    some: list[Mail] = []
    octets = 0
    for mail in mails:
        is_alike = some and mail[0].pack is some[-1][0].pack
        size = 0 if is_alike else len(mail[0].pack)
        if some and (len(some) == _TOGETHER or octets + size > _TOGETHER_OCTETS):
            yield some
            some, octets = [], 0
        some.append(mail)
        octets += size
    if some:
        yield some


def _serve(questions: Connection, answers: Connection, read: Callable[[bytes], Report]) -> None:
    """Read mail until nobody asks any more."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_OCTETS, MEMORY_OCTETS))
    classify.rules()
    gc.freeze()  # what is there now stays, and need not be looked through again
    gc.set_threshold(_GARBAGE)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        answers.send("ready")
        while True:
            mails, keys = questions.recv()
            try:
                answers.send(list(said(read, mails, keys)))
            except (MemoryError, RecursionError) as error:
                answers.send(type(error).__name__)


def said(read: Callable[[bytes], Report], mails: Sequence[Mail], keys: Keys) -> Iterator[Said]:
    """Yield what each mail says, read by `read`."""
    rules = classify.rules()
    octets = packing.heads((packed for packed, _ in mails), most=SIZE_LIMIT)
    for (_, arrived), raw in zip(mails, octets, strict=True):
        yield findings.understand(read(raw), arrived, keys=keys, rules=rules)
