"""The one writer of outcomes and marks: what its connections hand over meanwhile goes into one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from mailbound.config import Policy
from mailbound.database import outcomes
from mailbound.database.bounces import Recorded
from mailbound.database.engine import Database
from mailbound.database.outcomes import Committed, Ended
from mailbound.errors import DatabaseError, InvalidTransition

_RETRY_SECONDS = 1.0
_LARGEST = 500
_LINGER_SECONDS = 0.001
"""How long the writer waits for company: a commit for ten connections costs little more than for one."""

Granted = Callable[[bool], None]
"""Told whether the final dot of a delivery may go out."""


@dataclass(frozen=True, slots=True)
class _Mark:
    delivery_id: int
    granted: Granted


class Writer:
    """Group commit for the connections of one store.

    What is handed over first is durable first, so a connection that hands over an outcome and then asks for its next
    mark has the outcome durable when the mark is granted: a crash leaves at most one delivery a connection in doubt.
    """

    def __init__(
        self,
        database: Database,
        *,
        node_id: int,
        store_id: int,
        limits: Policy,
        clock: Callable[[], datetime],
        recorded: Callable[[int, Recorded], None],
        company: int,
    ) -> None:
        """Write nothing yet.

        `recorded` is called with the delivery of every bounce once it is durable. With a `company` of outcomes and
        marks waiting, as many as come from all connections at once, the writer lingers no longer.
        """
        self._database = database
        self._node_id = node_id
        self._store_id = store_id
        self._limits = limits
        self._clock = clock
        self._recorded = recorded
        self._company = company
        self._ended: list[Ended] = []
        self._marks: list[_Mark] = []
        self._work = asyncio.Event()
        self._crowded: asyncio.Future[None] | None = None  # while it lingers: everyone is here
        self._idle = asyncio.Event()
        self._idle.set()

    def settle(self, ended: Ended) -> None:
        """Hand over an outcome. It is durable before any mark that is asked for later."""
        self._ended.append(ended)
        self._wake()

    def mark(self, delivery_id: int, granted: Granted) -> None:
        """Tell `granted` whether the final dot of a delivery may go out; its mark is durable then."""
        self._marks.append(_Mark(delivery_id, granted))
        self._wake()

    async def flush(self) -> None:
        """Wait until everything handed over is durable."""
        await self._idle.wait()

    async def run(self) -> None:
        """Commit what is handed over, for ever. While the database cannot write, no mark is granted."""
        while True:
            await self._work.wait()
            await self._linger()
            ended, self._ended = self._ended[:_LARGEST], self._ended[_LARGEST:]
            # A mark may overtake no outcome: with some left over, the marks wait for the next commit.
            marks, self._marks = ([], self._marks) if self._ended else (self._marks, [])
            await self._commit(ended, marks)
            if not self._ended and not self._marks:
                self._work.clear()
                self._idle.set()

    async def _linger(self) -> None:
        """Wait a moment, unless everyone is here who can come."""
        if len(self._ended) + len(self._marks) >= self._company:
            return
        loop = asyncio.get_running_loop()
        self._crowded = loop.create_future()
        late = loop.call_later(_LINGER_SECONDS, self._crowd)
        try:
            await self._crowded
        finally:
            late.cancel()
            self._crowded = None

    def _crowd(self) -> None:
        if self._crowded is not None and not self._crowded.done():
            self._crowded.set_result(None)

    async def _commit(self, ended: list[Ended], marks: list[_Mark]) -> None:
        while True:
            try:
                committed = await outcomes.write(
                    self._database,
                    ended,
                    [mark.delivery_id for mark in marks],
                    node_id=self._node_id,
                    store_id=self._store_id,
                    limits=self._limits,
                    now=self._clock(),
                )
            except InvalidTransition:
                raise  # a bug, which trying again would only hide; what is in doubt is recovered at the next start
            except DatabaseError:
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self._announce(committed, marks)
                return

    def _announce(self, committed: Committed, marks: list[_Mark]) -> None:
        for mark in marks:
            mark.granted(mark.delivery_id in committed.marked)
        for delivery_id, recorded in committed.recorded.items():
            self._recorded(delivery_id, recorded)

    def _wake(self) -> None:
        self._idle.clear()
        self._work.set()
        if self._crowded is not None and len(self._ended) + len(self._marks) >= self._company:
            self._crowd()
