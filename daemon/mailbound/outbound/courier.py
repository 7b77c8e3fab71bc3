"""A courier: one connection to the relay, and the deliveries that go through it one after another."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from mailbound import classify
from mailbound.database import nodes
from mailbound.database.claims import Claimed
from mailbound.database.deliveries import Settlement
from mailbound.database.outcomes import Ended
from mailbound.lifecycle import DeliveryEvent
from mailbound.model import Category, Letter, Outcome, Result, Verdict
from mailbound.outbound import settling
from mailbound.outbound.settling import Attempt
from mailbound.outbound.telling import Teller
from mailbound.outbound.writer import Writer
from mailbound.pacing import Backoff
from mailbound.relay import Relay, Session

_IDLE_SECONDS = 30.0
"""How long a connection without work is kept: most relays end it themselves after some minutes."""

_CROWDED_SECONDS = 1.0

_FRESH_SECONDS = nodes.LEASE.total_seconds()
"""A mark that was asked for longer ago is not acted on: who was suspended since may have been given up."""


class Item(NamedTuple):
    """A claimed delivery with its message."""

    claimed: Claimed
    letter: Letter
    activity: str
    resend: bool
    expires_at: datetime | None


class Courier:
    """Takes items from a queue until it is cancelled or told to stop.

    A coroutine waits for work and opens the session. From then on the courier is driven by what it is told: the relay
    has all but a final dot, a mark is granted, a letter ended. A task a letter would cost more than the letter.
    """

    def __init__(
        self,
        number: int,
        queue: asyncio.Queue[Item],
        *,
        relay: Relay,
        writer: Writer,
        teller: Teller,
        rules: classify.Rules,
        retry: Backoff,
        clock: Callable[[], datetime],
        sends: Callable[[int], bool],
    ) -> None:
        """Wait for work. Couriers are numbered from 0; those above the relay's concurrency rest.

        `sends` tells whether a run was sending a moment ago, to spare a connection; the mark has the last word.
        """
        self._number = number
        self._queue = queue
        self._relay = relay
        self._writer = writer
        self._teller = teller
        self._rules = rules
        self._retry = retry
        self._clock = clock
        self._sends = sends
        self._session: Session | None = None
        self._stopping = False
        self._under_way: list[_Passage] = []  # at most two: one awaits its last reply, one has been announced
        self._lull: asyncio.Future[None] | None = None  # nothing is under way

    @property
    def on_wire(self) -> bool:
        """Return whether a transaction is under way, and its reply worth waiting for."""
        return bool(self._under_way)

    def stop(self) -> None:
        """Take no further item."""
        self._stopping = True

    async def run(self) -> None:
        """Deliver until told to stop. What is under way then is brought to its end."""
        while not self._stopping:
            if not self._allowed():
                await self._hang_up()
                await asyncio.sleep(_CROWDED_SECONDS)
                continue
            if self._relay.down_since is not None:
                await self._come_back()
                continue
            try:
                item = await asyncio.wait_for(self._queue.get(), _IDLE_SECONDS)
            except TimeoutError:
                await self._hang_up()
                continue
            await self._deliver(item)

    async def quit(self) -> None:
        """End the session in good order."""
        await self._hang_up()

    def settle(self, passage: _Passage, outcome: Outcome) -> None:
        """Hand over what became of an item, and tell it to the relay's pacing and to the log."""
        item, seconds = passage.item, time.monotonic() - passage.begun
        letter = item.letter
        if outcome.result is Result.ACCEPTED and outcome.reply is not None:
            reply = str(outcome.reply)
            self._writer.settle(
                settling.accepted(letter.delivery_id, letter.attempt, item.claimed.place, reply)
            )
            self._teller.accepted(letter, item.activity, outcome.reply.code, reply, seconds=seconds)
            return
        verdict = self._verdict(outcome)
        if verdict is not None and verdict.category is Category.RATE:
            self._relay.concurrency.slow_down(time.monotonic(), begun=passage.begun)
        ended = settling.settle(
            Attempt(letter.delivery_id, letter.attempt, passage.marked, item.resend, item.claimed.place),
            outcome,
            verdict,
            retry=self._retry,
            jitter=random.random(),
            rule_version=self._rules.version,
            relay=self._relay.account.host,
            now=self._clock(),
        )
        self._writer.settle(ended)
        self._teller.ended(letter, item.activity, outcome, verdict, ended, seconds=seconds)

    async def _deliver(self, item: Item) -> None:
        """Deliver an item and those behind it, until there are no more or the session is over."""
        if self._turned_away(item):
            return
        try:
            session = await self._connected()
        except asyncio.CancelledError:
            self._writer.settle(_released(item))
            raise
        if session is None:
            self._writer.settle(_released(item))
            return
        if self._turned_away(item):  # it may have taken minutes
            return
        self._lull = asyncio.get_running_loop().create_future()
        self._begin(session, item)
        try:
            await self._lull
        except asyncio.CancelledError:
            session.close()
            raise

    def _begin(self, session: Session, item: Item | None) -> None:
        """Announce an item; one that the relay cannot take is settled, and the next one announced."""
        while item is not None:
            passage = _Passage(self, session, item)
            objection = session.objection(item.letter)
            if objection is None:
                self._under_way.append(passage)
                session.begin(item.letter, passage)
                return
            self._relay.report(session, objection)
            self.settle(passage, objection)
            item = self._next()
        self._pause()

    def _next(self) -> Item | None:
        """Return the next item that shall be sent now, if there is one and this courier may go on."""
        while not self._stopping and self._allowed() and self._relay.down_since is None:
            try:
                item = self._queue.get_nowait()
            except asyncio.QueueEmpty:
                return None
            if not self._turned_away(item):
                return item
        return None

    def mark(self, passage: _Passage) -> None:
        """Ask for the mark of an item: the relay has all of it but the final dot."""
        self._writer.mark(passage.item.letter.delivery_id, passage.granted)

    def granted(self, passage: _Passage) -> None:
        """Send the final dot, and with it the envelope of the next item."""
        passage.session.finish()
        if passage.session.usable:
            self._begin(passage.session, self._next())

    def ended(self, passage: _Passage, outcome: Outcome) -> None:
        """Settle an item, and go on if nothing else is under way."""
        self._under_way.remove(passage)
        self._relay.report(passage.session, outcome)
        self.settle(passage, outcome)
        if not self._under_way:
            self._begin(passage.session, self._next() if passage.session.usable else None)

    def failed(self, error: Exception) -> None:
        """Let the coroutine raise what went wrong while the courier was told something: it is a bug."""
        if self._lull is not None and not self._lull.done():
            self._lull.set_exception(error)

    def _pause(self) -> None:
        if not self._under_way and self._lull is not None and not self._lull.done():
            self._lull.set_result(None)

    def _turned_away(self, item: Item) -> bool:
        """Settle an item that shall not be sent now, and return whether it was one."""
        if not self._sends(item.claimed.run_id):
            self._writer.settle(_released(item))
        elif item.expires_at is not None and item.expires_at <= self._clock():
            self._writer.settle(_expired(item))
        else:
            return False
        return True

    def _allowed(self) -> bool:
        return self._number < self._relay.allowed

    def _verdict(self, outcome: Outcome) -> Verdict | None:
        if outcome.reply is None or outcome.result not in {Result.REFUSED, Result.DEFERRED}:
            return None
        return classify.classify_reply(outcome.reply, outcome.phase, self._rules)

    async def _connected(self) -> Session | None:
        """Return the session, a new one if need be, or None if the relay is down."""
        if self._session is None or not self._session.usable:
            self._session = await self._relay.attempt()
        return self._session

    async def _come_back(self) -> None:
        """Wait for the relay with empty hands: whoever reaches it meanwhile may have what is due."""
        await self._hang_up()  # an open session may be one that refuses every MAIL
        self._session = await self._relay.look()

    async def _hang_up(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            try:
                await session.quit()
            finally:
                session.close()


class _Passage:
    """One item on its way through a session; it is the letter's carrier there."""

    __slots__ = ("asked_at", "begun", "courier", "item", "marked", "over", "session")

    def __init__(self, courier: Courier, session: Session, item: Item) -> None:
        self.courier = courier
        self.session = session
        self.item = item
        self.begun = time.monotonic()
        self.asked_at = 0.0  # for the mark, by a clock that goes on while the machine sleeps
        self.marked = False
        self.over = False

    def ready(self) -> None:
        self.asked_at = _uptime()
        self._tell(self.courier.mark, self)

    def granted(self, yes: bool) -> None:  # noqa: FBT001 - it is the whole answer
        if self.over:
            return  # the session was closed meanwhile; what was marked is released by what ended it
        self.marked = yes
        if yes and _uptime() - self.asked_at < _FRESH_SECONDS:
            self._tell(self.courier.granted, self)
        else:
            self._tell(self.session.withdraw)

    def ended(self, outcome: Outcome) -> None:
        self.over = True
        self._tell(self.courier.ended, self, outcome)

    def _tell(self, what: Callable[..., None], *arguments: Any) -> None:
        try:
            what(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, the event loop would only log it
            self.courier.failed(error)


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _released(item: Item) -> Ended:
    return Ended(item.letter.delivery_id, Settlement(item.letter.delivery_id, DeliveryEvent.RELEASE))


def _expired(item: Item) -> Ended:
    settlement = Settlement(item.letter.delivery_id, DeliveryEvent.EXPIRE, reason="expired")
    return Ended(item.letter.delivery_id, settlement)
