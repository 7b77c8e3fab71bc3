"""One connection to a relay: replies are matched, one by one and in order, with what was asked.

Every command that is written leaves an expectation in a queue; every reply takes the oldest. So commands may
be written in groups (RFC 2920), while no reply can shift to another command: whatever comes unasked, or is no
reply, or comes too late, ends the connection, and everyone still waiting is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from mailbound.model import Phase, Reply
from mailbound.relay import replies

READ_SIZE = 8192
"""Replies are short; asyncio would allocate 256 KiB for each read."""

BLOCK = 65_536
"""How much of a body is written before the relay must have taken most of it."""


_LAST_LOOK_SECONDS = 0.01
"""Before a reply is given up, what has come is read: whoever was suspended looks at the clock before it reads."""


class Asker(Protocol):
    """Who waits for replies. Exactly one of the two is called for each expectation."""

    def answered(self, phase: Phase, reply: Reply) -> None:
        """Take the reply."""

    def lost(self, phase: Phase, why: str) -> None:
        """Learn that no reply will come. The connection is closed already."""


class Expectation(NamedTuple):
    """A reply that is still to come, and how long it may take once it is next in line."""

    phase: Phase
    seconds: float
    asker: Asker


class Connection(asyncio.Protocol):
    """The transport of an open session, with its queue of expectations.

    `closed` tells whether it is over, and then `why`, and `last_words` is the reply that came unasked, if one
    did.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        """Take over `transport` from the protocol that opened the session."""
        self.closed = False
        self.why = ""
        self.last_words: Reply | None = None
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._reader = replies.ReplyReader()
        self._queue: deque[Expectation] = deque()
        self._due = 0.0  # when the head of the queue must have been answered
        self._overdue = False  # it is over, and there is one last look
        self._timer: asyncio.TimerHandle | None = None
        self._when_quiet: Callable[[], None] | None = None  # what waits for the queue to be empty
        self._unsent: list[
            bytes
        ] = []  # what goes out together: a system call costs more than all that leads to it
        self._rest = memoryview(b"")  # of a body that is being poured
        self._poured: Callable[[], None] | None = None  # what waits for its end
        self._block_seconds = 0.0
        self._patience: asyncio.TimerHandle | None = None  # with a relay that does not read it
        self._paused = False
        self._gone = self._loop.create_future()
        transport.set_protocol(self)
        if hasattr(transport, "max_size"):  # only asyncio's plain transport has it
            transport.max_size = READ_SIZE
        with contextlib.suppress(OSError, AttributeError):  # an idle session notices a dead host only by this
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    # What a session does with it

    def expect(self, phase: Phase, seconds: float, asker: Asker) -> None:
        """Expect one more reply, after all those already expected. Call it before writing what it answers."""
        if self.closed:
            asker.lost(phase, self.why)
            return
        self._queue.append(Expectation(phase, seconds, asker))
        if len(self._queue) == 1:
            self._watch()

    def write(self, data: bytes) -> None:
        """Write `data` with all else that is written in this turn of the event loop, unless the connection closes."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(data)

    def pour(self, body: bytes, poured: Callable[[], None], *, seconds: float) -> None:
        """Write `body` as fast as the relay reads it, then call `poured`; call it, too, if the connection ends.

        A block may take `seconds`.
        """
        if len(body) <= BLOCK and not self._paused:
            self.write(body)
            poured()
            return
        self._flush()
        self._rest, self._poured, self._block_seconds = memoryview(body), poured, seconds
        self._pour_on()

    @property
    def is_quiet(self) -> bool:
        """Return True if no reply is expected."""
        return not self._queue

    def when_quiet(self, then: Callable[[], None]) -> None:
        """Call `then` as soon as no reply is expected any more, or the connection is closed. One may wait."""
        if self._queue:
            self._when_quiet = then
        else:
            then()

    async def quiet(self) -> None:
        """Wait until no reply is expected any more, or the connection is closed."""
        reached = self._loop.create_future()
        self.when_quiet(lambda: _wake(reached))
        await reached

    def lose(self, why: str) -> None:
        """End the connection at once, dropping what was not sent yet, and tell everyone who waits."""
        if self.closed:
            return
        self.closed = True
        self.why = why
        self._transport.abort()
        if self._timer:
            self._timer.cancel()
        while self._queue:
            expectation = self._queue.popleft()
            expectation.asker.lost(expectation.phase, why)
        self._end_patience()
        self._end_pouring()
        self._tell_quiet()

    async def finish(self, *, seconds: float) -> None:
        """End the connection in an orderly way, within `seconds`."""
        self._flush()
        if not self.closed:
            self._transport.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await asyncio.shield(self._gone)
        self.lose("closed")

    # What asyncio tells it

    def data_received(self, data: bytes) -> None:
        """Hand out replies; see `asyncio.Protocol`."""
        # A reply in this segment can only answer what was asked before it came, not what its forerunners lead
        # to.
        due = asked = len(self._queue)
        try:
            for reply in self._reader.feed(data):
                if due == 0:
                    self._overhear(reply)
                    return
                due -= 1
                self._answer(reply)
                if self.closed:
                    return
        except replies.Nonsense as error:
            self.lose(str(error))
            return
        if due == 0 and self._reader.partial:
            self.lose("the relay said more than it was asked")
        elif not self._queue:
            self._tell_quiet()
        elif due < asked:
            self._watch()

    def eof_received(self) -> None:
        """Learn that the relay hung up; see `asyncio.Protocol`."""
        self.lose("the relay closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the connection is gone; see `asyncio.Protocol`."""
        _wake(self._gone)
        self.lose(f"the connection broke: {exc}" if exc else "the connection was closed")

    def pause_writing(self) -> None:
        """Learn that the relay reads slower than we write; see `asyncio.Protocol`."""
        self._paused = True

    def resume_writing(self) -> None:
        """Learn that it caught up; see `asyncio.Protocol`."""
        self._paused = False
        if self._patience is not None:
            self._pour_on()

    # How

    def _answer(self, reply: Reply) -> None:
        expectation = self._queue.popleft()
        expectation.asker.answered(expectation.phase, reply)

    def _overhear(self, reply: Reply) -> None:
        """End the connection for a reply to nothing; often it is a 421 before the relay hangs up."""
        self.last_words = reply
        self.lose(f"the relay said, unasked, {reply}")

    def _flush(self) -> None:
        if self._unsent and not self.closed:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def _pour_on(self) -> None:
        self._end_patience()
        while self._rest and not self._paused and not self.closed:
            self._transport.write(self._rest[:BLOCK])
            self._rest = self._rest[BLOCK:]
        if self._paused and not self.closed:
            why = f"the relay read nothing for {self._block_seconds:g} s"
            self._patience = self._loop.call_later(self._block_seconds, self.lose, why)
        else:
            self._end_pouring()

    def _end_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _end_pouring(self) -> None:
        self._rest = memoryview(b"")
        poured, self._poured = self._poured, None
        if poured is not None:
            poured()

    def _tell_quiet(self) -> None:
        then, self._when_quiet = self._when_quiet, None
        if then is not None:
            then()

    def _watch(self) -> None:
        """Give the head of the queue its time. One timer serves all: it fires rarely and then looks again."""
        self._due = self._loop.time() + self._queue[0].seconds
        self._overdue = False
        if self._timer is None or self._timer.when() > self._due:
            if self._timer:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._due, self._check)

    def _check(self) -> None:
        self._timer = None
        if not self._queue:
            return
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._check)
        elif not self._overdue:
            self._overdue = True
            self._timer = self._loop.call_later(_LAST_LOOK_SECONDS, self._check)
        else:
            self.lose(f"no reply within {self._queue[0].seconds:g} s")


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter and not waiter.done():
        waiter.set_result(None)
