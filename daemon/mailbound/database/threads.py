"""Threads that call one function after another for an event loop, which goes on meanwhile.

An executor of the standard library does the same, with two futures, two conditions and a copied state for each call:
that costs more than a short transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class _Call(NamedTuple):
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]
    function: Callable[[], Any]


class Threads:
    """A few threads that take calls from one queue; none runs before the first call."""

    def __init__(self, count: int, *, name: str) -> None:
        """Start nothing yet."""
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"{name}_{n}") for n in range(count)]
        self._started = 0

    async def call(self, function: Callable[[], T]) -> T:
        """Return what `function` returns on a thread, or raise what it raises.

        If the caller is cancelled before the function began, it is not called.
        """
        if self._started < len(self._threads):
            self._threads[self._started].start()
            self._started += 1
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._calls.put(_Call(loop, answer, function))
        return await answer

    def close(self) -> None:
        """Wait for all calls that were made, and end the threads."""
        for _ in range(self._started):
            self._calls.put(None)
        for thread in self._threads[: self._started]:
            thread.join()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            if not call.answer.cancelled():
                _answer(call)


def _answer(call: _Call) -> None:
    result: Any = None
    failure: BaseException | None = None
    try:
        result = call.function()
    except BaseException as error:  # noqa: BLE001 - it belongs to whoever called
        failure = error
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        call.loop.call_soon_threadsafe(_tell, call.answer, result, failure)


def _tell(answer: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if answer.done():
        return  # cancelled meanwhile
    if failure is None:
        answer.set_result(result)
    else:
        answer.set_exception(failure)
