"""The loop that keeps the couriers busy: which runs send now, how many deliveries to claim, how fast to go."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
import structlog

from mailbound import classify, schedule
from mailbound.config import Policy, Sending
from mailbound.database import activities, claims, deliveries, runs
from mailbound.database.activities import Activity
from mailbound.database.bounces import Recorded
from mailbound.database.claims import Claimed
from mailbound.database.deliveries import Settlement
from mailbound.database.engine import Database
from mailbound.database.outcomes import Ended
from mailbound.database.runs import Run
from mailbound.errors import DatabaseError
from mailbound.lifecycle import DeliveryEvent, RunState
from mailbound.model import Letter
from mailbound.outbound.composer import Composer
from mailbound.outbound.courier import Courier, Item
from mailbound.outbound.telling import Teller
from mailbound.outbound.writer import Writer
from mailbound.pacing import Backoff, Pace, Turns
from mailbound.relay import Relay

log = structlog.get_logger()

_IDLE_SECONDS = 0.5
_LOOK_SECONDS = 0.1
"""How long it is not asked again which runs send: the mark of each delivery has the last word."""

_ROOM_SECONDS = 0.005
_AHEAD = 20
"""How many deliveries a courier are claimed and composed ahead of time; half of them are claimed at once."""

_AHEAD_OCTETS = 64 * 1024 * 1024
"""How much they may be together, as long as each courier has one: letters may have large attachments."""

_SHORT_WAIT_SECONDS = 0.05
"""A delivery whose domain makes it wait longer goes back into the queue until its turn, so that others go ahead."""

_TURN = timedelta(seconds=5)
_TOGETHER = 64
"""How many letters are composed together at most: most of what that saves, ..."""

_COMPOSING_SECONDS = 0.002
"""... and about how long it may take, for meanwhile no reply is read."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop of one store works with."""

    database: Database
    relay: Relay
    composer: Composer
    rules: classify.Rules
    sending: Sending
    limits: Policy
    store: str
    store_id: int
    node_id: int
    connections: int
    pace: Pace
    clock: Callable[[], datetime]


class Outbound:
    """Sends what is due of one store, for ever."""

    def __init__(self, parts: Parts) -> None:
        """Prepare the couriers; nothing is claimed."""
        self._parts = parts
        self._queue: asyncio.Queue[Item] = asyncio.Queue()
        self._sending: list[tuple[Run, Activity]] = []  # when we last looked
        self._run_ids: set[int] = set()
        self._next_look = 0.0
        self.writer = Writer(
            parts.database,
            node_id=parts.node_id,
            store_id=parts.store_id,
            limits=parts.limits,
            clock=parts.clock,
            recorded=_tell_bounce,
            company=2 * parts.connections,
        )
        retry = Backoff(
            parts.sending.retry_first.total_seconds(), parts.sending.retry_longest.total_seconds()
        )
        self._teller = Teller()
        self._couriers = [
            Courier(
                number,
                self._queue,
                relay=parts.relay,
                writer=self.writer,
                teller=self._teller,
                rules=parts.rules,
                retry=retry,
                clock=parts.clock,
                sends=lambda run_id: run_id in self._run_ids,
            )
            for number in range(parts.connections)
        ]
        self._turns = Turns()
        self._letter_octets = 0  # of the last one
        self._together = 1
        self.ticked_at = time.monotonic()

    async def run(self, stopping: asyncio.Event) -> None:
        """Send until `stopping` is set; then finish what is on the wire and give back the rest."""
        writer = asyncio.create_task(self.writer.run())
        couriers = [asyncio.create_task(courier.run()) for courier in self._couriers]
        feeder = asyncio.create_task(self._feed(stopping))
        watched = {writer, feeder, *couriers}
        try:
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # the feeder ends when we stop; only an error ends another one
        finally:
            await _cancel(feeder)
            if not writer.done():  # else no outcome could be written
                await self._drain(couriers)
                flushed = asyncio.create_task(self.writer.flush())
                await asyncio.wait({flushed, writer}, return_when=asyncio.FIRST_COMPLETED)
                await _cancel(flushed)
            await _cancel(writer, *couriers)
            self._teller.flush()

    async def _drain(self, couriers: Sequence[asyncio.Task[None]]) -> None:
        """Wait for replies to final dots, as long as the operator allows; then release what was not begun."""
        for courier in self._couriers:
            courier.stop()
        self._give_back()
        idle = [task for task, courier in zip(couriers, self._couriers, strict=True) if not courier.on_wire]
        await _cancel(*idle)
        seconds = self._parts.sending.drain.total_seconds()
        _, late = await asyncio.wait(couriers, timeout=seconds)
        if late:
            log.warning("drain.exceeded", store=self._parts.store, deliveries=len(late))
        await _cancel(*late)
        await asyncio.gather(*(courier.quit() for courier in self._couriers))

    async def _feed(self, stopping: asyncio.Event) -> None:
        """Claim what is due until we stop. A claim under way is waited for, since it is committed all the same."""
        while not stopping.is_set():
            try:
                fed = await self._feed_once(stopping)
            except DatabaseError:
                fed = 0
            if not fed:
                await self._sleep(_IDLE_SECONDS, stopping)

    async def _feed_once(self, stopping: asyncio.Event) -> int:
        """Claim for the runs that send now, each in its turn; return how many deliveries were claimed."""
        self.ticked_at = time.monotonic()
        if self.ticked_at >= self._next_look:
            self._sending = await self._parts.database.read(_sending, self._parts.store_id)
            self._run_ids = {run.id for run, _ in self._sending}
            self._next_look = time.monotonic() + _LOOK_SECONDS
        if self._is_down:
            self._give_back()
            return 0
        now = self._parts.clock()
        ready = [(run, activity) for run, activity in self._sending if _open_now(activity, now)]
        if not ready:
            return 0
        room = await self._room(stopping)
        asked_at = time.monotonic()
        by_id = {run.id: (run, activity) for run, activity in ready}
        fed = 0
        for run_id, limit in self._turns.shares(list(by_id), room, asked_at):
            if stopping.is_set():
                break
            claimed = await self._feed_run(*by_id[run_id], limit=limit, stopping=stopping)
            self._turns.claimed(run_id, limit, claimed, asked_at)
            fed += claimed
        return fed

    async def _room(self, stopping: asyncio.Event) -> int:
        """Wait until half of what is kept ahead is gone, and return how many deliveries to claim."""
        ahead = letters_ahead(self._parts.connections, self._letter_octets)
        while (room := ahead - self._queue.qsize()) < ahead // 2 and not stopping.is_set():
            if self._is_down:
                return 0
            await asyncio.sleep(_ROOM_SECONDS)
            self.ticked_at = time.monotonic()
        return room

    async def _feed_run(self, run: Run, activity: Activity, *, limit: int, stopping: asyncio.Event) -> int:
        enclosed = await self._parts.composer.enclosed_octets(run, activity)
        limit = min(limit, letters_ahead(self._parts.connections, enclosed))
        claimed = await self._parts.database.run(
            claims.claim,
            run_id=run.id,
            store_id=self._parts.store_id,
            node_id=self._parts.node_id,
            limit=limit,
            now=self._parts.clock(),
        )
        hours, now = schedule.Hours(activity.window, activity.time_zone), self._parts.clock()
        together: list[Claimed] = []
        for delivery in claimed:
            if stopping.is_set() or self._is_down:
                self._release(delivery)
            elif (opens := hours.opens(delivery.time_zone, now)) > now:
                self._release(delivery, next_attempt_at=opens)
            elif (wait := self._turn(delivery)) is not None:
                if wait > 0 or len(together) >= self._together:
                    await self._queue_letters(together, run, activity)
                    together = []
                    await self._sleep(wait, stopping)
                together.append(delivery)
        await self._queue_letters(together, run, activity)
        return len(claimed)

    def _turn(self, delivery: Claimed) -> float | None:
        """Return in how many seconds it is a delivery's turn, or None if that is so late that it was released."""
        pace = self._parts.pace
        wait = 0.0 if self._is_its_turn(delivery) else pace.take_domain(delivery.domain, time.monotonic())
        if wait <= _SHORT_WAIT_SECONDS and (crowded := pace.admit(delivery.domain, time.monotonic())):
            wait = crowded + random.random() * _TURN.total_seconds()
        if wait > _SHORT_WAIT_SECONDS:
            turn = self._parts.clock() + timedelta(seconds=wait)
            self._release(delivery, next_attempt_at=turn, reason=deliveries.PACED)
            return None
        return max(wait, pace.take(time.monotonic()))

    async def _queue_letters(self, claimed: Sequence[Claimed], run: Run, activity: Activity) -> None:
        """Compose deliveries and hand them to the couriers. What cannot be composed has failed."""
        if not claimed:
            return
        begun = time.monotonic()
        letters = await self._parts.composer.compose(claimed, run, activity)
        self._together = letters_together(time.monotonic() - begun, len(claimed))
        for delivery, letter in zip(claimed, letters, strict=True):
            if isinstance(letter, Letter):
                resend = activity.in_doubt == "resend"
                self._queue.put_nowait(Item(delivery, letter, activity.name, resend, run.expires_at))
                self._letter_octets = len(letter.content)
            else:
                settlement = Settlement(
                    delivery.id, DeliveryEvent.FAIL, reason="not-composed", reply=str(letter)
                )
                self.writer.settle(Ended(delivery.id, settlement))
                log.warning("delivery.failed", delivery=delivery.id, activity=activity.name, why=str(letter))
        await asyncio.sleep(0)  # it took as long as some replies, which others wait for

    async def _sleep(self, seconds: float, stopping: asyncio.Event) -> None:
        """Sleep until then, or until we stop, and go on telling that the loop is alive."""
        until = time.monotonic() + seconds
        while not stopping.is_set() and (left := until - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), min(left, 1.0))
            self.ticked_at = time.monotonic()

    def _is_its_turn(self, delivery: Claimed) -> bool:
        """Return whether the turn that was given to a delivery is now; one that was missed is given anew."""
        return delivery.slot_at is not None and self._parts.clock() - delivery.slot_at < _TURN

    @property
    def _is_down(self) -> bool:
        """Return whether the relay is down: then what is due is left to those who reach it."""
        return self._parts.relay.down_since is not None

    def _give_back(self) -> None:
        while not self._queue.empty():
            self._release(self._queue.get_nowait().claimed)

    def _release(
        self, delivery: Claimed, *, next_attempt_at: datetime | None = None, reason: str | None = None
    ) -> None:
        settlement = Settlement(
            delivery.id, DeliveryEvent.RELEASE, next_attempt_at=next_attempt_at, reason=reason
        )
        self.writer.settle(Ended(delivery.id, settlement))


def letters_ahead(connections: int, letter_octets: int) -> int:
    """Return how many letters of this size may be composed ahead of time."""
    return max(connections, min(connections * _AHEAD, _AHEAD_OCTETS // max(letter_octets, 1)))


def letters_together(seconds: float, letters: int) -> int:
    """Return how many letters to compose together, when the last ones took so long."""
    return max(1, min(_TOGETHER, int(letters * _COMPOSING_SECONDS / max(seconds, 1e-6))))


def _sending(connection: sa.Connection, store_id: int) -> list[tuple[Run, Activity]]:
    found = [run for run in runs.in_state(connection, RunState.SENDING) if run.store_id == store_id]
    return [(run, activities.find(connection, run.activity_id)) for run in found]


def _open_now(activity: Activity, now: datetime) -> bool:
    window = schedule.Hours(activity.window, activity.time_zone).of_run
    return window is None or window.contains(now)


def _tell_bounce(delivery_id: int, recorded: Recorded) -> None:
    verdict = recorded.finding.verdict
    log.info(
        "bounce.recorded",
        bounce=recorded.bounce_id,
        delivery=delivery_id,
        evidence=recorded.finding.evidence,
        category=verdict.category,
        permanent=verdict.permanent,
        rule=verdict.rule,
        disposition=recorded.decision.disposition,
        why=recorded.decision.why,
    )


async def _cancel(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
