"""A courier: one connection to the relay, and the deliveries that go through it one after another."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from mailbound import classify
from mailbound.database.deliveries import Claimed, Settlement
from mailbound.database.outcomes import Ended
from mailbound.lifecycle import DeliveryEvent
from mailbound.model import Category, Letter, Outcome, Phase, Result, Verdict
from mailbound.outbound import settling
from mailbound.outbound.settling import Attempt
from mailbound.outbound.writer import Writer
from mailbound.pacing import Backoff
from mailbound.relay import Relay, Session

log = structlog.get_logger()

_IDLE_SECONDS = 30.0
"""How long a connection without work is kept: most relays end it themselves after some minutes."""

_CROWDED_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Item:
    """A claimed delivery with its message."""

    claimed: Claimed
    letter: Letter
    activity: str
    resend: bool
    expires_at: datetime | None


class Courier:
    """Takes items from a queue until it is cancelled or told to stop."""

    def __init__(
        self,
        number: int,
        queue: asyncio.Queue[Item],
        *,
        relay: Relay,
        writer: Writer,
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
        self._rules = rules
        self._retry = retry
        self._clock = clock
        self._sends = sends
        self._session: Session | None = None
        self._stopping = False
        self.on_wire = False  # a transaction is under way, and its reply worth waiting for

    def stop(self) -> None:
        """Take no further item."""
        self._stopping = True

    async def run(self) -> None:
        """Deliver until told to stop. What is under way then is brought to its end."""
        while not self._stopping:
            if self._number >= self._relay.concurrency.allowed(time.monotonic()):
                await self._hang_up()
                await asyncio.sleep(_CROWDED_SECONDS)
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

    async def _deliver(self, item: Item) -> None:
        """Bring one delivery to its settlement, whatever happens to the connection or to us."""
        marked = False

        async def mark() -> bool:
            nonlocal marked
            marked = await self._writer.mark(item.letter.delivery_id)
            return marked

        begun = time.monotonic()
        if not self._sends(item.claimed.run_id):
            self._writer.settle(_released(item))
            return
        try:
            session = await self._connected()
            if item.expires_at is not None and item.expires_at <= self._clock():
                self._writer.settle(_expired(item))
                return
            self.on_wire = True
            outcome = await session.transact(item.letter, mark)
        except asyncio.CancelledError:
            result = Result.UNKNOWN if marked else Result.UNTRIED
            outcome = Outcome(result, Phase.FINAL_DOT if marked else Phase.MAIL, why="the daemon was stopped")
            self._settle(item, outcome, marked=marked, seconds=time.monotonic() - begun)
            raise
        finally:
            self.on_wire = False
        self._relay.report(session, outcome)
        self._settle(item, outcome, marked=marked, seconds=time.monotonic() - begun)

    def _settle(self, item: Item, outcome: Outcome, *, marked: bool, seconds: float) -> None:
        verdict = self._verdict(outcome)
        if verdict is not None and verdict.category is Category.RATE:
            self._relay.concurrency.slow_down(time.monotonic())
        attempt = Attempt(item.letter.delivery_id, item.letter.attempt, marked, item.resend)
        ended = settling.settle(
            attempt,
            outcome,
            verdict,
            retry=self._retry,
            jitter=random.random(),
            rule_version=self._rules.version,
            relay=self._relay.account.host,
            now=self._clock(),
        )
        self._writer.settle(ended)
        _tell(item, outcome, verdict, ended, seconds)

    def _verdict(self, outcome: Outcome) -> Verdict | None:
        if outcome.reply is None or outcome.result not in {Result.REFUSED, Result.DEFERRED}:
            return None
        return classify.classify_reply(outcome.reply, outcome.phase, self._rules)

    async def _connected(self) -> Session:
        if self._session is None or not self._session.usable:
            self._session = await self._relay.connect()
        return self._session

    async def _hang_up(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            try:
                await session.quit()
            finally:
                session.close()


def _released(item: Item) -> Ended:
    return Ended(item.letter.delivery_id, Settlement(item.letter.delivery_id, DeliveryEvent.RELEASE))


def _expired(item: Item) -> Ended:
    settlement = Settlement(item.letter.delivery_id, DeliveryEvent.EXPIRE, reason="expired")
    return Ended(item.letter.delivery_id, settlement)


def _tell(item: Item, outcome: Outcome, verdict: Verdict | None, ended: Ended, seconds: float) -> None:
    """Write the one line of this attempt."""
    fields = _fields(item, outcome, verdict, ended) | {"duration": round(seconds, 3)}
    match outcome.result:
        case Result.ACCEPTED:
            log.info("delivery.accepted", **fields)
        case Result.REFUSED:
            log.info("delivery.refused", **fields)
        case Result.DEFERRED:
            log.info("delivery.deferred", **fields)
        case Result.UNKNOWN:
            log.warning("delivery.lost", **fields)
        case Result.WITHDRAWN:
            log.info("delivery.withdrawn", **fields)
        case Result.UNTRIED:
            log.info("delivery.released", **fields)


def _fields(item: Item, outcome: Outcome, verdict: Verdict | None, ended: Ended) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "delivery": item.letter.delivery_id,
        "attempt": item.letter.attempt,
        "activity": item.activity,
        "address": item.letter.recipient,
    }
    if outcome.reply is not None:
        fields |= {"code": outcome.reply.code, "reply": str(outcome.reply)}
    elif outcome.why:
        fields["why"] = outcome.why
    if verdict is not None:
        fields |= {"category": verdict.category, "rule": verdict.rule}
    if ended.settlement is not None and ended.settlement.next_attempt_at is not None:
        fields["next_attempt_at"] = ended.settlement.next_attempt_at.isoformat()
    return fields
