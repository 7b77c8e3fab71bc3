"""The one writer of outcomes and marks: what its connections hand over meanwhile goes into one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from mailbound.config import Policy
from mailbound.database import outcomes
from mailbound.database.bounces import Recorded
from mailbound.database.engine import Database
from mailbound.database.outcomes import Committed, Ended
from mailbound.errors import DatabaseError, InvalidTransition

log = structlog.get_logger()

_RETRY_SECONDS = 1.0
_LARGEST = 500
_LINGER_SECONDS = 0.001
"""How long the writer waits for company: a commit for ten connections costs little more than for one."""


@dataclass(slots=True)
class _Mark:
    delivery_id: int
    granted: asyncio.Future[bool]


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
        recorded: Callable[[Ended, Recorded | None], None],
    ) -> None:
        """Write nothing yet. `recorded` is called for every outcome once it is durable."""
        self._database = database
        self._node_id = node_id
        self._store_id = store_id
        self._limits = limits
        self._clock = clock
        self._recorded = recorded
        self._ended: list[Ended] = []
        self._marks: list[_Mark] = []
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def settle(self, ended: Ended) -> None:
        """Hand over an outcome. It is durable before any mark that is asked for later."""
        self._ended.append(ended)
        self._wake()

    async def mark(self, delivery_id: int) -> bool:
        """Return whether the final dot of a delivery may go out; its mark is durable then."""
        mark = _Mark(delivery_id, asyncio.get_running_loop().create_future())
        self._marks.append(mark)
        self._wake()
        return await mark.granted

    async def flush(self) -> None:
        """Wait until everything handed over is durable."""
        await self._idle.wait()

    async def run(self) -> None:
        """Commit what is handed over, for ever. While the database cannot write, no mark is granted."""
        while True:
            await self._work.wait()
            self._work.clear()
            await asyncio.sleep(_LINGER_SECONDS)
            while self._ended or self._marks:
                ended, self._ended = self._ended[:_LARGEST], self._ended[_LARGEST:]
                # A mark may overtake no outcome: with some left over, the marks wait for the next commit.
                marks, self._marks = ([], self._marks) if self._ended else (self._marks, [])
                await self._commit(ended, marks)
            self._idle.set()

    async def _commit(self, ended: list[Ended], marks: list[_Mark]) -> None:
        while True:
            ids = [mark.delivery_id for mark in marks if not mark.granted.done()]
            try:
                committed = await self._database.run(
                    outcomes.commit,
                    ended,
                    ids,
                    node_id=self._node_id,
                    store_id=self._store_id,
                    limits=self._limits,
                    now=self._clock(),
                )
            except InvalidTransition:
                raise  # a bug, which trying again would only hide; what is in doubt is recovered at the next start
            except DatabaseError as error:
                log.error("database.failed", why=str(error), outcomes=len(ended), marks=len(ids))
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self._announce(committed, ended, marks)
                return

    def _announce(self, committed: Committed, ended: list[Ended], marks: list[_Mark]) -> None:
        for mark in marks:
            if not mark.granted.done():
                mark.granted.set_result(mark.delivery_id in committed.marked)
        for item in ended:
            if item.delivery_id in committed.states:
                self._recorded(item, committed.recorded.get(item.delivery_id))

    def _wake(self) -> None:
        self._idle.clear()
        self._work.set()
