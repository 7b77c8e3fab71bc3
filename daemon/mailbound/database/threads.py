"""Threads that call one function after another for an event loop, which goes on meanwhile.

An executor of the standard library does the same, with two futures, two conditions and a copied state for each call:
that costs more than a short transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class _Call(NamedTuple):
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]
    function: Callable[[], Any]


class Threads:
    """A few threads that take calls in their order; none runs before the first call.

    A call goes to the thread that became idle last: its connection's caches, here and on the server, are the warmest.
    """

    def __init__(self, count: int, *, name: str) -> None:
        """Start nothing yet."""
        self._threads = [_Thread(self, f"{name}_{n}") for n in range(count)]
        self._started = 0
        self._lock = threading.Lock()
        self._waiting: deque[_Call] = deque()  # while no thread is idle
        self._idle: list[_Thread] = []

    async def call(self, function: Callable[[], T]) -> T:
        """Return what `function` returns on a thread, or raise what it raises.

        If the caller is cancelled before the function began, it is not called.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._give(_Call(loop, answer, function))
        return await answer

    def close(self) -> None:
        """Wait for all calls that were made, and end the threads."""
        for thread in self._threads[: self._started]:
            thread.calls.put(None)
        for thread in self._threads[: self._started]:
            thread.join()

    def next(self, thread: _Thread) -> _Call | None:
        """Return the next call for a thread, or None and have it idle."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._idle.append(thread)
            return None

    def _give(self, call: _Call) -> None:
        with self._lock:
            if self._idle:
                self._idle.pop().calls.put(call)
            elif self._started < len(self._threads):
                thread = self._threads[self._started]
                self._started += 1
                thread.calls.put(call)
                thread.start()
            else:
                self._waiting.append(call)


class _Thread(threading.Thread):
    """One of them, with what it was given while it was idle; None ends it."""

    def __init__(self, threads: Threads, name: str) -> None:
        super().__init__(name=name)
        self.calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._threads = threads

    def run(self) -> None:
        call = self.calls.get()
        while call is not None:
            tell = _made(call)
            following = self._threads.next(self)  # first: who is told may call again at once
            tell()
            call = following or self.calls.get()


def _made(call: _Call) -> Callable[[], None]:
    """Make a call, unless it was cancelled, and return what tells how it went."""
    result: Any = None
    failure: BaseException | None = None
    if not call.answer.cancelled():
        try:
            result = call.function()
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever called
            failure = error

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            call.loop.call_soon_threadsafe(_tell, call.answer, result, failure)

    return tell


def _tell(answer: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if answer.done():
        return  # cancelled meanwhile
    if failure is None:
        answer.set_result(result)
    else:
        answer.set_exception(failure)
