"""What an outcome means for its delivery: pure, so that every case stands in a table of the tests."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from mailbound.database.bounces import Finding
from mailbound.database.deliveries import Settlement
from mailbound.database.outcomes import Ended
from mailbound.database.tally import Place
from mailbound.lifecycle import DeliveryEvent
from mailbound.model import Action, Evidence, Fault, Kind, Outcome, Result, Verdict
from mailbound.pacing import Backoff

_EVENTS = {
    Result.DEFERRED: DeliveryEvent.DEFER,
    Result.REFUSED: DeliveryEvent.REFUSE,
    Result.UNKNOWN: DeliveryEvent.LOSE,
    Result.UNTRIED: DeliveryEvent.RELEASE,
    Result.WITHDRAWN: DeliveryEvent.RELEASE,
}

SECOND_CHANCE = 2
"""A refusal that blames us is tried once more, for it may be mended meanwhile; the second one stands."""


class Attempt(NamedTuple):
    """One try at one delivery, as far as its settlement needs it."""

    delivery_id: int
    number: int
    marked: bool  # its mark is durable
    resend: bool  # the activity wants deliveries in doubt sent again
    place: Place | None = None


def settle(
    attempt: Attempt,
    outcome: Outcome,
    verdict: Verdict | None,
    *,
    retry: Backoff,
    jitter: float,
    rule_version: str,
    relay: str,
    now: datetime,
) -> Ended:
    """Return what to write about a delivery after `outcome`. `verdict` is that of its 4yz or 5yz reply, if any."""
    if outcome.result is Result.ACCEPTED:
        reply = str(outcome.reply) if outcome.reply else None
        return accepted(attempt.delivery_id, attempt.number, attempt.place, reply)
    if outcome.result is Result.WITHDRAWN and not attempt.marked:
        return Ended(attempt.delivery_id, None)
    event = _EVENTS[outcome.result]
    pause = timedelta(seconds=retry.delay(attempt.number, jitter=jitter))
    if _ours(outcome, verdict) and attempt.number < SECOND_CHANCE:
        event = DeliveryEvent.DEFER
    counted = attempt.number if event is not DeliveryEvent.RELEASE else attempt.number - 1
    settlement = Settlement(
        attempt.delivery_id,
        event,
        attempt=counted,
        next_attempt_at=now + pause if event is DeliveryEvent.DEFER else None,
        reason=verdict.category if verdict else None,
        status=str(verdict.status) if verdict and verdict.status else None,
        reply=str(outcome.reply) if outcome.reply else outcome.why or None,
    )
    finding = None
    if outcome.result is Result.REFUSED and outcome.reply is not None and verdict is not None:
        finding = Finding(
            kind=Kind.BOUNCE,
            at=now,
            action=Action.FAILED,
            verdict=verdict,
            evidence=Evidence.DIRECT,
            delivery_id=attempt.delivery_id,
            attempt=attempt.number,
            diagnostic=str(outcome.reply),
            reporting_mta=relay,
            rule_version=rule_version,
        )
    in_doubt = outcome.result is Result.UNKNOWN and attempt.resend
    return Ended(attempt.delivery_id, settlement, finding, now + pause if in_doubt else None)


def accepted(delivery_id: int, attempt: int, place: Place | None, reply: str | None) -> Ended:
    """Return what to write about a delivery that the relay has accepted."""
    settlement = Settlement(delivery_id, DeliveryEvent.ACCEPT, attempt=attempt, reply=reply)
    return Ended(delivery_id, settlement, place=place)


def _ours(outcome: Outcome, verdict: Verdict | None) -> bool:
    return outcome.result is Result.REFUSED and verdict is not None and verdict.fault is Fault.SENDER
